"""A chain acknowledges a chunk when every server has it durably, and names the one that failed.

Real servers on real sockets in this process; each test is the writer.
"""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace as with_fields

from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.messages import ChunkData, ChunkPiece, ChunkWritten, ReadChunk, WriteChunk
from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import CorruptChunk, NoSpace, ProtocolError
from minigfs.ids import ChunkHandle, ChunkVersion, FileId
from minigfs.ports import Disk
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.sim.disk import SimDisk

SECURITY = Security(b"secret", "c1")
HANDLE, V1 = ChunkHandle(7), ChunkVersion(1)
NOBODY = "127.0.0.1:1"
DATA = bytes(range(256)) * 1024  # four blocks


def write_request(chain: tuple[str, ...]) -> WriteChunk:
    return WriteChunk(
        handle=HANDLE,
        version=V1,
        file_id=FileId(1),
        index=0,
        path_hint="/a",
        chunk_bytes=1024 * 1024,
        chain=chain,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Servers:
    """Chunkservers that know no master, and a pool to talk to them."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self.pool = ConnectionPool(SECURITY)
        stack.callback(self.pool.close)

    def start(self, name: str, disk: Disk | None = None) -> tuple[Chunkserver, str]:
        directory = self._root / name
        options = ChunkserverOptions(
            directory=directory, listen="127.0.0.1:0", masters=("127.0.0.1:1",), security=SECURITY
        )
        server = Chunkserver(options, disk=disk)
        self._stack.callback(server.stop)
        return server, server.start()

    def files(self, name: str, directory: str = "chunks") -> list[str]:
        return sorted(path.name for path in (self._root / name / directory).iterdir())

    def write(self, *addresses: str, data: bytes = DATA) -> ChunkWritten:
        request = write_request(chain=addresses[1:])
        with self.pool.open_stream(addresses[0], request) as stream:
            for start in range(0, len(data), BLOCK):
                piece = data[start : start + BLOCK]
                sums = block_sums(piece, handle=HANDLE, first_block=start // BLOCK)
                ends = start + BLOCK >= len(data)
                stream.send(ChunkData(offset_bytes=start, sums=sums, last=ends), piece)
            written, _ = stream.receive(ChunkWritten)
            return written

    def write_whole(self, *addresses: str, sent: bytes = DATA) -> ChunkWritten:
        whole = ChunkData(
            offset_bytes=0, sums=block_sums(DATA, handle=HANDLE, first_block=0), last=True
        )
        request = with_fields(write_request(chain=addresses[1:]), whole=whole)
        with self.pool.open_stream(addresses[0], request, payload=sent) as stream:
            written, _ = stream.receive(ChunkWritten)
            return written

    def read(self, address: str, offset: int = 0, length: int = len(DATA)) -> bytes:
        request = ReadChunk(handle=HANDLE, version=V1, offset_bytes=offset, length_bytes=length)
        content = b""
        with self.pool.open_stream(address, request) as stream:
            last = False
            while not last:
                piece, payload = stream.receive(ChunkPiece)
                content += payload
                last = piece.last
        return content


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


def test_three_servers_have_the_chunk_and_say_so_in_order(servers: Servers) -> None:
    chain = [servers.start(name) for name in ("a", "b", "c")]
    written = servers.write(*(address for _, address in chain))
    assert written == ChunkWritten(
        length_bytes=len(DATA),
        digest=digest_of_table(block_sums(DATA, handle=HANDLE, first_block=0)),
        replicas=tuple(server.identity.chunkserver_id for server, _ in chain),
    )
    for _, address in chain:
        assert servers.read(address) == DATA


def test_a_chunk_that_travels_with_its_request_is_on_all_three(servers: Servers) -> None:
    chain = [servers.start(name) for name in ("a", "b", "c")]
    addresses = tuple(address for _, address in chain)
    written = servers.write_whole(*addresses)
    assert written.replicas == tuple(server.identity.chunkserver_id for server, _ in chain)
    for address in addresses:
        assert servers.read(address) == DATA


def test_a_chunk_damaged_with_its_request_is_refused_by_all(servers: Servers) -> None:
    addresses = [servers.start(name)[1] for name in ("a", "b")]
    with pytest.raises(CorruptChunk, match="block 0"):
        servers.write_whole(*addresses, sent=b"x" + DATA[1:])
    until(lambda: not servers.files("b", "incoming"))
    assert servers.files("a") == servers.files("b") == []


def test_the_replicas_of_a_chunk_are_the_same_file(servers: Servers, tmp_path: Path) -> None:
    addresses = [servers.start(name)[1] for name in ("a", "b")]
    servers.write(*addresses)
    (first,), (second,) = servers.files("a"), servers.files("b")
    assert (tmp_path / "a/chunks" / first).read_bytes() == (
        tmp_path / "b/chunks" / second
    ).read_bytes()


def test_reads_are_widened_to_blocks_and_clipped_to_the_end(servers: Servers) -> None:
    _, address = servers.start("a")
    servers.write(address, data=DATA[: 3 * BLOCK + 10])
    assert servers.read(address, BLOCK + 5, 1) == DATA[BLOCK : 2 * BLOCK]
    assert servers.read(address, 3 * BLOCK + 1, 10 * BLOCK) == DATA[3 * BLOCK : 3 * BLOCK + 10]
    assert servers.read(address, 10 * BLOCK, 5) == b""
    assert servers.read(address, 0, 0) == b""


@pytest.mark.parametrize("place", [1, 2])
def test_a_server_that_is_down_is_named_and_nobody_acknowledges(
    servers: Servers, place: int
) -> None:
    chain = [servers.start(name)[1] for name in ("a", "b")]
    chain.insert(place, NOBODY)
    written = servers.write(*chain)
    assert written.failure is not None
    assert (written.failure.address, written.failure.code) == (NOBODY, "unreachable")
    assert written.replicas == ()
    assert servers.files("a", "incoming") == []


def test_a_full_server_in_the_middle_is_named(servers: Servers) -> None:
    first = servers.start("a")[1]
    full = servers.start("b", SimDisk(capacity_bytes=1))[1]
    written = servers.write(first, full, servers.start("c")[1])
    assert written.failure is not None
    assert (written.failure.address, written.failure.code) == (full, "no-space")
    assert written.replicas == ()
    assert servers.files("c") == []


def test_a_full_first_server_raises_and_its_connection_lives_on(servers: Servers) -> None:
    full = servers.start("a", SimDisk(capacity_bytes=1))[1]
    for _ in range(3):
        with pytest.raises(NoSpace):
            servers.write(full)


def test_a_server_whose_disk_fails_a_sync_never_acknowledges_and_asks_to_end(
    servers: Servers,
) -> None:
    disk = SimDisk()
    failing, address = servers.start("b", disk)
    disk.fail("sync", errno.EIO)
    written = servers.write(servers.start("a")[1], address)
    assert written.failure is not None
    assert written.failure.address == address
    failing.wait_for_stop_request()
    assert failing.disk_failure is not None
    assert disk.list("chunks") == []


def test_a_writer_that_vanishes_leaves_nothing(servers: Servers) -> None:
    addresses = [servers.start(name)[1] for name in ("a", "b")]
    request = write_request(chain=(addresses[1],))
    piece = DATA[:BLOCK]
    with servers.pool.open_stream(addresses[0], request) as stream:
        sums = block_sums(piece, handle=HANDLE, first_block=0)
        stream.send(ChunkData(offset_bytes=0, sums=sums), piece)
        until(lambda: len(servers.files("b", "incoming")) == 1)
        stream.close()
    until(lambda: servers.files("a", "incoming") == servers.files("b", "incoming") == [])
    assert servers.files("a") == servers.files("b") == []
    servers.write(*addresses)
    assert len(servers.files("a")) == len(servers.files("b")) == 1


def test_a_piece_damaged_on_the_way_is_refused(servers: Servers) -> None:
    _, address = servers.start("a")
    request = write_request(chain=())
    sums = block_sums(b"right", handle=HANDLE, first_block=0)
    with servers.pool.open_stream(address, request) as stream:
        stream.send(ChunkData(offset_bytes=0, sums=sums, last=True), b"wrong")
        with pytest.raises(CorruptChunk, match="block 0"):
            stream.receive(ChunkWritten)
    assert servers.files("a") == servers.files("a", "incoming") == []


def test_a_chunk_that_is_there_is_not_written_again(servers: Servers) -> None:
    _, address = servers.start("a")
    servers.write(address)
    with pytest.raises(ProtocolError, match="already sealed"):
        servers.write(address, data=b"other")
    assert servers.read(address) == DATA


def test_damage_ends_a_read_with_an_error_not_with_wrong_bytes(
    servers: Servers, tmp_path: Path
) -> None:
    _, address = servers.start("a")
    servers.write(address)
    path = tmp_path / "a/chunks" / servers.files("a")[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptChunk, match="block 3"):
        servers.read(address)
    assert servers.read(address, 0, BLOCK) == DATA[:BLOCK]
