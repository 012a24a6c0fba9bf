"""A copy is the chunk of the log or it is not made; real sockets, simulated disks."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.chunk_file import decode_header
from minigfs.chunkserver.chunk_reads import ChunkReads
from minigfs.chunkserver.copy_orders import CopyOrders
from minigfs.chunkserver.messages import ChunkData, ReadChunk, WriteChunk
from minigfs.chunkserver.metrics import COUNTERS
from minigfs.chunkserver.replica_copy import CopyWithdrawn, ReplicaCopy
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import CorruptChunk, Unreachable
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId, FileId
from minigfs.master.heartbeat_messages import CopyOrder, CopyReport
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.metrics import Counters
from minigfs.transport.security import Security
from tests.sim.disk import SimDisk

SECURITY = Security(b"secret", "c1")
HANDLE, V1 = ChunkHandle(7), ChunkVersion(1)
NOBODY = "127.0.0.1:1"
DATA = bytes(range(256)) * 8192  # 32 blocks: three pieces
PATH = f"chunks/{HANDLE:016x}.chunk"


def fresh_store() -> tuple[ChunkStore, SimDisk]:
    disk = SimDisk(64 << 20)
    store = ChunkStore(disk, cluster_id=ClusterId("c1"))
    store.open()
    return store, disk


def seal(
    store: ChunkStore, data: bytes, version: ChunkVersion = V1, *, at_once: bool = False
) -> None:
    sums = block_sums(data, handle=HANDLE, first_block=0)
    request = WriteChunk(
        handle=HANDLE,
        version=version,
        file_id=FileId(3),
        index=2,
        path_hint="/a",
        chunk_bytes=64 << 20,
        chain=(),
        whole=ChunkData(offset_bytes=0, sums=sums, last=True) if at_once else None,
    )
    with store.create(request, replaces=store.find(HANDLE) is not None) as incoming:
        incoming.append(0, data, sums)
        incoming.seal()


def damage(disk: SimDisk, block: int) -> None:
    with disk.open(PATH) as file:
        place = file.size_bytes() - len(DATA) + block * BLOCK
        file.write_at(place, bytes([file.read_at(place, 1)[0] ^ 1]))


class Sources:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.pool = ConnectionPool(SECURITY)
        stack.callback(self.pool.close)

    def serve(self, store: ChunkStore) -> str:
        server = BulkServer(
            {ReadChunk: ChunkReads(store, Counters(COUNTERS)).handle}, SECURITY, name="source"
        )
        self._stack.callback(server.stop)
        return server.start("127.0.0.1:0")

    def good(self) -> str:
        store, _ = fresh_store()
        seal(store, DATA)
        return self.serve(store)

    def damaged(self, *blocks: int) -> str:
        store, disk = fresh_store()
        seal(store, DATA)
        for block in blocks:
            damage(disk, block)
        return self.serve(store)

    def copy(
        self, store: ChunkStore, *sources: str, data: bytes = DATA, pay=lambda count: None
    ) -> ReplicaCopy:
        return ReplicaCopy(order(*sources, data=data), store=store, pool=self.pool, pay=pay)


@pytest.fixture
def sources() -> Iterator[Sources]:
    with ExitStack() as stack:
        yield Sources(stack)


def order(*sources: str, data: bytes = DATA, rate: int = 1 << 40) -> CopyOrder:
    return CopyOrder(
        handle=HANDLE,
        version=V1,
        length_bytes=len(data),
        digest=digest_of_table(block_sums(data, handle=HANDLE, first_block=0)),
        sources=sources,
        bytes_per_second=rate,
    )


def content(store: ChunkStore) -> bytes:
    with store.open_chunk(HANDLE, V1) as chunk:
        return chunk.read(0, len(DATA))


def test_a_copy_is_the_chunk_with_all_that_its_header_says(sources: Sources) -> None:
    store, disk = fresh_store()
    assert sources.copy(store, sources.good()).make_sound() == len(DATA)
    assert content(store) == DATA
    with store.open_chunk(HANDLE, V1) as chunk:
        header = chunk.header
    assert (header.file_id, header.index, header.path_hint) == (3, 2, "/a")
    disk.crash()
    again = ChunkStore(disk, cluster_id=ClusterId("c1"))
    again.open()
    assert content(again) == DATA, "it was durable"


def file_of(disk: SimDisk) -> bytes:
    with disk.open(PATH) as file:
        return file.read_at(0, file.size_bytes())


@pytest.mark.parametrize("arrival", ["into a blank", "at once", "in pieces"])
@pytest.mark.parametrize("length", [1, 4096, BLOCK - 1, BLOCK])
def test_the_copy_of_a_chunk_of_one_block_is_the_same_file(
    sources: Sources, arrival: str, length: int
) -> None:
    """Whatever its source was written into, and laid out as its source: a small chunk, all of
    which came at once, has a table of one sum."""
    data = DATA[-length:]
    store, disk = fresh_store()
    if arrival == "into a blank":
        store.blanks.take()
        store.blanks.work()
    seal(store, data, at_once=arrival != "in pieces")
    other_store, other_disk = fresh_store()
    copy = sources.copy(other_store, sources.serve(store), data=data)
    assert copy.make_sound() == length
    assert file_of(other_disk) == file_of(disk)
    assert file_of(disk).endswith(data)
    assert copy.make_sound() == 0, "every sum is right"
    header, layout = decode_header(file_of(other_disk))
    assert header.is_small == (arrival != "in pieces")
    assert layout.data_offset == (4096 if header.is_small else 12288)
    other_disk.crash()
    again = ChunkStore(other_disk, cluster_id=ClusterId("c1"))
    again.open()
    with again.open_chunk(HANDLE, V1) as chunk:
        assert chunk.read(0, length) == data


def test_a_sound_replica_is_left_as_it_is_and_nobody_is_asked(sources: Sources) -> None:
    store, _ = fresh_store()
    seal(store, DATA)
    assert sources.copy(store).make_sound() == 0


def test_a_damaged_replica_is_replaced_at_one_stroke(sources: Sources) -> None:
    store, disk = fresh_store()
    seal(store, DATA)
    damage(disk, 30)
    assert sources.copy(store, sources.good()).make_sound() == len(DATA)
    assert content(store) == DATA
    assert (store.chunk_count, store.stored_bytes) == (1, len(DATA))


def test_sources_damaged_in_different_places_make_a_whole_one(sources: Sources) -> None:
    store, _ = fresh_store()
    first, second = sources.damaged(1, 20), sources.damaged(2, 31)
    copy = sources.copy(store, first, second)
    copy.make_sound()
    assert content(store) == DATA
    assert set(copy.damaged_sources) == {first, second}


def test_a_block_that_is_bad_everywhere_ends_the_copy_and_leaves_what_is_here(
    sources: Sources,
) -> None:
    store, disk = fresh_store()
    seal(store, DATA)
    damage(disk, 5)
    copy = sources.copy(store, sources.damaged(3), sources.damaged(3, 4))
    with pytest.raises(CorruptChunk, match="block 3"):
        copy.make_sound()
    assert disk.list("incoming") == []
    with store.open_chunk(HANDLE, V1) as chunk:
        assert chunk.read(0, 5 * BLOCK) == DATA[: 5 * BLOCK]


def test_a_whole_replica_of_other_bytes_is_no_source(sources: Sources) -> None:
    store, _ = fresh_store()
    forger, _ = fresh_store()
    seal(forger, DATA[::-1])
    liar = sources.serve(forger)
    copy = sources.copy(store, liar)
    with pytest.raises(CorruptChunk, match="another one"):
        copy.make_sound()
    assert copy.damaged_sources == [liar]
    sources.copy(store, liar, sources.good()).make_sound()
    assert content(store) == DATA


def test_a_source_that_is_not_there_is_passed_over(sources: Sources) -> None:
    store, _ = fresh_store()
    copy = sources.copy(store, NOBODY, sources.good())
    copy.make_sound()
    assert copy.damaged_sources == []
    with pytest.raises(Unreachable):
        sources.copy(fresh_store()[0], NOBODY).make_sound()


def test_a_later_version_is_not_replaced_by_an_earlier_one(sources: Sources) -> None:
    store, _ = fresh_store()
    seal(store, DATA, ChunkVersion(2))
    with pytest.raises(CorruptChunk, match="version 2"):
        sources.copy(store, sources.good()).make_sound()
    assert store.version_of(HANDLE) == 2


def test_a_copy_that_is_withdrawn_leaves_nothing(sources: Sources) -> None:
    store, disk = fresh_store()

    def withdraw(count: int) -> None:
        raise CopyWithdrawn

    with pytest.raises(CopyWithdrawn):
        sources.copy(store, sources.good(), pay=withdraw).make_sound()
    assert disk.list("incoming") == []


def test_orders_are_carried_out_once_and_reported_until_they_are_heard(sources: Sources) -> None:
    store, _ = fresh_store()
    done = threading.Event()
    orders = CopyOrders(store, pool=sources.pool, disk_failed=lambda error: None)
    orders.start(done.set)
    try:
        standing = (order(sources.good()),)
        orders.take(standing)
        assert done.wait(5)
        orders.take(standing)  # the master has not heard yet
        (report,) = orders.reports()
        assert report == CopyReport(handle=HANDLE, version=V1)
        orders.delivered((report,))
        orders.take(())
        assert orders.reports() == ()
        assert content(store) == DATA
    finally:
        orders.stop()


def test_what_fails_is_reported_with_its_reason(sources: Sources) -> None:
    done = threading.Event()
    orders = CopyOrders(fresh_store()[0], pool=sources.pool, disk_failed=lambda error: None)
    orders.start(done.set)
    try:
        orders.take((order(NOBODY),))
        assert done.wait(5)
        (report,) = orders.reports()
        assert "cannot reach" in report.failure
    finally:
        orders.stop()


def test_copies_keep_to_their_rate_and_come_near_it(sources: Sources) -> None:
    store, _ = fresh_store()
    done = threading.Event()
    orders = CopyOrders(store, pool=sources.pool, disk_failed=lambda error: None)
    orders.start(done.set)
    try:
        began = time.monotonic()
        orders.take((order(sources.good(), rate=len(DATA)),))
        assert done.wait(10)
        took = time.monotonic() - began
    finally:
        orders.stop()
    assert took < 1 / 0.75, "slower than three quarters of its rate"
    assert took > 0.5 - 0.25 - 0.01, "the second piece did not wait for the first one's time"
