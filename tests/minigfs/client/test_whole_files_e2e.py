"""A file that is made by one call: as one that is opened, written and closed, with less waiting."""

from typing import Any

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import FileExists, InvalidPath, IsDirectory
from minigfs.master.messages import CreateEmptyFile, DiscardFile, PrepareWrite, PublishFile
from minigfs.transport.group import GroupCaller
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
    spares = client._shared.spares
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


def test_a_spare_file_that_the_master_gave_up_is_not_missed(client: MinigfsClient) -> None:
    warm_up(client, "/given-up")
    spare = client._shared.spares.take()
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
