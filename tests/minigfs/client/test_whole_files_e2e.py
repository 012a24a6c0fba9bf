"""A file that is made by one call: as one that is opened, written and closed, with less waiting."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_fields

from minigfs.client.client import MinigfsClient
from minigfs.client.masters import MasterCaller
from minigfs.client.writer import FileWriter
from minigfs.errors import (
    FileExists,
    InvalidPath,
    IsDirectory,
    NotEnoughChunkservers,
    Unreachable,
)
from minigfs.master.messages import (
    CreateEmptyFile,
    DiscardFile,
    PrepareWrite,
    PublishFile,
    WriteTerms,
)
from minigfs.transport.begun_call import BegunCall
from minigfs.transport.group import GroupCaller
from minigfs.transport.stream import Stream
from tests.minigfs.client.test_files_e2e import read_file, until
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(small_chunk_cluster: StorageCluster) -> MinigfsClient:
    return small_chunk_cluster.client


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the masters are asked while the caller does nothing else, and what beside other work."""
    asked: list[str] = []
    call, begin = GroupCaller.call, GroupCaller.begin

    def called(group: GroupCaller, request: Any, **options: Any) -> Any:
        if isinstance(request, CreateEmptyFile | PrepareWrite | PublishFile):
            asked.append(type(request).__name__)
        return call(group, request, **options)

    def begun(group: GroupCaller, request: Any, **options: Any) -> Any:
        asked.append(f"begin {type(request).__name__}")
        return begin(group, request, **options)

    monkeypatch.setattr(GroupCaller, "call", called)
    monkeypatch.setattr(GroupCaller, "begin", begun)
    return asked


def warm_up(client: MinigfsClient, directory: str) -> None:
    """Return when this process has a spare file for its next one."""
    spares = client._shared.new_files._spares
    client.write_file(f"{directory}/warm", b"data")

    def has_spare() -> bool:
        spare = spares.take()
        if spare is not None:
            spare.put_back()
            return True
        client.write_file(f"{directory}/warm", b"data")
        return False

    until(has_spare)


@pytest.mark.parametrize("size_bytes", [0, 1, 1024, 1025, 64 * 1024, 64 * 1024 + 1])
def test_a_file_is_there_with_all_its_bytes(client: MinigfsClient, size_bytes: int) -> None:
    path, data = f"/whole/{size_bytes}", bytes(range(256)) * 257
    for count in range(3):  # with and without a spare file
        content = data[count : count + size_bytes]
        status = client.write_file(path, memoryview(content))
        assert status == client.stat(path)
        assert (status.size_bytes, read_file(client, path)) == (size_bytes, content)


def test_a_small_file_waits_for_its_publication_and_an_empty_one_for_its_creation(
    client: MinigfsClient, waits: list[str]
) -> None:
    warm_up(client, "/waits")
    waits.clear()
    client.write_file("/waits/small", b"data")
    assert waits == ["begin PrepareWrite", "PublishFile"]
    waits.clear()
    client.write_file("/waits/empty", b"")
    assert waits == ["CreateEmptyFile"]


@pytest.mark.parametrize("has_spares", [True, False])
def test_the_first_file_of_a_process_asks_once_and_leaves_no_spare_file_behind(
    small_chunk_cluster: StorageCluster,
    client: MinigfsClient,
    waits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    has_spares: bool,
) -> None:
    warm_up(client, f"/first/{has_spares}")  # the master has spares to give
    call = MasterCaller.call

    def without_spare(caller: MasterCaller, request: Any, **options: Any) -> Any:
        reply = call(caller, request, **options)
        return with_fields(reply, spare=None) if isinstance(reply, WriteTerms) else reply

    if not has_spares:
        monkeypatch.setattr(MasterCaller, "call", without_spare)
    config = replace(small_chunk_cluster.config, timeout_ms=9_000 + has_spares)
    process = MinigfsClient(config)  # nothing in it is shared with other clients
    waits.clear()
    process.write_file(f"/first/{has_spares}/one", b"data")
    assert waits == ["PrepareWrite", "PublishFile"]
    assert process._shared.new_files._spares.take() is None


def test_an_interrupted_write_waits_for_no_answer_and_ends_its_call(
    client: MinigfsClient, waits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up(client, "/interrupted")
    calls: list[BegunCall[Any]] = []
    begin = MasterCaller.begin

    def begun(caller: MasterCaller, request: Any) -> BegunCall[Any]:
        calls.append(begin(caller, request))
        monkeypatch.setattr(calls[-1], "answer", lambda: pytest.fail("nobody wants the answer"))
        return calls[-1]

    def interrupt(writer: FileWriter) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MasterCaller, "begin", begun)
    monkeypatch.setattr(FileWriter, "finish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.write_file("/interrupted/small", b"data")
    stream = calls[0]._begun
    assert isinstance(stream, Stream)
    assert not stream._open
    assert not client.exists("/interrupted/small")


def test_when_nobody_stores_the_bytes_the_refusal_of_the_master_says_more(
    client: MinigfsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up(client, "/unstored")

    def fail(writer: FileWriter) -> None:
        raise NotEnoughChunkservers("nobody stores it")

    monkeypatch.setattr(FileWriter, "finish", fail)
    with pytest.raises(FileExists):
        client.write_file("/unstored/warm", b"data", exclusive=True)
    with pytest.raises(NotEnoughChunkservers):
        client.write_file("/unstored/small", b"data")


def test_a_small_file_gives_up_after_the_time_of_one_call_when_the_cluster_is_gone(
    tmp_path: Path,
) -> None:
    with StorageCluster(tmp_path, chunkservers=1, replication=1, timeout_ms=2_500) as cluster:
        client = cluster.client
        warm_up(client, "/gone")
        cluster.kill_everything()
        began = time.monotonic()
        with pytest.raises(Unreachable):
            client.write_file("/gone/small", b"data")
        assert time.monotonic() - began < 4.2


def test_a_spare_file_that_the_master_gave_up_is_not_missed(client: MinigfsClient) -> None:
    warm_up(client, "/given-up")
    spare = client._shared.new_files._spares.take()
    assert spare is not None
    client._masters.change(DiscardFile(file_id=spare.created.file_id))
    spare.put_back()
    client.write_file("/given-up/small", b"data")
    assert read_file(client, "/given-up/small") == b"data"


@pytest.mark.parametrize("data", [b"", b"new", b"new" * 40_000], ids=["empty", "small", "large"])
def test_what_the_master_refuses_changes_nothing(client: MinigfsClient, data: bytes) -> None:
    directory = f"/refused/{len(data)}"
    warm_up(client, directory)
    client.write_file(f"{directory}/taken", b"old")
    with pytest.raises(FileExists):
        client.write_file(f"{directory}/taken", data, exclusive=True)
    with pytest.raises(IsDirectory):
        client.write_file(directory, data)
    with pytest.raises(InvalidPath):
        client.write_file(f"{directory}//a", data)
    assert read_file(client, f"{directory}/taken") == b"old"
    assert [entry.path for entry in client.list_directory(directory)] == [
        f"{directory}/taken",
        f"{directory}/warm",
    ]


def test_a_file_gets_the_replicas_of_its_path_and_not_those_of_the_spare_file(
    client: MinigfsClient,
) -> None:
    warm_up(client, "/policies")
    usual = client.stat("/policies/warm").replication
    client.make_directory("/policies/one")
    client.set_policy("/policies/one", replication=1)
    assert usual != 1
    assert client.write_file("/policies/one/a", b"data").replication == 1
    assert client.write_file("/policies/b", b"data", replication=1).replication == 1
    assert client.write_file("/policies/c", b"data").replication == usual
    assert read_file(client, "/policies/one/a") == b"data"
