"""An open replica after a crash: every acknowledged byte, and never a wrong one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import pytest
from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.append_messages import BatchRecord
from minigfs.chunkserver.append_slots import SLOT_BYTES
from minigfs.chunkserver.checksum import block_sums
from minigfs.chunkserver.chunk_file import HEADER_BYTES_MAX, decode_header
from minigfs.chunkserver.messages import WriteChunk
from minigfs.chunkserver.mutations import Batch
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.open_replica import OpenReplica
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import CorruptChunk, WriterFenced
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, ClusterId, FileId
from minigfs.master.append_messages import ChunkMember, InstallChunk
from minigfs.master.heartbeat_messages import SealOrder
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk

HANDLE, V1, V2 = ChunkHandle(7), ChunkVersion(1), ChunkVersion(2)
CHUNK_BYTES = 3 * BLOCK
MEMBERS = (ChunkMember(chunkserver_id=ChunkserverId("a"), address="a:1"),)
# Within a block, over its end, to its very end, and a whole one.
LENGTHS = (100, BLOCK - 50, BLOCK - 50, BLOCK // 2)


class Crash(Exception):
    pass


def open_all(disk: SimDisk) -> tuple[ChunkStore, OpenChunks]:
    store = ChunkStore(disk, cluster_id=ClusterId("c"))
    store.open()
    open_chunks = OpenChunks(disk, store)
    open_chunks.open()
    return store, open_chunks


def order_to_install(
    handle: ChunkHandle = HANDLE, *, chunk_bytes: int = CHUNK_BYTES
) -> InstallChunk:
    return InstallChunk(
        handle=handle,
        version=V1,
        file_id=FileId(3),
        index=0,
        path_hint="/a" * 300,
        chunk_bytes=chunk_bytes,
        members=MEMBERS,
    )


def install(open_chunks: OpenChunks) -> OpenReplica:
    open_chunks.install(order_to_install())
    return open_chunks.get(HANDLE, V1)


def record_bytes(number: int) -> bytes:
    return bytes((number * 31 + i) % 251 for i in range(LENGTHS[number]))


def append(replica: OpenReplica, number: int) -> None:
    data = record_bytes(number)
    record = BatchRecord(
        appender_id=1, sequence=number + 1, length_bytes=len(data), sum=xxh3_64_intdigest(data)
    )
    batch = Batch(serial=number + 1, offset_bytes=replica.length_bytes, records=(record,))
    replica.apply(batch, (data,), replica.length_bytes)


def content_of(replica: OpenReplica) -> bytes:
    return replica.read(0, replica.length_bytes)[1]


def whole(count_: int) -> bytes:
    return b"".join(record_bytes(number) for number in range(count_))


def seal(open_chunks: OpenChunks, length: int) -> None:
    replica = open_chunks.get(HANDLE, V1)
    replica.freeze()
    order = SealOrder(
        handle=HANDLE, version=V2, length_bytes=length, digest=replica.digest_at(length)
    )
    open_chunks.seal(order)


def sealed_content(store: ChunkStore) -> bytes:
    with store.open_chunk(HANDLE, V2) as chunk:
        return chunk.read(0, chunk.header.length_bytes)


@pytest.mark.parametrize("kept", range(1, len(LENGTHS) + 1))
def test_what_is_kept_becomes_a_sealed_chunk(kept: int) -> None:
    disk = SimDisk()
    store, open_chunks = open_all(disk)
    replica = install(open_chunks)
    for number in range(len(LENGTHS)):
        append(replica, number)
    assert content_of(replica) == whole(len(LENGTHS))
    length = len(whole(kept))
    if kept < len(LENGTHS) - 1:  # the last but one is known to be on every member
        with pytest.raises(CorruptChunk):
            seal(open_chunks, length)
        return
    seal(open_chunks, length)
    assert sealed_content(store) == whole(kept)
    assert open_chunks.find(HANDLE) is None
    again, _ = open_all(disk)
    assert sealed_content(again) == whole(kept)


def test_a_replica_takes_nothing_after_a_restart_and_not_what_does_not_follow() -> None:
    disk = SimDisk()
    _, open_chunks = open_all(disk)
    replica = install(open_chunks)
    append(replica, 0)
    with pytest.raises(WriterFenced):
        append(replica, 2)
    _, open_chunks = open_all(disk)
    replica = open_chunks.get(HANDLE, V1)
    assert content_of(replica) == whole(1)
    with pytest.raises(WriterFenced):
        append(replica, 1)
    with pytest.raises(WriterFenced):
        install(open_chunks)


def test_a_record_damaged_on_its_way_is_refused_and_the_replica_stays_whole() -> None:
    _, open_chunks = open_all(SimDisk())
    replica = install(open_chunks)
    append(replica, 0)
    record = BatchRecord(appender_id=1, sequence=2, length_bytes=3, sum=1)
    batch = Batch(serial=2, offset_bytes=replica.length_bytes, records=(record,))
    with pytest.raises(CorruptChunk):
        replica.apply(batch, (b"abc",), 0)
    append(replica, 1)
    assert content_of(replica) == whole(2)


@pytest.mark.parametrize("offset", [0, BLOCK, 2 * BLOCK - 1, 2 * BLOCK + 1, "slot"])
def test_a_replica_whose_disk_has_changed_doubts_that_it_has_all_it_had(offset: int | str) -> None:
    """Whatever is flipped: what it counts on is right, but it may not be all."""
    disk = SimDisk()
    _, open_chunks = open_all(disk)
    replica = install(open_chunks)
    for number in range(len(LENGTHS)):
        append(replica, number)
    path = f"open/{HANDLE:016x}.chunk"
    disk.kill()
    _, open_chunks = open_all(disk)
    assert not open_chunks.get(HANDLE, V1).is_doubtful
    _, layout = decode_header(disk.open(path).read_at(0, HEADER_BYTES_MAX))
    at = layout.data_offset + offset if isinstance(offset, int) else layout.data_offset - SLOT_BYTES
    disk.flip_bit(path, at, 0)
    disk.kill()
    _, open_chunks = open_all(disk)
    assert open_chunks.get(HANDLE, V1).is_doubtful


def short_of_the_log() -> SealOrder:
    """An order for more than any replica here has."""
    return SealOrder(handle=HANDLE, version=V2, length_bytes=CHUNK_BYTES, digest=1)


def test_a_replica_that_is_not_what_was_sealed_makes_way_for_a_copy() -> None:
    """It missed the last mutations. While it lay there, reads of a copy would be refused."""
    store, open_chunks = open_all(SimDisk())
    append(install(open_chunks), 0)
    open_chunks.carry_out([short_of_the_log()])
    assert open_chunks.find(HANDLE) is None
    assert open_chunks.reports() == ()
    assert store.trash.handles() == (HANDLE,)


def test_a_leftover_beside_a_sealed_chunk_is_set_aside_at_the_start() -> None:
    disk = SimDisk()
    store, open_chunks = open_all(disk)
    append(install(open_chunks), 0)
    request = WriteChunk(
        handle=HANDLE,
        version=V2,
        file_id=FileId(3),
        index=0,
        path_hint="/a",
        chunk_bytes=CHUNK_BYTES,
        chain=(),
    )
    with store.create(request) as incoming:
        incoming.append(0, b"abc", block_sums(b"abc", handle=HANDLE, first_block=0))
        incoming.seal()
    store, open_chunks = open_all(disk)
    assert open_chunks.find(HANDLE) is None
    assert sealed_content(store) == b"abc"


def test_what_was_said_not_to_be_here_is_never_installed() -> None:
    """The master has given the chunk up; an order of before, still under way, must not open it:
    records would be acknowledged that no file has."""
    _, open_chunks = open_all(SimDisk())
    assert open_chunks.find_or_bar(HANDLE) is None
    with pytest.raises(WriterFenced):
        install(open_chunks)


def test_an_installation_under_way_is_waited_for_before_it_is_said_not_to_be_here() -> None:
    disk = SimDisk()
    _, open_chunks = open_all(disk)
    begun, go_on = threading.Event(), threading.Event()

    def wait_in_sync(operation: str, _path: str) -> None:
        if operation == "sync":
            begun.set()
            go_on.wait(10)

    disk.before_change = wait_in_sync
    with ThreadPoolExecutor(2) as threads:
        installed = threads.submit(install, open_chunks)
        assert begun.wait(10)
        found = threads.submit(open_chunks.find_or_bar, HANDLE)
        go_on.set()
        assert found.result(10) is installed.result(10)


def run_until_crash(disk: SimDisk, step: int) -> int:
    """Append all, seal without the last record, and crash before a step; what was acknowledged."""
    steps = count()

    def crash(_operation: str, _path: str) -> None:
        if next(steps) == step:
            raise Crash

    acknowledged = 0
    _, open_chunks = open_all(disk)
    disk.before_change = crash
    try:
        replica = install(open_chunks)
        for number in range(len(LENGTHS)):
            append(replica, number)
            acknowledged = number + 1
        seal(open_chunks, len(whole(len(LENGTHS) - 1)))
    except Crash:
        return acknowledged
    finally:
        disk.before_change = None
    return -1


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_any_step_takes_nothing_that_was_acknowledged(seed: int) -> None:
    """Whatever of the unsynced writes survives, down to half a write."""
    for step in count():
        disk = SimDisk()
        acknowledged = run_until_crash(disk, step)
        if acknowledged < 0:
            assert step > 20
            return
        if seed == 0:
            disk.crash()
        elif seed == 1:
            disk.crash(torn_bytes=40)
        else:
            disk.crash_by_chance(SimRng(seed * 1_000 + step))
        store, open_chunks = open_all(disk)
        check_what_is_left(store, open_chunks, acknowledged)


@pytest.mark.parametrize("seed", range(8))
def test_a_process_dies_while_a_chunk_moves_and_the_machine_in_the_next_start(seed: int) -> None:
    """The start sees both names, and the second may be durable nowhere."""
    disk = SimDisk()
    _, open_chunks = open_all(disk)
    append(install(open_chunks), 0)

    def die(operation: str, path: str) -> None:
        if (operation, path) == ("sync", "chunks"):
            raise Crash

    for last_step in (partial(seal, open_chunks, len(whole(1))), partial(open_all, disk)):
        disk.before_change = die
        with pytest.raises(Crash):
            last_step()
        disk.before_change = None
        disk.kill()
    disk.crash_by_chance(SimRng(seed))
    store, _ = open_all(disk)
    assert sealed_content(store) == whole(1)


def check_what_is_left(store: ChunkStore, open_chunks: OpenChunks, acknowledged: int) -> None:
    replica = open_chunks.find(HANDLE)
    kept = len(LENGTHS) - 1
    if replica is None and acknowledged == 0:
        return  # it may never have been installed
    if replica is not None:
        assert replica.is_frozen
        content = content_of(replica)
        assert whole(len(LENGTHS)).startswith(content)
        assert len(content) >= len(whole(min(acknowledged, kept)))
        if len(content) < len(whole(kept)):
            return
        seal(open_chunks, len(whole(kept)))
    assert sealed_content(store) == whole(kept)


def test_more_open_chunks_than_fit_into_a_heartbeat_are_told_in_turns() -> None:
    disk = SimDisk()
    _, open_chunks = open_all(disk)
    handles = {ChunkHandle(number) for number in range(1, 2_302)}
    for handle in handles:
        open_chunks.install(order_to_install(handle, chunk_bytes=BLOCK))
    turns = [[report.handle for report in open_chunks.reports()] for _ in range(3)]
    assert [len(turn) for turn in turns] == [1_000] * 3
    assert {handle for turn in turns for handle in turn} == handles
    for handle in sorted(handles)[10:]:
        open_chunks.delete(handle)
    assert len(open_chunks.reports()) == 10, "all of them, as soon as they fit"


def test_an_open_chunk_whose_file_vanishes_during_a_start_is_not_here() -> None:
    class Vanishing(SimDisk):
        def list(self, directory: str) -> list[str]:
            names = super().list(directory)
            if directory == "open" and names:
                self.remove(f"open/{names[0]}")
            return names

    disk = Vanishing()
    _, open_chunks = open_all(disk)
    install(open_chunks)
    open_chunks.close()
    _, again = open_all(disk)
    assert again.find(HANDLE) is None
    assert again.reports() == ()
