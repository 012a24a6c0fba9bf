"""Disks that stall, and primaries that sleep beyond every deadline: short waits, one history."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minigfs.chunkserver.append_service import SILENCE_MS_MAX
from minigfs.client.appender import Appender
from minigfs.client.checking import ReplicaChecker
from minigfs.client.client import MinigfsClient
from minigfs.errors import OutcomeUnknown
from tests.append_history import AppendHistory, make_record
from tests.crashing_disk import CrashAt, arm
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 256 * 1024
STALL_SECONDS_MAX = 3.0
WRITER_SECONDS_MAX = 18.0  # ``chain_timeout_ms`` of three servers, and the chunk once more
DISK = ("blank/", "chunks/", "incoming/", "open/")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[StorageCluster]:
    with StorageCluster(tmp_path / "cluster", chunk_bytes=CHUNK_BYTES, crashes=True) as started:
        yield started


@pytest.fixture
def linked_cluster(tmp_path: Path) -> Iterator[StorageCluster]:
    with StorageCluster(tmp_path / "linked", chunk_bytes=CHUNK_BYTES, links=True) as started:
        yield started


def content_of(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def member_of(cluster: StorageCluster, path: str, place: int) -> int:
    """The chunkserver at a place of a file's open chunk; the primary is the first."""
    replicas = cluster.client.locations(path).chunks[-1].replicas
    return cluster.number_of(replicas[place].address)


def check_replicas(cluster: StorageCluster) -> None:
    with ReplicaChecker(cluster.config) as checker:
        found = [one for checked in checker.check("/") for one in checked.findings]
        assert checker.await_repair(found, timeout_ms=60_000) == []


@pytest.mark.parametrize("place", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_disk_that_stalls_holds_up_an_appender_for_less_than_three_seconds(
    cluster: StorageCluster, place: int
) -> None:
    """Its server answers pings all the while."""
    with cluster.client.open_appender("/log") as appender:
        appender.append(b"before ")
        stalled = cluster.chunkservers[member_of(cluster, "/log", place)].directory
        arm(stalled, CrashAt(step=1, below=DISK, stalls_s=5.0))
        began = time.monotonic()
        appender.append(b"during ")
        assert time.monotonic() - began < STALL_SECONDS_MAX
        appender.append(b"after")
    assert content_of(cluster.client, "/log") == b"before during after"


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_disk_that_stalls_in_a_sync_is_left_out_by_a_writer_in_time(
    cluster: StorageCluster, number: int
) -> None:
    """Longer than any disk needs: nothing else tells it from a slow one."""
    arm(cluster.chunkservers[number].directory, CrashAt(step=4, below=DISK, stalls_s=60.0))
    content = bytes(range(256)) * 500
    began = time.monotonic()
    with cluster.client.open_writer("/file") as writer:
        writer.write(content)
    assert time.monotonic() - began < WRITER_SECONDS_MAX
    assert content_of(cluster.client, "/file") == content


@contextmanager
def stopped(cluster: StorageCluster, number: int) -> Iterator[None]:
    cluster.pause_chunkserver(number)
    try:
        yield
    finally:
        cluster.resume_chunkserver(number)


@contextmanager
def cut_off(cluster: StorageCluster, number: int) -> Iterator[None]:
    """From all other servers; clients still reach it."""
    assert cluster.links is not None
    cluster.isolate_chunkserver(number)
    try:
        yield
    finally:
        cluster.links.heal()


@contextmanager
def without_master(cluster: StorageCluster, number: int) -> Iterator[None]:
    """It goes on serving with its fellows, for as long as it may."""
    assert cluster.links is not None
    cluster.links.cut("master", cluster.chunkservers[number].host)
    try:
        yield
    finally:
        cluster.links.heal()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [stopped, cut_off, without_master])
def test_a_primary_that_is_away_past_every_deadline_loses_and_forks_nothing(
    linked_cluster: StorageCluster,
    fault: Callable[[StorageCluster, int], "contextmanager[None]"],
) -> None:
    """Appenders go on elsewhere; what it does when it is back counts no more. Readers see a history
    that only grows, whomever they ask."""
    cluster = linked_cluster
    client, history, stop = cluster.client, AppendHistory(), threading.Event()
    crashes: list[BaseException] = []

    def append_for_ever(number: int, appender: Appender) -> None:
        for record_number in range(1_000_000):
            if stop.is_set():
                appender.close()
                return
            record = make_record(number, record_number, 500)
            try:
                history.acknowledged[number, record_number] = appender.append(record)
            except OutcomeUnknown:
                history.unknown.add((number, record_number))

    def read_for_ever() -> None:
        seen = b""
        while not stop.is_set():
            acknowledged = max(history.acknowledged.copy().values(), default=0)
            content = content_of(client, "/log")
            assert content.startswith(seen), "the file has changed where it was read before"
            assert len(content) >= acknowledged
            seen = content

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again below
            crashes.append(error)

    appenders = [client.open_appender("/log") for _ in range(3)]
    threads = [
        threading.Thread(target=run, args=(lambda n=n, a=a: append_for_ever(n, a),))
        for n, a in enumerate(appenders)
    ]
    threads.append(threading.Thread(target=run, args=(read_for_ever,)))
    appenders[0].append(make_record(9, 0, 10))
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)  # appending goes on meanwhile
        with fault(cluster, member_of(cluster, "/log", 0)):
            time.sleep(SILENCE_MS_MAX / 1000 + 2.0)  # how long it is away
        time.sleep(1.0)  # appending goes on meanwhile
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not crashes, crashes
    history.acknowledged[9, 0] = 0
    history.check(content_of(client, "/log"))
    assert len(history.acknowledged) > 50
    check_replicas(cluster)
