"""A chunkserver does what its master's replies say, or says that it cannot: it never falls silent.

A real server with a simulated disk, and a master that is told to order what the test wants.
"""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace as with_fields

from minigfs.chunkserver.catalogue import Catalogue
from minigfs.chunkserver.checksum import block_sums
from minigfs.chunkserver.copy_orders import CopyOrders
from minigfs.chunkserver.heartbeats import Heartbeats
from minigfs.chunkserver.messages import ChunkData, ChunkWritten, WriteChunk
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.chunkserver.reports import ChunkReport
from minigfs.chunkserver.seen_history import SeenHistory
from minigfs.chunkserver.store import ChunkStore
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, ClusterId, FileId
from minigfs.master.heartbeat_messages import Heartbeat, HeartbeatReply, HistoryPosition
from minigfs.ports import SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.served import served
from tests.sim.disk import SimDisk

SECURITY = Security(b"t", "c1")
HANDLE, V1 = ChunkHandle(7), ChunkVersion(1)
NOTHING_TO_DO = HeartbeatReply(send_full_report=False, delete=())


class Master:
    def __init__(self) -> None:
        self.reply = NOTHING_TO_DO
        self.is_old = False  # its history lacks what its servers have seen
        self.beats: list[Heartbeat] = []
        self._heard = threading.Condition()

    async def answer(self, beat: Heartbeat) -> HeartbeatReply:
        with self._heard:
            self.beats.append(beat)
            self._heard.notify_all()
        return with_fields(self.reply, confirms=None if self.is_old else beat.seen)

    def wait_for(self, wanted: Callable[[Heartbeat], bool]) -> None:
        """For a heartbeat that comes from now on."""
        with self._heard:
            begun = len(self.beats)
            assert self._heard.wait_for(lambda: any(map(wanted, self.beats[begun:])), 10)


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


@pytest.fixture
def server(tmp_path: Path, master: Master, disk: SimDisk) -> Iterator[Chunkserver]:
    with served({Heartbeat: master.answer}, SECURITY) as address:
        options = ChunkserverOptions(
            directory=tmp_path, listen="127.0.0.1:0", masters=(address,), security=SECURITY
        )
        server = Chunkserver(options, disk=disk)
        write(server.start())
        yield server
        server.stop()


def write(address: str) -> None:
    pool = ConnectionPool(SECURITY)
    request = WriteChunk(
        handle=HANDLE,
        version=V1,
        file_id=FileId(1),
        index=0,
        path_hint="/a",
        chunk_bytes=1 << 20,
        chain=(),
    )
    sums = block_sums(b"abc", handle=HANDLE, first_block=0)
    with pool.open_stream(address, request) as stream:
        stream.send(ChunkData(offset_bytes=0, sums=sums, last=True), b"abc")
        stream.receive(ChunkWritten)
    pool.close()


def failing_once(operation: str, prefix: str, number: int) -> Callable[[str, str], None]:
    left = [OSError(number, "as the test wants it")]

    def before_change(changing: str, path: str) -> None:
        if left and changing == operation and path.startswith(prefix):
            raise left.pop()

    return before_change


def test_an_order_that_fails_does_not_end_the_heartbeats(
    server: Chunkserver, master: Master, disk: SimDisk
) -> None:
    disk.before_change = failing_once("rename", "chunks/", errno.EMFILE)
    master.reply = HeartbeatReply(send_full_report=False, delete=(HANDLE,))
    master.wait_for(lambda beat: HANDLE in beat.gone)
    master.reply = NOTHING_TO_DO
    master.wait_for(lambda beat: beat.chunk_count == 0)
    assert server.disk_failure is None


def test_a_disk_that_fails_an_order_ends_the_server(
    server: Chunkserver, master: Master, disk: SimDisk
) -> None:
    disk.before_change = failing_once("rename", "chunks/", errno.EIO)
    master.reply = HeartbeatReply(send_full_report=False, delete=(HANDLE,))
    waiting = threading.Thread(target=server.wait_for_stop_request, daemon=True)
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive()
    assert server.disk_failure is not None


def test_only_a_master_that_is_believed_counts_as_heard(
    tmp_path: Path, master: Master, disk: SimDisk
) -> None:
    """Open chunks may have moved on without a server that only an old master talks to."""
    pool = ConnectionPool(SECURITY)
    store = ChunkStore(disk, cluster_id=ClusterId("c1"))
    store.open()
    open_chunks = OpenChunks(disk, store)
    with served({Heartbeat: master.answer}, SECURITY) as address:
        heartbeats = Heartbeats(
            store,
            open_chunks,
            copies=CopyOrders(store, pool=pool, disk_failed=failed),
            pool=pool,
            masters=(address,),
            describe=described,
            history=SeenHistory(disk, SystemClock()),
            catalogue=Catalogue(tmp_path),
            disk_failed=failed,
        )
        heartbeats.start()
        position = HistoryPosition(term=3, index=10, nonce=5)
        master.reply = with_fields(NOTHING_TO_DO, position=position)
        master.wait_for(lambda beat: beat.seen == position)
        master.is_old = True
        for _ in range(4):
            master.wait_for(lambda _: True)
        assert heartbeats.silence_ms > 1_000
        heartbeats.stop()
    pool.close()


def failed(error: OSError) -> None:
    raise AssertionError(error)


def described(report: ChunkReport) -> Heartbeat:
    return Heartbeat(
        chunkserver_id=ChunkserverId("a"),
        cluster_id="c1",
        address="a:1",
        host="a",
        rack="",
        pid=1,
        directory="",
        capacity_bytes=1,
        free_bytes=1,
        chunk_count=0,
        stored_bytes=0,
        full=report.full,
    )
