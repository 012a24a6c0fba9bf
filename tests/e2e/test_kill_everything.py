"""Everything is killed at random, again and again: of what was closed, nothing is missing."""

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest

from minigfs.client.checking import ReplicaChecker
from minigfs.errors import MinigfsError
from tests.storage_cluster import StorageCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHUNK = 128 * 1024
ROUNDS = 8
WRITERS = 3
ROUND_SECONDS = 2.0


class Manifest:
    """What was closed, written down where no cluster can lose it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.closed: set[str] = set()
        self.possible: dict[str, set[str]] = {}  # path -> digests

    def about_to_write(self, path: str, digest: str) -> None:
        with self._lock:
            self.possible.setdefault(path, set()).add(digest)

    def was_closed(self, path: str, digest: str) -> None:
        with self._lock:
            self.closed.add(path)
            self.possible[path] = {digest}


def write_for_ever(
    cluster: StorageCluster, manifest: Manifest, number: int, stop: threading.Event
) -> None:
    """Each path has one writer; some files are written over."""
    rng = random.Random(number)
    while not stop.is_set():
        path = f"/{number}/{rng.randrange(40)}"
        content = rng.randbytes(rng.choice([0, 100, CHUNK, 3 * CHUNK + 17]))
        digest = hashlib.sha256(content).hexdigest()
        manifest.about_to_write(path, digest)
        try:
            with cluster.client.open_writer(path) as writer:
                writer.write(content)
        except MinigfsError:
            continue  # it may be there for all that, or come about yet
        manifest.was_closed(path, digest)


def kill_something(cluster: StorageCluster, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            cluster.kill_everything()
        case 1:
            cluster.kill_master()
        case _:
            for server in rng.sample(range(3), rng.randint(1, 3)):
                cluster.kill_chunkserver(server)


def test_nothing_closed_is_missing_whatever_was_killed(tmp_path: Path) -> None:
    manifest, stop, rng = Manifest(), threading.Event(), random.Random(5)
    with StorageCluster(tmp_path / "cluster", chunk_bytes=CHUNK, timeout_ms=5_000) as cluster:
        writers = [
            threading.Thread(target=write_for_ever, args=(cluster, manifest, number, stop))
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        try:
            for _ in range(ROUNDS):
                time.sleep(ROUND_SECONDS * rng.random())
                kill_something(cluster, rng)
                cluster.start()
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert len(manifest.closed) > 20
        for path in manifest.closed:
            with cluster.client.open_reader(path) as reader:
                content = reader.read_at(0, reader.size_bytes)
            assert hashlib.sha256(content).hexdigest() in manifest.possible[path], path
        with ReplicaChecker(cluster.config) as checker:
            found = [one for checked in checker.check("/") for one in checked.findings]
            assert checker.await_repair(found, timeout_ms=60_000) == []
