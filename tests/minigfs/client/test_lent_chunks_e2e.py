"""Reading from files that chunkservers of this machine lend: right bytes, no copies, no harm."""

import gc
import itertools
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from minigfs.chunkserver.messages import ChunkFile, OpenChunkFile
from minigfs.client.client import MinigfsClient
from minigfs.client.reader import FileReader
from minigfs.errors import AuthenticationFailed, CorruptChunk
from minigfs.master.messages import LocatedChunk
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.stopping import stop
from tests.storage_cluster import CLUSTER_ID, ChunkserverHandle, StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 5 * 64 * 1024 + 7  # of whole blocks and a bit, so that borders of all kinds are met
CONTENT = random.Random(5).randbytes(3 * CHUNK + 100_001)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    with StorageCluster(tmp_path_factory.mktemp("lent"), chunk_bytes=CHUNK) as started:
        yield started


@pytest.fixture(scope="module")
def far_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("far")
    with StorageCluster(root, chunk_bytes=CHUNK, chunkservers=1, replication=1, lends=False) as one:
        yield one


_timeouts_ms = itertools.count(20_001)


def fresh_client(cluster: StorageCluster) -> MinigfsClient:
    """A client that shares nothing with others."""
    return MinigfsClient(replace(cluster.config, timeout_ms=next(_timeouts_ms)))


def written(client: MinigfsClient, path: str, content: bytes = CONTENT) -> FileReader:
    with client.open_writer(path) as writer:
        writer.write(content)
    return client.open_reader(path)


def borrows(reader: FileReader) -> bool:
    return bool(reader._replicas._borrowed)


def lender(cluster: StorageCluster, chunk: LocatedChunk) -> tuple[ChunkserverHandle, Path]:
    """The server asked first for a chunk, and its file of it."""
    first = chunk.replicas[chunk.handle % len(chunk.replicas)]
    server = cluster.chunkservers[cluster.number_of(first.address)]
    return server, server.directory / "chunks" / f"{chunk.handle:016x}.chunk"


def open_chunk_files() -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(".chunk" in str(link.readlink()) for link in links if link.is_symlink())


@pytest.mark.parametrize("lent", [True, False], ids=["from the file", "by socket"])
def test_any_range_read_in_any_way_is_the_files_bytes(
    request: pytest.FixtureRequest, lent: bool
) -> None:
    started: StorageCluster = request.getfixturevalue("cluster" if lent else "far_cluster")
    reader = written(fresh_client(started), "/ranges")
    chance = random.Random(7)
    borders = [n * 64 * 1024 for n in range(16)] + [n * CHUNK for n in range(4)] + [len(CONTENT)]
    for _ in range(150):
        start = max(0, chance.choice(borders) + chance.randint(-2, 2))
        end = chance.choice([chance.choice(borders), start + chance.randint(0, 300_000)])
        length = max(0, end - start)
        expected = CONTENT[start : start + length]
        assert reader.read_at(start, length) == expected
        buffer = bytearray(length)
        assert reader.read_into(start, buffer) == len(expected)
        assert buffer[: len(expected)] == expected
        assert reader.read_buffer(start, length) == expected
        assert b"".join(reader.buffers(start, length)) == expected
    assert borrows(reader) is lent


def test_a_buffer_inside_one_chunk_is_the_page_cache_itself(cluster: StorageCluster) -> None:
    client = fresh_client(cluster)
    reader = written(client, "/views")
    client_buffer = client.read_buffer("/views", 0, 200_000)
    first, again = reader.read_buffer(0, 200_000), reader.read_buffer(1000, 200_000)
    assert first.readonly
    assert pa.py_buffer(first).address + 1000 == pa.py_buffer(again).address
    assert client_buffer == first
    across = reader.read_buffer(CHUNK - 100_000, 200_000)
    assert across == CONTENT[CHUNK - 100_000 : CHUNK + 100_000]


def test_what_is_borrowed_outlives_the_server_and_the_file(cluster: StorageCluster) -> None:
    client = fresh_client(cluster)
    reader = written(client, "/outlives", CONTENT[:200_000])
    view = reader.read_buffer(0, 200_000)
    server, path = lender(cluster, client.locations("/outlives").chunks[0])
    assert server.process is not None
    number = cluster.chunkservers.index(server)
    cluster.kill_chunkserver(number)
    path.unlink()
    assert view == reader.read_at(0, 200_000) == CONTENT[:200_000]
    reader.close()
    del reader
    assert view == CONTENT[:200_000]
    cluster.start()


def test_a_server_that_hangs_or_is_dead_is_read_around(cluster: StorageCluster) -> None:
    client = fresh_client(cluster)
    written(client, "/hangs", CONTENT[:200_000])
    server, _ = lender(cluster, client.locations("/hangs").chunks[0])
    assert server.process is not None
    stop(server.process)
    try:
        assert client.open_reader("/hangs").read_at(0, 200_000) == CONTENT[:200_000]
    finally:
        server.process.send_signal(signal.SIGCONT)
    cluster.kill_chunkserver(cluster.chunkservers.index(server))
    try:
        reader = fresh_client(cluster).open_reader("/hangs")
        assert reader.read_at(0, 200_000) == CONTENT[:200_000]
        assert borrows(reader)
    finally:
        cluster.start()


def test_a_file_that_is_cut_under_a_mapping_is_noticed_before_it_is_touched(
    cluster: StorageCluster,
) -> None:
    client = fresh_client(cluster)
    reader = written(client, "/cut-later", CONTENT[:CHUNK])
    assert reader.read_buffer(0, CHUNK) == CONTENT[:CHUNK]
    _server, path = lender(cluster, client.locations("/cut-later").chunks[0])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 200_000)
    assert reader.read_buffer(0, CHUNK) == CONTENT[:CHUNK]


@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
@pytest.mark.parametrize("by_view", [True, False])
def test_damage_of_a_lent_file_is_read_around_and_reported(
    cluster: StorageCluster, how: str, by_view: bool
) -> None:
    client = fresh_client(cluster)
    reader = written(client, f"/damaged-{how}-{by_view}", CONTENT[:CHUNK])
    (chunk,) = client.locations(f"/damaged-{how}-{by_view}").chunks
    _server, path = lender(cluster, chunk)
    with path.open("r+b") as file:
        if how == "flipped":
            file.seek(-1, os.SEEK_END)
            file.write(bytes([CONTENT[CHUNK - 1] ^ 1]))
        elif how == "cut":
            file.truncate(path.stat().st_size - 5)
    if how == "removed":
        path.unlink()
    read = reader.read_buffer if by_view else reader.read_at
    assert read(0, CHUNK) == CONTENT[:CHUNK]
    (now,) = client.locations(f"/damaged-{how}-{by_view}").chunks
    assert len(now.replicas) == len(chunk.replicas) - 1


def test_a_lent_descriptor_cannot_write_and_needs_the_token(cluster: StorageCluster) -> None:
    client = fresh_client(cluster)
    written(client, "/lent", CONTENT[:1000])
    (chunk,) = client.locations("/lent").chunks
    address = chunk.replicas[0].lending_address
    request = OpenChunkFile(handle=chunk.handle, version=chunk.version)
    stranger = ConnectionPool(Security(b"wrong", CLUSTER_ID))
    with pytest.raises(AuthenticationFailed), stranger.open_stream(address, request) as stream:
        stream.receive(ChunkFile)
    pool = ConnectionPool(Security(cluster.config.token, CLUSTER_ID))
    with pool.open_stream(address, request) as stream:
        lent, _ = stream.receive(ChunkFile)
        descriptor = stream.take_descriptor()
    assert descriptor is not None
    try:
        assert os.pread(descriptor, 1000, lent.data_offset_bytes) == CONTENT[:1000]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)
    missing = OpenChunkFile(handle=chunk.handle, version=type(chunk.version)(99))
    with pytest.raises(CorruptChunk), pool.open_stream(address, missing) as stream:
        stream.receive(ChunkFile)


def test_a_reader_of_many_chunks_holds_few_files(cluster: StorageCluster) -> None:
    gc.collect()
    before = open_chunk_files()
    readers = []
    for number in range(3):
        reader = written(fresh_client(cluster), f"/few-{number}", CONTENT[:1000] * 5000)
        assert reader.read_at(0, reader.size_bytes) == CONTENT[:1000] * 5000
        readers.append(reader)
    assert before < open_chunk_files() <= before + 3 * 8 * 2  # each open, and mapped
    for reader in readers:
        reader.close()
        assert not borrows(reader)
    assert open_chunk_files() == before
