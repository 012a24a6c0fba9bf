"""Transactions, clones, the trash and policies, as a client of real processes meets them."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.transaction import TransactionWriter
from minigfs.errors import (
    FileExists,
    FileMissing,
    InvalidPath,
    PreconditionFailed,
    UsageError,
    WriterFenced,
)
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(small_chunk_cluster: StorageCluster) -> MinigfsClient:
    return small_chunk_cluster.client


@pytest.fixture
def root(client: MinigfsClient, request: pytest.FixtureRequest) -> str:
    path = f"/{request.node.name}"[:200]
    client.make_directory(path)
    return path


def write(client: MinigfsClient, path: str, content: bytes) -> None:
    with client.open_writer(path) as writer:
        writer.write(content)


def read(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def names(client: MinigfsClient, path: str) -> list[str]:
    return [status.path.removeprefix(path + "/") for status in client.find(path)]


def chunks_of(client: MinigfsClient, path: str) -> set[str]:
    """The names of its chunks' files."""
    return {f"{chunk.handle:016x}.chunk" for chunk in client.locations(path).chunks}


def chunk_files(cluster: StorageCluster) -> set[str]:
    directories = [Path(server.directory) for server in cluster.chunkservers]
    return {file.name for each in directories for file in each.glob("chunks/**/*.chunk")}


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_files_of_a_transaction_appear_together(client: MinigfsClient, root: str) -> None:
    write(client, f"{root}/old", b"old")
    with client.transaction() as change:
        change.require_missing(f"{root}/_SUCCESS")
        for number in range(20):
            with change.open_writer(f"{root}/out/part-{number}") as file:
                file.write(b"%d" % number * 3_000)
        change.rename(f"{root}/old", f"{root}/out/index")
        change.make_directory(f"{root}/empty")
        change.open_writer(f"{root}/_SUCCESS")
        assert names(client, root) == ["old"]
    assert len(names(client, f"{root}/out")) == 21
    assert read(client, f"{root}/out/part-7") == b"7" * 3_000
    assert read(client, f"{root}/_SUCCESS") == b""


def fail_within(client: MinigfsClient, path: str) -> None:
    with client.transaction() as change:
        change.open_writer(path).write(b"x")
        raise ZeroDivisionError


def fail_writing(file: TransactionWriter) -> None:
    with file:
        file.write(b"half of it")
        raise ZeroDivisionError


def test_after_an_exception_or_a_refusal_nothing_has_happened(
    client: MinigfsClient, root: str
) -> None:
    write(client, f"{root}/kept", b"kept")
    kept = client.stat(f"{root}/kept")

    def change_much() -> None:
        with client.transaction() as change:
            change.require(kept)
            with change.open_writer(f"{root}/new") as file:
                file.write(b"x" * 5_000)
            change.remove(f"{root}/kept")
            change.rename(f"{root}/missing", f"{root}/there")

    with pytest.raises(FileMissing):
        change_much()
    assert names(client, root) == ["kept"]
    write(client, f"{root}/kept", b"another")
    with pytest.raises(PreconditionFailed, match=r"kept was changed or replaced"):
        change_much()
    with pytest.raises(ZeroDivisionError):
        fail_within(client, f"{root}/new")
    change = client.transaction()
    with pytest.raises(ZeroDivisionError):
        fail_writing(change.open_writer(f"{root}/new"))
    with pytest.raises(WriterFenced):
        change.commit()
    with pytest.raises(UsageError):
        change.remove(f"{root}/kept")
    assert names(client, root) == ["kept"]
    assert read(client, f"{root}/kept") == b"another"


def test_whoever_took_a_token_later_fences_those_before(client: MinigfsClient, root: str) -> None:
    first, second = client.take_token(root), client.take_token(root)
    assert first < second
    for token, is_fenced in ((first, True), (second, False), (second, False)):
        change = client.transaction()
        change.fence(root, token)
        change.open_writer(f"{root}/{token}").write(b"mine")
        if is_fenced:
            with pytest.raises(WriterFenced, match="taken since"):
                change.commit()
        else:
            change.commit()
    assert names(client, root) == [str(second)]


def test_a_clone_shares_bytes_until_the_last_owner_is_gone(
    small_chunk_cluster: StorageCluster, client: MinigfsClient, root: str
) -> None:
    content = bytes(range(256)) * 20
    for number in range(3):
        write(client, f"{root}/tree/{number}", content)
    before = set().union(*(chunks_of(client, f"{root}/tree/{number}") for number in range(3)))
    assert len(before) == 15
    assert before <= chunk_files(small_chunk_cluster)
    client.clone(f"{root}/tree", f"{root}/copy")
    client.clone(f"{root}/tree/0", f"{root}/one")
    with pytest.raises(FileExists):
        client.clone(f"{root}/tree", f"{root}/copy")
    with pytest.raises(InvalidPath):
        client.clone(f"{root}/tree", f"{root}/tree/in")
    write(client, f"{root}/tree/0", b"changed")
    client.remove(f"{root}/tree", recursive=True, now=True)
    time.sleep(2.5)  # two rounds of housekeeping: nothing that is needed is deleted
    assert before <= chunk_files(small_chunk_cluster)
    for path in ("copy/0", "copy/1", "copy/2", "one"):
        assert read(client, f"{root}/{path}") == content
    client.remove(root, recursive=True, now=True)
    until(lambda: not before & chunk_files(small_chunk_cluster))


def test_a_large_tree_is_cloned_at_one_moment_while_others_change_it(
    client: MinigfsClient, root: str
) -> None:
    """Each of those others makes x-N and removes x-N-1: a moment has one of them, or two."""
    for thousand in range(3):
        with client.transaction() as tree:
            for number in range(1_000):
                tree.make_directory(f"{root}/tree/{number % 5}/{thousand}-{number}", parents=True)
    client.make_directory(f"{root}/tree/4/x-0")
    stopped = threading.Event()

    def change() -> None:
        number = 0
        while not stopped.is_set():
            client.make_directory(f"{root}/tree/4/x-{number + 1}")
            client.remove(f"{root}/tree/4/x-{number}")
            number += 1

    other = threading.Thread(target=change)
    other.start()
    try:
        for number in range(3):
            client.clone(f"{root}/tree", f"{root}/copy-{number}")
    finally:
        stopped.set()
        other.join()
    for number in range(3):
        found = names(client, f"{root}/copy-{number}")
        changing = sorted(int(name.partition("-")[2]) for name in found if "x-" in name)
        assert len(found) - len(changing) == 3_005
        assert 1 <= len(changing) <= 2
        assert changing[-1] - changing[0] == len(changing) - 1


def test_what_was_removed_comes_back(client: MinigfsClient, root: str) -> None:
    write(client, f"{root}/d/f", b"first")
    client.remove(f"{root}/d/f")
    write(client, f"{root}/d/f", b"second")
    write(client, f"{root}/d/g", b"g")
    client.remove(f"{root}/d", recursive=True)
    assert names(client, root) == []
    (late, early) = sorted(client.list_trash(root), key=lambda one: one.path)
    assert (late.path, early.path) == (f"{root}/d", f"{root}/d/f")
    assert early.kept_until_ms - early.removed_ms == 3 * 86_400_000
    assert read(client, early.trash_path) == b"first"
    assert not any("trash" in status.path for status in client.list_directory("/"))
    client.undelete(f"{root}/d/f")
    assert read(client, f"{root}/d/f") == b"second"
    with pytest.raises(FileExists):
        client.undelete(f"{root}/d/f")
    client.undelete(f"{root}/d/f", f"{root}/before")
    assert read(client, f"{root}/before") == b"first"
    client.remove(late.trash_path, recursive=True)
    assert list(client.list_trash(root)) == []
    with pytest.raises(FileMissing):
        client.undelete(f"{root}/d/g")


HALF_A_FILE = """
import sys, time
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
client = MinigfsClient(ClientConfig.discover(home=sys.argv[1]))
writer = client.open_writer(sys.argv[2])
writer.write(b"half a file " * 1_000)
time.sleep(0.3)  # who writes for a moment only is not watched: its lease ends
print("open", flush=True)
sys.stdin.readline()
if sys.argv[3] == "leave":
    sys.exit()
time.sleep(60)
"""


@pytest.mark.parametrize(("end", "seconds"), [("leave", 2.0), ("kill", 9.0)])
def test_the_temporary_file_of_a_process_that_ends_is_gone_in_seconds(
    small_chunk_cluster: StorageCluster, root: str, end: str, seconds: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_A_FILE, str(small_chunk_cluster.home), f"{root}/f", end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"open\n"
        until(lambda: is_on_disk(small_chunk_cluster, b"half a file"), 10)
        if end == "kill":
            process.kill()
        else:
            process.stdin.close()
            process.wait()
        until(lambda: not is_on_disk(small_chunk_cluster, b"half a file"), seconds)
        process.kill()


def is_on_disk(cluster: StorageCluster, content: bytes) -> bool:
    for server in cluster.chunkservers:
        for path in server.directory.glob("*/*.chunk*"):
            with suppress(FileNotFoundError):  # gone while we looked
                if content in path.read_bytes():
                    return True
    return False


def test_policies_are_inherited(client: MinigfsClient, root: str) -> None:
    client.make_directory(f"{root}/scratch/deep", parents=True)
    client.set_policy(f"{root}/scratch", replication=1, retention_ms=0)
    assert client.policy(f"{root}/scratch/deep").replication == 1
    write(client, f"{root}/scratch/deep/f", b"x" * 3_000)
    assert client.stat(f"{root}/scratch/deep/f").replication == 1
    client.remove(f"{root}/scratch/deep/f")
    assert list(client.list_trash(root)) == []
    write(client, f"{root}/scratch/deep/f", b"x" * 3_000)
    assert client.set_replication(f"{root}/scratch", 2, recursive=True) == 1
    assert client.stat(f"{root}/scratch/deep/f").replication == 2
    assert client.policy(f"{root}/scratch").own_replication == 2
    client.set_policy(f"{root}/scratch", replication=-1, retention_ms=1)
    client.remove(f"{root}/scratch/deep/f")
    until(lambda: list(client.list_trash(root)) == [])
