"""Of a real cluster nothing is left but the directories of its chunkservers."""

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.chunkserver.catalogue import CATALOGUE, read_catalogue
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 64 * 1024


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "minigfs", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write(cluster: StorageCluster, path: str, content: bytes) -> None:
    with cluster.client.open_writer(path) as writer:
        writer.write(content)


def catalogued_paths(cluster: StorageCluster) -> set[str]:
    return {
        row.path
        for server in cluster.chunkservers
        if (server.directory / CATALOGUE).exists()
        for row in read_catalogue(server.directory / CATALOGUE)
    }


@pytest.fixture(scope="module")
def manifest() -> dict[str, str]:
    """Path -> sha256 of every file that was closed and not removed."""
    return {}


@pytest.fixture(scope="module")
def dead(
    tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, str]
) -> Iterator[StorageCluster]:
    """A cluster that has lived and is dead."""
    rng = random.Random(7)
    contents = {}
    with StorageCluster(tmp_path_factory.mktemp("rescue"), chunk_bytes=CHUNK) as cluster:
        for number in range(24):
            size = rng.choice([0, 1, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
            contents[f"/data/{number}"] = rng.randbytes(size)
        for path, content in contents.items():
            write(cluster, path, content)
        written_over = {"/data/3", "/data/4"}
        for number in (3, 4):
            write(cluster, f"/data/{number}", b"second" * 20_000)
            contents[f"/data/{number}"] = b"second" * 20_000
        for number in (5, 6):
            cluster.client.remove(f"/data/{number}")
            del contents[f"/data/{number}"]
        cluster.client.rename("/data/7", "/renamed")
        contents["/renamed"] = contents.pop("/data/7")
        cluster.client.rename("/data", "/moved")
        unfinished = cluster.client.open_writer("/unfinished")
        unfinished.write(b"never closed" * 20_000)
        for path, content in contents.items():
            moved = path.replace("/data/", "/moved/")
            manifest[moved] = hashlib.sha256(content).hexdigest()
        deadline = time.monotonic() + 60  # three passes
        while True:  # until all servers have heard a pass to its end
            paths = catalogued_paths(cluster)
            if paths >= set(manifest) and not paths & written_over:
                break
            assert time.monotonic() < deadline, "the servers were not told of all names"
            time.sleep(0.2)
        cluster.kill_everything()
        unfinished.discard()
        yield cluster


def test_the_folders_of_a_dead_cluster_give_back_what_was_closed(
    dead: StorageCluster, manifest: dict[str, str], tmp_path: Path
) -> None:
    directories = [server.directory for server in dead.chunkservers]
    rescued = command("rescue", *directories, "--output", tmp_path / "out", "--json")
    assert rescued.returncode == 0, rescued.stderr
    report = json.loads(rescued.stdout)["report"]
    assert report["rescued"] >= len(manifest)
    found = {
        "/" + str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    published = {path: hashlib.sha256(data).hexdigest() for path, data in found.items()}
    assert {path: digest for path, digest in published.items() if path in manifest} == manifest
    others = {path for path in published if path not in manifest}
    removed = {"/data/5", "/data/6"}  # in the cluster's trash, for three days
    expected = ("/_unconfirmed/unfinished", "/.trash/")
    assert all(path in removed or path.startswith(expected) for path in others), others


def test_the_files_of_its_servers_can_be_read_without_them(dead: StorageCluster) -> None:
    (segment,) = (dead.root / "master").rglob("*.wal")
    logged = command("dump", "log", segment, "--json")
    assert logged.returncode == 0, logged.stderr
    rows = [json.loads(line) for line in logged.stdout.splitlines()]
    entries = [entry for row in rows if row["what"] == "save" for entry in row["entries"]]
    published = [
        entry["command"]["path"]
        for entry in entries
        if entry.get("machine") == "fs" and entry["command"]["type"] == "PublishFile"
    ]
    assert len(published) > 20
    chunk = dead.chunkservers[0].chunk_files()[0]
    shown = command("dump", "chunk", chunk)
    assert shown.returncode == 0
    assert "cluster_id=test-cluster" in shown.stdout
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    assert command("dump", "chunk", chunk).returncode == 4
