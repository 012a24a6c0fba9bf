"""A reader that cannot reach the primary of an open chunk ends, whoever goes on appending."""

from collections.abc import Iterator
from typing import Any

import pytest

from minigfs.client.config import ClientConfig
from minigfs.client.masters import MasterCaller
from minigfs.client.open_chunk_reads import with_open_chunk
from minigfs.errors import Unreachable
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.append_messages import SealFile
from minigfs.master.messages import EntryKind, FileStatus, Locate, Located, LocatedChunk, Replica
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request
from minigfs.transport.security import Security
from tests.served import served

SECURITY = Security(b"t", "c1")
STATUS = FileStatus(
    path="/a",
    file_id=FileId(2),
    kind=EntryKind.FILE,
    size_bytes=0,
    created_ms=1,
    modified_ms=1,
    replication=1,
    chunk_count=1,
    digest="",
    is_open=True,
)
NOBODY = Replica(chunkserver_id=ChunkserverId("a"), address="127.0.0.1:1", host="a")


class Master:
    """Always another open chunk, on a server that nobody reaches."""

    seal_count = 0

    async def locate(self, _request: Locate) -> Located:
        return self.located()

    async def seal(self, _request: SealFile) -> FileStatus:
        self.seal_count += 1
        return STATUS

    def located(self) -> Located:
        chunk = LocatedChunk(
            handle=ChunkHandle(self.seal_count + 1),
            version=ChunkVersion(1),
            index=0,
            length_bytes=0,
            digest=0,
            replicas=(NOBODY,),
            is_open=True,
        )
        return Located(status=STATUS, chunk_bytes=1024, chunks=(chunk,))


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    pool = ConnectionPool(SECURITY)
    yield pool
    pool.close()


def test_a_file_that_is_opened_again_and_again_is_not_asked_for_for_ever(
    master: Master, pool: ConnectionPool
) -> None:
    handlers: dict[type[Request[Any]], ControlHandler] = {
        Locate: master.locate,
        SealFile: master.seal,
    }
    with served(handlers, SECURITY) as address:
        config = ClientConfig(masters=(address,), token=SECURITY.token, timeout_ms=1_000)
        with pytest.raises(Unreachable, match=r"/a: .*127\.0\.0\.1:1"):
            with_open_chunk(MasterCaller(config, pool), pool, master.located())
    assert 1 < master.seal_count < 20
