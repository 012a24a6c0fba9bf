"""Files through a real cluster: what was closed is what is read, and nothing else ever appears."""

import gc
import os
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigfs.client.client import MinigfsClient, Usage
from minigfs.client.config import ClientConfig
from minigfs.errors import (
    AuthenticationFailed,
    FileExists,
    FileMissing,
    InvalidPath,
    IsDirectory,
    Unreachable,
    WriterFenced,
)
from minigfs.master.messages import LocatedChunk
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

FEW_EXAMPLES = settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CONTENT = bytes(i * 31 % 256 for i in range(251)) * 2500


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def write_file(client: MinigfsClient, path: str, content: bytes) -> None:
    with client.open_writer(path) as writer:
        writer.write(content)


def read_file(client: MinigfsClient, path: str) -> bytes:
    reader = client.open_reader(path)
    return reader.read_at(0, reader.size_bytes)


def check_random_reads(
    cluster: StorageCluster, pieces: list[int], reads: list[tuple[int, int]]
) -> None:
    client, content, position = cluster.client, CONTENT[: sum(pieces)], 0
    with client.open_writer("/random/file") as writer:
        for length in pieces:
            assert writer.write(content[position : position + length]) == length
            position += length
    reader = client.open_reader("/random/file")
    assert reader.size_bytes == len(content)
    assert reader.status.chunk_count == -(-len(content) // cluster.chunk_bytes)
    for offset, length in reads:
        assert reader.read_at(offset, length) == content[offset : offset + length]
        buffer = bytearray(length)
        count = reader.read_into(offset, buffer)
        assert buffer[:count] == content[offset : offset + length]
    assert read_file(client, "/random/file") == content


@FEW_EXAMPLES
@given(
    st.lists(st.integers(0, 3000), max_size=6),
    st.lists(st.tuples(st.integers(0, 15_000), st.integers(0, 5000)), max_size=5),
)
def test_chunks_of_1_kib_any_writes_any_reads(
    small_chunk_cluster: StorageCluster, pieces: list[int], reads: list[tuple[int, int]]
) -> None:
    check_random_reads(small_chunk_cluster, pieces, reads)


@FEW_EXAMPLES
@given(
    st.lists(st.integers(0, 150_000), max_size=4),
    st.lists(st.tuples(st.integers(0, 500_000), st.integers(0, 200_000)), max_size=5),
)
def test_chunks_of_a_block_and_a_byte_any_writes_any_reads(
    odd_chunk_cluster: StorageCluster, pieces: list[int], reads: list[tuple[int, int]]
) -> None:
    check_random_reads(odd_chunk_cluster, pieces, reads)


def test_a_file_larger_than_a_piece_reads_back_sequentially(
    odd_chunk_cluster: StorageCluster,
) -> None:
    content = os.urandom(3_000_000)
    write_file(odd_chunk_cluster.client, "/sequential", content)
    reader = odd_chunk_cluster.client.open_reader("/sequential")
    parts = [reader.read_at(offset, 70_000) for offset in range(0, len(content), 70_000)]
    assert b"".join(parts) == content


def test_every_chunk_is_on_every_server_when_close_returns(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    write_file(client, "/everywhere", CONTENT[:5000])
    located = client.locations("/everywhere")
    assert [chunk.length_bytes for chunk in located.chunks] == [1024] * 4 + [904]
    for chunk in located.chunks:
        assert len(chunk.replicas) == 3
        for server in small_chunk_cluster.chunkservers:
            assert any(path.stem == f"{chunk.handle:016x}" for path in server.chunk_files())


def test_locations_of_a_range_are_the_chunks_it_touches(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    write_file(client, "/ranges", CONTENT[:5000])

    def indexes(start: int, length: int | None) -> list[int]:
        return [chunk.index for chunk in client.locations("/ranges", start, length).chunks]

    assert indexes(0, None) == [0, 1, 2, 3, 4]
    assert indexes(1023, 2) == [0, 1]
    assert indexes(2048, 1024) == [2]
    assert indexes(4999, 100) == [4]
    assert indexes(5000, 100) == []
    assert indexes(0, 0) == []


def test_an_empty_file_is_a_file(small_chunk_cluster: StorageCluster) -> None:
    write_file(small_chunk_cluster.client, "/empty", b"")
    assert small_chunk_cluster.client.stat("/empty").size_bytes == 0
    assert read_file(small_chunk_cluster.client, "/empty") == b""


def test_nothing_is_visible_before_close(small_chunk_cluster: StorageCluster) -> None:
    client = small_chunk_cluster.client
    writer = client.open_writer("/later")
    writer.write(CONTENT[:10_000])
    writer.flush()
    assert not client.exists("/later")
    status = writer.close()
    assert client.stat("/later") == status
    assert writer.close() == status


@pytest.mark.parametrize("size", [10, 10_000])
def test_an_exception_never_publishes_and_leaves_the_old_file(
    small_chunk_cluster: StorageCluster, size: int
) -> None:
    client = small_chunk_cluster.client
    write_file(client, "/kept", b"old")
    writer = client.open_writer("/kept")

    def fail_while_writing() -> None:
        with writer:
            writer.write(CONTENT[:size])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_writing()
    assert read_file(client, "/kept") == b"old"
    with pytest.raises(WriterFenced):
        writer.write(b"more")
    writer.discard()


def test_a_writer_that_is_garbage_collected_is_discarded_at_the_master(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    writer = client.open_writer("/dropped")
    writer.write(CONTENT[:3000])
    until(lambda: any(server.chunk_files() for server in small_chunk_cluster.chunkservers))
    del writer
    gc.collect()
    assert not client.exists("/dropped")
    handles_kept = {c.handle for s in client.find("/") for c in chunks_of(client, s.path)}

    def only_live_chunks_remain() -> bool:
        return all(
            int(path.stem, 16) in handles_kept
            for server in small_chunk_cluster.chunkservers
            for path in server.chunk_files()
        )

    until(only_live_chunks_remain, seconds=10)


def chunks_of(client: MinigfsClient, path: str) -> tuple[LocatedChunk, ...]:
    return () if client.stat(path).kind == "directory" else client.locations(path).chunks


def test_exclusive_refuses_at_open_and_at_close(small_chunk_cluster: StorageCluster) -> None:
    client = small_chunk_cluster.client
    first = client.open_writer("/once", exclusive=True)
    second = client.open_writer("/once", exclusive=True)
    first.write(b"first")
    second.write(b"second")
    first.close()
    with pytest.raises(FileExists):
        second.close()
    with pytest.raises(FileExists):
        client.open_writer("/once", exclusive=True)
    assert read_file(client, "/once") == b"first"


def test_the_tree_by_name(small_chunk_cluster: StorageCluster) -> None:
    client = small_chunk_cluster.client
    client.make_directory("/tree/a", parents=True)
    client.make_directory("/tree/a", exist_ok=True)
    write_file(client, "/tree/a/x", b"12345")
    write_file(client, "/tree/b/y", b"123")
    assert [s.path for s in client.list_directory("/tree")] == ["/tree/a", "/tree/b"]
    assert [s.path for s in client.find("/tree")] == [
        "/tree/a",
        "/tree/a/x",
        "/tree/b",
        "/tree/b/y",
    ]
    assert client.usage("/tree") == Usage(size_bytes=8, file_count=2, directory_count=2)
    client.rename("/tree/a", "/tree/c")
    assert read_file(client, "/tree/c/x") == b"12345"
    assert client.exists("/tree/c")
    assert not client.exists("/tree/a")
    assert not client.exists("/tree/c/x/below-a-file")
    assert client.remove("/tree", recursive=True).file_count == 2
    with pytest.raises(FileMissing):
        client.stat("/tree")


def test_a_reader_goes_on_with_the_file_it_opened_whatever_its_path_means_now(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    write_file(client, "/reader", CONTENT[:200_000])
    reader = client.open_reader("/reader")
    client.rename("/reader", "/reader-moved")
    assert reader.read_at(0, 3000) == CONTENT[:3000]
    write_file(client, "/reader", b"another file")
    # Past the 64 chunks that opening learnt of, which the masters must be asked for.
    assert reader.read_at(150_000, 40_000) == CONTENT[150_000:190_000]


def test_reading_a_directory_or_outside_a_file_is_refused(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    client.make_directory("/dir", exist_ok=True)
    with pytest.raises(IsDirectory):
        client.open_reader("/dir")
    with pytest.raises(IsDirectory):
        client.locations("/dir")
    write_file(client, "/short", b"abc")
    reader = client.open_reader("/short")
    assert reader.read_at(3, 10) == b""
    assert reader.read_at(2, 10) == b"c"
    with pytest.raises(InvalidPath):
        reader.read_at(-1, 1)


def test_a_wrong_token_is_refused_and_no_cluster_is_unreachable_in_time(
    small_chunk_cluster: StorageCluster,
) -> None:
    masters = small_chunk_cluster.config.masters
    wrong = MinigfsClient(ClientConfig(masters=masters, token=b"wrong"))
    with pytest.raises(AuthenticationFailed):
        wrong.exists("/")
    nobody = MinigfsClient(ClientConfig(masters=("127.0.0.1:1",), token=b"t", timeout_ms=300))
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        nobody.exists("/")
    assert 0.199 < time.monotonic() - started < 2  # the last of 300 ms are for a try of 100


def test_a_forked_child_reads_and_writes_with_the_parents_client(
    small_chunk_cluster: StorageCluster,
) -> None:
    client = small_chunk_cluster.client
    write_file(client, "/parent", b"from the parent")
    reader = client.open_reader("/parent")
    reader.read_at(0, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            write_file(client, "/child", reader.read_at(0, 100))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_file(client, "/child") == b"from the parent"


def test_an_empty_file_and_a_small_one_cost_one_change_of_the_log_each(
    small_chunk_cluster: StorageCluster,
) -> None:
    def changes_of(data: bytes, path: str) -> int:
        before = small_chunk_cluster.client.report().masters[0].commit_index
        with small_chunk_cluster.client.open_writer(path) as writer:
            writer.write(data)
        return small_chunk_cluster.client.report().masters[0].commit_index - before

    def least(data: bytes, name: str) -> int:  # others commit now and then as well
        return min(changes_of(data, f"/cost/{name}-{number}") for number in range(5))

    small_chunk_cluster.client.make_directory("/cost")
    assert least(b"", "empty") == 1
    assert least(b"x" * 100, "small") == 1
    assert small_chunk_cluster.client.open_reader("/cost/small-0").read_at(0, 200) == b"x" * 100
    assert small_chunk_cluster.client.stat("/cost/empty-0").size_bytes == 0


def test_a_writer_that_wrote_nothing_leaves_nothing(small_chunk_cluster: StorageCluster) -> None:
    before = small_chunk_cluster.client.report().masters[0].commit_index
    small_chunk_cluster.client.open_writer("/nothing").discard()
    assert not small_chunk_cluster.client.exists("/nothing")
    assert small_chunk_cluster.client.report().masters[0].commit_index - before <= 1
