"""A chunk is sealed when every one of its servers has it; who fails is named and left out.

Real servers on real sockets in this process, and a master that only hands out chunks.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.client.upload import ChunkUpload, UploadContext
from minigfs.errors import NotEnoughChunkservers, Unreachable
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.messages import LocatedChunk, Replica
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security

SECURITY = Security(b"secret", "c1")
NOBODY = "127.0.0.1:1"
SMALL, LARGE = 1024, 200 * 1024  # of one piece both; the small one takes no chain


class Chunks:
    """What the master would allocate: fresh handles on the servers that are not left out."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.left_out: list[tuple[str, ...]] = []
        self._next = 1

    def file_id(self) -> FileId:
        return FileId(1)

    def take(self, index: int) -> LocatedChunk:
        self._next += 1
        replicas = tuple(
            Replica(chunkserver_id=ChunkserverId(address), address=address, host="h")
            for address in self.addresses
        )
        return LocatedChunk(
            handle=ChunkHandle(self._next),
            version=ChunkVersion(1),
            index=index,
            length_bytes=0,
            digest=0,
            replicas=replicas,
        )

    def replace(self, failed: LocatedChunk, addresses: Collection[str]) -> LocatedChunk:
        self.left_out.append(tuple(addresses))
        self.addresses = [one for one in self.addresses if one not in addresses]
        if not self.addresses:
            raise NotEnoughChunkservers("none is left")
        return self.take(failed.index)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Chunkserver]]:
    with ExitStack() as stack:
        started = []
        for name in ("a", "b", "c"):
            options = ChunkserverOptions(
                directory=tmp_path / name,
                listen="127.0.0.1:0",
                masters=(NOBODY,),
                security=SECURITY,
            )
            server = Chunkserver(options)
            stack.callback(server.stop)
            started.append(server)
        yield started


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    pool = ConnectionPool(SECURITY)
    yield pool
    pool.close()


def uploaded(pool: ConnectionPool, chunks: Chunks, size: int, timeout_ms: int = 5_000):
    context = UploadContext(
        pool=pool,
        allocator=chunks,  # type: ignore[arg-type]  # all that an upload asks of one
        path="/a",
        chunk_bytes=1 << 20,
        timeout_ms=timeout_ms,
    )
    upload = ChunkUpload(context, 0)
    upload.add(bytearray(b"x" * size))
    upload.finish()
    upload.run()
    return upload.result()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_chunk_is_on_all_its_servers_when_it_is_sealed(
    servers: list[Chunkserver], pool: ConnectionPool, tmp_path: Path, size: int
) -> None:
    sealed = uploaded(pool, Chunks([server.start() for server in servers]), size)
    assert sealed.length_bytes == size
    assert sealed.replicas == tuple(server.identity.chunkserver_id for server in servers)
    files = [list((tmp_path / name / "chunks").iterdir()) for name in ("a", "b", "c")]
    assert len({file.read_bytes() for (file,) in files}) == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_dead_server_is_left_out_wherever_it_stands(
    servers: list[Chunkserver], pool: ConnectionPool, size: int, dead: int
) -> None:
    chunks = Chunks([server.start() for server in servers])
    chunks.addresses[dead] = NOBODY
    sealed = uploaded(pool, chunks, size)
    assert chunks.left_out == [(NOBODY,)]
    alive = [server for number, server in enumerate(servers) if number != dead]
    assert sealed.replicas == tuple(server.identity.chunkserver_id for server in alive)


def test_without_any_server_the_upload_says_which_one_failed(pool: ConnectionPool) -> None:
    with pytest.raises(Unreachable, match=f"cannot write /a: {NOBODY}"):
        uploaded(pool, Chunks([NOBODY]), SMALL, timeout_ms=300)
