"""Writing into files of a real cluster: all of a flush or nothing, beside others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import FileMissing, IsDirectory, UsageError, WriterFenced
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("updates")
    with StorageCluster(root / "cluster", chunk_bytes=CHUNK_BYTES) as running:
        yield running


@pytest.fixture
def client(cluster: StorageCluster) -> MinigfsClient:
    cluster.start()
    return cluster.client


def write(client: MinigfsClient, path: str, content: bytes) -> bytes:
    with client.open_writer(path) as writer:
        writer.write(content)
    return content


def content_of(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def test_bytes_at_any_offset_over_chunk_borders(client: MinigfsClient) -> None:
    expected = bytearray(write(client, "/offsets", bytes(3 * CHUNK_BYTES + 77)))
    with client.open_for_update("/offsets") as file:
        for offset, length in ((0, 5), (CHUNK_BYTES - 3, 9), (3 * CHUNK_BYTES + 70, 20)):
            data = bytes([length]) * length
            assert file.write_at(offset, data) == length
            expected[offset : offset + length] = data
        assert file.size_bytes == len(expected)
    assert content_of(client, "/offsets") == expected
    assert client.stat("/offsets").size_bytes == len(expected)


def test_nothing_is_visible_before_a_flush_and_then_all_of_it(client: MinigfsClient) -> None:
    before = write(client, "/flush", b"a" * (2 * CHUNK_BYTES))
    with client.open_for_update("/flush") as file:
        file.write(b"b" * 10)
        file.seek(-10, 2)
        file.write(b"c" * 10)
        assert content_of(client, "/flush") == before
        file.flush()
        after = b"b" * 10 + before[10:-10] + b"c" * 10
        assert content_of(client, "/flush") == after
        file.seek(5)
        assert file.read(10) == after[5:15]
        assert file.tell() == 15


def test_an_exception_leaves_the_file_as_it_was(client: MinigfsClient) -> None:
    before = write(client, "/exception", b"as it was")

    def fail() -> None:
        with client.open_for_update("/exception") as file:
            file.write(b"not")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert content_of(client, "/exception") == before


@pytest.mark.parametrize("size", [0, 5, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 9])
def test_a_file_is_cut_and_grows_again_with_zeros(client: MinigfsClient, size: int) -> None:
    path = f"/cut-{size}"
    before = write(client, path, b"x" * (2 * CHUNK_BYTES + 100))
    with client.open_for_update(path) as file:
        assert file.truncate(size) == size
    assert content_of(client, path) == before[:size].ljust(size, b"\0")
    with client.open_for_update(path) as file:
        file.truncate(2 * CHUNK_BYTES)
    assert (
        content_of(client, path) == before[:size].ljust(2 * CHUNK_BYTES, b"\0")[: 2 * CHUNK_BYTES]
    )


def test_a_ragged_file_that_was_appended_to_is_written_into(client: MinigfsClient) -> None:
    expected = bytearray()
    with client.open_appender("/ragged") as appender:
        for number in range(12):
            appender.append(bytes([number]) * 15_000)
            expected += bytes([number]) * 15_000
        with client.open_for_update("/ragged") as file:
            file.write_at(59_990, b"border" * 4)
            expected[59_990 : 59_990 + 24] = b"border" * 4
        assert content_of(client, "/ragged") == expected
        assert appender.append(b"more") == len(expected)
    assert content_of(client, "/ragged") == bytes(expected) + b"more"


def test_a_clone_keeps_its_bytes(client: MinigfsClient) -> None:
    before = write(client, "/original", b"o" * (CHUNK_BYTES + 5))
    client.clone("/original", "/clone")
    with client.open_for_update("/clone") as file:
        file.write(b"clone")
    assert content_of(client, "/original") == before
    assert content_of(client, "/clone") == b"clone" + before[5:]
    client.append("/original", b"!")
    assert content_of(client, "/original") == before + b"!"
    assert content_of(client, "/clone") == b"clone" + before[5:]


def test_writers_at_different_offsets_do_not_undo_each_other(client: MinigfsClient) -> None:
    write(client, "/together", bytes(2 * CHUNK_BYTES))

    def update(number: int) -> None:
        random = Random(number)
        with client.open_for_update("/together") as file:
            for _ in range(3):
                slot = random.randrange(16) * 8 + number
                file.write_at(slot * 1_000, bytes([number + 1]) * 1_000)
                file.flush()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(update, range(4)))
    content = content_of(client, "/together")
    assert len(content) == 2 * CHUNK_BYTES
    for number in range(4):
        random = Random(number)
        for _ in range(3):
            slot = random.randrange(16) * 8 + number
            assert content[slot * 1_000 : (slot + 1) * 1_000] == bytes([number + 1]) * 1_000


def test_updates_survive_a_killed_server(cluster: StorageCluster, client: MinigfsClient) -> None:
    expected = bytearray(write(client, "/killed", bytes(3 * CHUNK_BYTES)))
    cluster.kill_chunkserver(1)
    with client.open_for_update("/killed") as file:
        file.write_at(CHUNK_BYTES - 10, b"k" * 20)
        expected[CHUNK_BYTES - 10 : CHUNK_BYTES + 10] = b"k" * 20
    assert content_of(client, "/killed") == expected


def test_what_cannot_be_updated_is_refused(client: MinigfsClient) -> None:
    client.make_directory("/folder", exist_ok=True)
    with pytest.raises(IsDirectory):
        client.open_for_update("/folder")
    with pytest.raises(FileMissing):
        client.open_for_update("/nothing")
    write(client, "/refused", b"x")
    file = client.open_for_update("/refused")
    with pytest.raises(UsageError):
        file.seek(-1)
    with pytest.raises(UsageError):
        file.write_at(-1, b"x")
    file.close()
    file.close()
    with pytest.raises(WriterFenced):
        file.write(b"x")
    gone = client.open_for_update("/refused")
    write(client, "/refused", b"another")
    gone.write(b"x")
    with pytest.raises(FileMissing):
        gone.close()
    assert content_of(client, "/refused") == b"another"
