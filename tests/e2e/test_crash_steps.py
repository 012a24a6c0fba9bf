"""A crash at each numbered step of what changes files: all of it has happened, or nothing.

A step is a change or a sync of the disk of the master, or of a chunkserver. Before it, that process
dies with what its disk was not made to keep (``crashing_disk``); or every process dies, the client
included, and all come back.
"""

import itertools
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import Popen

import pytest

from minigfs.client.checking import ReplicaChecker
from minigfs.master.writers import WRITER_LEASE_MS
from tests.crash_operations import CHUNK_BYTES, OPERATIONS, run_operation
from tests.crashing_disk import CrashAt, arm, disarm
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

VICTIM, DROPPED = 1, 2  # chunkservers
BELOW = {"master": ("wal/",), "chunkserver": ("blank/", "chunks/", "incoming/", "open/", "trash/")}
ROUNDS_MAX = 500
PATIENCE_S = 60.0
ABANDONED_S = WRITER_LEASE_MS / 1000 + PATIENCE_S  # what dead writers left goes after a lease
AFTERWARDS_S = 4.0  # a removed file's chunks are deleted in the background

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.crash_operations"])
_roots = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("steps")
    with StorageCluster(root, chunk_bytes=CHUNK_BYTES, crashes=True) as started:
        yield started


class Client:
    """An operation in a process of its own."""

    def __init__(self, home: Path, name: str, root: str) -> None:
        self._connection, other = _processes.Pipe()
        self.said: list[str] = []
        self.process: BaseProcess = _processes.Process(
            target=run_operation, args=(home, name, root, other)
        )
        self.process.start()
        other.close()

    def wait_until_it_waits(self) -> None:
        while "waiting" not in self.said:
            assert self._connection.poll(PATIENCE_S)
            self.said.append(self._connection.recv())

    def go_on(self) -> None:
        self._connection.send("go on")

    def listen(self) -> bool:
        """Take in what it says; whether it will say no more."""
        try:
            while self._connection.poll(0):
                self.said.append(self._connection.recv())
        except EOFError:
            return True
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.listen()
        self._connection.close()


def victim_of(cluster: StorageCluster, victim: str) -> tuple[Path, Popen[bytes]]:
    if victim == "master":
        process, directory = cluster.master_process, cluster.root / "master"
    else:
        server = cluster.chunkservers[VICTIM]
        process, directory = server.process, server.directory
    assert process is not None
    return directory, process


def crash_at(
    cluster: StorageCluster, name: str, victim: str, crash: CrashAt, *, all_die: bool
) -> bool:
    """Run an operation with a crash at one step, check what came of it; False if there was no such
    step."""
    operation, root = OPERATIONS[name], f"/{name.replace(' ', '-')}-{next(_roots)}"
    operation.prepare(cluster.client, root)
    directory, process = victim_of(cluster, victim)
    waits = name == "drop and bump"
    if not waits:
        arm(directory, crash)
    client = Client(cluster.home, name, root)
    if waits:
        client.wait_until_it_waits()
        arm(directory, crash)
        cluster.kill_chunkserver(DROPPED)
        client.go_on()
    has_crashed = await_crash(process, client, 0 if name != "delete" else AFTERWARDS_S)
    disarm(directory)
    if all_die:
        client.kill()
        cluster.kill_everything()
    else:
        restart(cluster, victim)
        client.process.join(PATIENCE_S)
        client.listen()
        assert client.process.exitcode == 0, f"{name}: the client was not served: {client.said}"
        client.kill()
    cluster.start()
    operation.check(cluster.client, root, client.said)
    return has_crashed


def await_crash(process: Popen[bytes], client: Client, afterwards_s: float) -> bool:
    """Whether the victim died; else the client has ended, and what goes on behind it as well."""
    deadline = time.monotonic() + PATIENCE_S
    has_ended = False
    while process.poll() is None:
        if client.listen() and not has_ended:
            has_ended = True
            deadline = time.monotonic() + afterwards_s
        if time.monotonic() > deadline:
            assert has_ended, f"nothing happens: {client.said}"
            return False
        time.sleep(0.005)  # only asking tells
    return True


def restart(cluster: StorageCluster, victim: str) -> None:
    if victim == "master":
        cluster.kill_master()
        cluster.start_master()
    else:
        cluster.kill_chunkserver(VICTIM)


def check_whole(cluster: StorageCluster) -> None:
    """No replica is wrong or missing for long, and nothing is left of what came to nothing."""
    with ReplicaChecker(cluster.config) as checker:
        found = [one for checked in checker.check("/") for one in checked.findings]
        assert checker.await_repair(found, timeout_ms=60_000) == []
    expected = sum(status.chunk_count for status in cluster.client.find("/"))
    deadline = time.monotonic() + ABANDONED_S
    while (report := cluster.client.report()).health != "OK" or report.chunk_count > expected:
        assert time.monotonic() < deadline, (report.reasons, report.chunk_count, expected)
        time.sleep(0.1)  # only asking tells


@pytest.mark.parametrize(
    ("victim", "name", "step"),
    [("master", "clone", 3), ("master", "write", 4), ("chunkserver", "append", 9)],
)
def test_a_crash_in_the_middle(cluster: StorageCluster, victim: str, name: str, step: int) -> None:
    crash = CrashAt(step=step, below=BELOW[victim])
    assert crash_at(cluster, name, victim, crash, all_die=True), "there is no such step"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("all_die", [True, False], ids=["all die", "one dies"])
@pytest.mark.parametrize("victim", ["master", "chunkserver"])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_crash_at_each_step(
    cluster: StorageCluster, name: str, victim: str, all_die: bool
) -> None:
    stride = 17 if name == "transact" else 1  # a hundred files are begun alike
    for step in range(1, ROUNDS_MAX * stride, stride):
        crash = CrashAt(step=step, below=BELOW[victim], loses_unsynced=step % 4 != 0)
        if not crash_at(cluster, name, victim, crash, all_die=all_die):
            assert step > 1 or name == "transact" or victim != "master"
            break
    else:
        raise AssertionError("it has no end")
    check_whole(cluster)
