"""What changes while it is checked is no damage.

A master and a chunkserver that say what the test wants: the chunkserver has no chunk.
"""

from collections.abc import Iterator

import pytest

from minigfs.chunkserver.messages import ChunkVerified, VerifyChunk
from minigfs.client.checking import CheckedChunk, FindingKind, ReplicaChecker
from minigfs.client.config import ClientConfig
from minigfs.errors import FileMissing
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.examine_messages import (
    Examine,
    Examined,
    ExaminedChunk,
    ExaminedFile,
    ExaminedServer,
)
from minigfs.master.messages import EntryKind, FileStatus
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream
from tests.served import served

SECURITY = Security(b"t", "c1")
HERE, AWAY = ChunkserverId("here"), ChunkserverId("away")


class Cluster:
    """``pages`` are what the master says one after the other; the last for ever."""

    def __init__(self) -> None:
        self.pages: list[Examined | None] = []
        self.address = ""
        self.config: ClientConfig

    def page(self, handle: int, *replicas: ChunkserverId) -> Examined:
        chunk = ExaminedChunk(0, ChunkHandle(handle), ChunkVersion(1), 1, 3, 9, replicas)
        status = FileStatus(
            path="/a",
            file_id=FileId(2),
            kind=EntryKind.FILE,
            size_bytes=3,
            created_ms=1,
            modified_ms=1,
            replication=1,
            chunk_count=1,
            digest="",
        )
        return Examined(
            files=(ExaminedFile(status, (chunk,)),),
            servers=tuple(ExaminedServer(name, self.address, "h", True) for name in replicas),
            more=False,
            start_after="",
            first_index=0,
        )

    async def examine(self, _request: Examine) -> Examined:
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if page is None:
            raise FileMissing("/a: no such file or directory")
        return page

    def check(self) -> list[CheckedChunk]:
        with ReplicaChecker(self.config) as checker:
            return list(checker.check("/a"))


def verify(request: VerifyChunk, stream: Stream) -> None:
    """Chunk 8 is sound, any other is not there."""
    if request.handle == 8:
        stream.send(ChunkVerified(present=True, version=ChunkVersion(1), length_bytes=3, digest=9))
    else:
        stream.send(ChunkVerified(present=False, problem="not here"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    server = BulkServer({VerifyChunk: verify}, SECURITY)
    cluster.address = server.start("127.0.0.1:0")
    with served({Examine: cluster.examine}, SECURITY) as master:
        cluster.config = ClientConfig(
            masters=(master,), token=SECURITY.token, cluster_id="c1", timeout_ms=3_000
        )
        yield cluster
    server.stop()


def test_a_replica_that_is_missing_still_is_damage(cluster: Cluster) -> None:
    cluster.pages = [cluster.page(7, HERE)]
    (checked,) = cluster.check()
    assert [one.kind for one in checked.findings] == [FindingKind.MISSING, FindingKind.LOST]


def test_a_file_that_is_removed_while_it_is_checked_is_not_damaged(cluster: Cluster) -> None:
    cluster.pages = [cluster.page(7, HERE), None]
    (checked,) = cluster.check()
    assert checked.findings == ()


def test_a_chunk_that_is_moved_while_it_is_checked_is_looked_at_where_it_is(
    cluster: Cluster,
) -> None:
    cluster.pages = [cluster.page(7, AWAY), cluster.page(8, HERE)]
    (checked,) = cluster.check()
    assert (checked.findings, checked.sound_count) == ((), 1)
