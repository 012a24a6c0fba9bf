"""The store gives back what was sealed and nothing else: restarts, damage, full disks."""

import errno
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.chunkserver.checksum import block_sums
from minigfs.chunkserver.messages import WriteChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import CorruptChunk, NoSpace, ProtocolError
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId, FileId
from minigfs.ports import Disk, RealDisk, RealDiskFile
from tests.sim.clock import SimClock
from tests.sim.disk import SimDisk

V1 = ChunkVersion(1)
CHUNK_BYTES = 4 * BLOCK


def write_request(handle: int, chunk_bytes: int = CHUNK_BYTES) -> WriteChunk:
    return WriteChunk(
        handle=ChunkHandle(handle),
        version=V1,
        file_id=FileId(1),
        index=0,
        path_hint="/a",
        chunk_bytes=chunk_bytes,
        chain=(),
    )


def open_store(disk: Disk, cluster_id: str = "c1") -> ChunkStore:
    store = ChunkStore(disk, cluster_id=ClusterId(cluster_id))
    store.open()
    return store


def test_full_reports_of_a_restarted_server_have_higher_numbers_than_those_before() -> None:
    # In a container its process id is the same as before, so a master knows a restart by this.
    disk, clock = SimDisk(), SimClock()
    first = ChunkStore(disk, cluster_id=ClusterId("c1"), clock=clock)
    first.open()
    numbers = []
    for _ in range(3):
        first.owe_full_report()
        report = first.take_report()
        first.report_delivered(report, 1)
        numbers.append(report.report)
    clock.advance(1_000)
    second = ChunkStore(disk, cluster_id=ClusterId("c1"), clock=clock)
    second.open()
    assert second.take_report().report > max(numbers)


def seal(store: ChunkStore, handle: int, data: bytes) -> None:
    with store.create(write_request(handle)) as incoming:
        for start in range(0, len(data), BLOCK):
            piece = data[start : start + BLOCK]
            sums = block_sums(piece, handle=ChunkHandle(handle), first_block=start // BLOCK)
            incoming.append(start, piece, sums)
        incoming.seal()


def read(store: ChunkStore, handle: int) -> bytes:
    with store.open_chunk(ChunkHandle(handle), V1) as chunk:
        return chunk.read(0, chunk.header.length_bytes)


def pattern(length: int) -> bytes:
    return bytes(i * 7 % 256 for i in range(251)) * (length // 251 + 1)


@pytest.fixture
def disk(tmp_path: Path) -> RealDisk:
    return RealDisk(tmp_path)


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK_BYTES])
def test_a_sealed_chunk_reads_back_also_after_a_restart(disk: RealDisk, length: int) -> None:
    data = pattern(length)[:length]
    store = open_store(disk)
    seal(store, 1, data)
    assert read(store, 1) == data
    restarted = open_store(disk)
    assert read(restarted, 1) == data
    assert (restarted.chunk_count, restarted.stored_bytes) == (1, length)
    assert [c.length_bytes for c in restarted.take_report().chunks] == [length]


def test_a_range_is_read_without_the_rest(disk: RealDisk) -> None:
    data = pattern(CHUNK_BYTES)[:CHUNK_BYTES]
    store = open_store(disk)
    seal(store, 1, data)
    with store.open_chunk(ChunkHandle(1), V1) as chunk:
        assert chunk.read(BLOCK, 3 * BLOCK) == data[BLOCK : 3 * BLOCK]


def test_a_large_chunk_is_on_its_way_to_the_disk_before_it_is_sealed(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretches: list[tuple[int, int]] = []
    monkeypatch.setattr(
        RealDiskFile,
        "write_behind",
        lambda _file, offset, length: stretches.append((offset, length)),
    )
    piece = bytes(1 << 20)
    with open_store(disk).create(write_request(1, 64 << 20)) as incoming:
        for number in range(20):
            first_block = number * len(piece) // BLOCK
            sums = block_sums(piece, handle=ChunkHandle(1), first_block=first_block)
            incoming.append(number * len(piece), piece, sums)
    (first, first_bytes), (second, second_bytes) = stretches
    assert second == first + first_bytes
    assert first_bytes == second_bytes == 8 << 20


def test_an_unsealed_chunk_leaves_nothing(disk: RealDisk) -> None:
    store = open_store(disk)
    with store.create(write_request(1)) as incoming:
        incoming.append(0, b"abc", block_sums(b"abc", handle=ChunkHandle(1), first_block=0))
    assert store.chunk_count == 0
    assert list(disk.list("incoming")) == []
    with pytest.raises(CorruptChunk, match="not here"):
        read(store, 1)


def test_a_start_removes_what_a_crash_left_unsealed(disk: RealDisk) -> None:
    store = open_store(disk)
    incoming = store.create(write_request(1))
    incoming.append(0, b"abc", block_sums(b"abc", handle=ChunkHandle(1), first_block=0))
    assert open_store(disk).chunk_count == 0
    assert list(disk.list("incoming")) == []


def test_bytes_damaged_on_the_way_are_refused(disk: RealDisk) -> None:
    store = open_store(disk)
    sums = block_sums(b"abc", handle=ChunkHandle(1), first_block=0)
    with store.create(write_request(1)) as incoming, pytest.raises(CorruptChunk, match="block 0"):
        incoming.append(0, b"abd", sums)


def test_pieces_out_of_order_or_too_long_are_refused(disk: RealDisk) -> None:
    store = open_store(disk)
    handle = ChunkHandle(1)
    with store.create(write_request(1)) as incoming:
        incoming.append(0, b"a" * BLOCK, block_sums(b"a" * BLOCK, handle=handle, first_block=0))
        for offset, length in ((0, 1), (2 * BLOCK, 1), (BLOCK, CHUNK_BYTES)):
            data = b"b" * length
            sums = block_sums(data, handle=handle, first_block=offset // BLOCK)
            with pytest.raises(ProtocolError):
                incoming.append(offset, data, sums)
        incoming.append(BLOCK, b"c", block_sums(b"c", handle=handle, first_block=1))
        with pytest.raises(ProtocolError):  # after a partial block nothing can follow
            incoming.append(BLOCK + 1, b"d", b"")


@pytest.mark.parametrize("handle", [0, -1, 2**63])
def test_a_handle_that_is_none_never_becomes_a_file(disk: RealDisk, handle: int) -> None:
    with pytest.raises(ProtocolError):
        open_store(disk).create(write_request(handle))


def test_a_sealed_chunk_is_never_written_again(disk: RealDisk) -> None:
    store = open_store(disk)
    seal(store, 1, b"first")
    with pytest.raises(ProtocolError, match="already sealed"):
        seal(store, 1, b"other")
    assert read(store, 1) == b"first"


@pytest.mark.parametrize("offset", [0, 20, 200, 4096, 4096 + 5])
def test_any_damaged_part_of_the_file_is_found_by_the_read(
    disk: RealDisk, tmp_path: Path, offset: int
) -> None:
    store = open_store(disk)
    seal(store, 1, b"x" * (BLOCK + 10))
    flip(chunk_file(tmp_path, 1), offset)
    if offset == 200:  # padding between table and data belongs to nobody
        assert read(store, 1) == b"x" * (BLOCK + 10)
        return
    with pytest.raises(CorruptChunk, match="chunk 1"):
        read(store, 1)


def test_good_blocks_of_a_damaged_chunk_stay_readable(disk: RealDisk, tmp_path: Path) -> None:
    store = open_store(disk)
    seal(store, 1, b"a" * BLOCK + b"b" * BLOCK)
    flip(chunk_file(tmp_path, 1), 4096 + 10)
    with store.open_chunk(ChunkHandle(1), V1) as chunk:
        assert chunk.read(BLOCK, 2 * BLOCK) == b"b" * BLOCK
        with pytest.raises(CorruptChunk, match="block 0"):
            chunk.read(0, BLOCK)


def test_a_chunk_file_that_vanishes_during_a_start_is_a_chunk_that_is_not_here() -> None:
    class Vanishing(SimDisk):
        def list(self, directory: str) -> list[str]:
            names = super().list(directory)
            if directory == "chunks" and names:
                self.remove(f"chunks/{names[0]}")
            return names

    disk = Vanishing()
    store = open_store(disk)
    seal(store, 1, b"x")
    seal(store, 2, b"y")
    again = open_store(disk)
    assert again.chunk_count == 1
    assert disk.list("quarantine") == []
    assert [chunk.handle for chunk in again.take_report().chunks] == [2]


def test_a_start_quarantines_what_is_no_chunk_of_this_cluster(
    disk: RealDisk, tmp_path: Path
) -> None:
    store = open_store(disk)
    for handle in (1, 2, 3, 4, 5):
        seal(store, handle, b"x" * 100)
    flip(chunk_file(tmp_path, 2), 0)
    chunk_file(tmp_path, 3).write_bytes(chunk_file(tmp_path, 3).read_bytes()[:-1])
    chunk_file(tmp_path, 4).rename(chunk_file(tmp_path, 6))
    (tmp_path / "chunks" / "stray").write_bytes(b"")
    restarted = open_store(disk)
    assert [chunk.handle for chunk in restarted.take_report().chunks] == [1, 5]
    quarantined = sorted(path.name for path in (tmp_path / "quarantine").iterdir())
    assert quarantined == [f"{2:016x}.chunk", f"{3:016x}.chunk", f"{6:016x}.chunk", "stray"]
    assert open_store(disk, "other-cluster").chunk_count == 0


def test_a_deleted_chunk_is_gone_and_reported(disk: RealDisk, tmp_path: Path) -> None:
    store = open_store(disk)
    seal(store, 1, b"x")
    store.report_delivered(store.take_report(), 1)
    store.delete(ChunkHandle(1))
    store.delete(ChunkHandle(99))
    assert list((tmp_path / "chunks").iterdir()) == []
    assert (store.chunk_count, store.stored_bytes) == (0, 0)
    assert store.take_report().gone == (ChunkHandle(1), ChunkHandle(99))


def test_another_version_is_not_given_out(disk: RealDisk) -> None:
    store = open_store(disk)
    seal(store, 1, b"x")
    with pytest.raises(CorruptChunk, match="version"):
        store.open_chunk(ChunkHandle(1), ChunkVersion(2))


def test_no_chunk_is_begun_below_5_percent_free() -> None:
    disk = SimDisk(capacity_bytes=1_000_000)
    store = open_store(disk)
    with disk.open("something-else", create=True) as file:
        file.write_at(0, bytes(950_001))
    with pytest.raises(NoSpace, match="49999 of 1000000"):
        store.create(write_request(1))
    assert list(disk.list("incoming")) == []


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_disk_that_fills_up_while_a_chunk_is_written_leaves_nothing(operation: str) -> None:
    disk = SimDisk()
    store = open_store(disk)
    disk.fail(operation, errno.ENOSPC)
    with pytest.raises(NoSpace):
        seal(store, 1, b"x" * 100)
    assert (list(disk.list("incoming")), list(disk.list("chunks"))) == ([], [])
    seal(store, 1, b"y" * 100)
    assert read(store, 1) == b"y" * 100


def test_a_block_the_disk_cannot_read_is_damage_of_that_chunk() -> None:
    disk = SimDisk()
    store = open_store(disk)
    seal(store, 1, b"x" * 100)
    with store.open_chunk(ChunkHandle(1), V1) as chunk:
        disk.fail("read", errno.EIO)
        with pytest.raises(CorruptChunk, match="chunk 1"):
            chunk.read(0, 100)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 3 * BLOCK), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_a_crash_takes_no_sealed_chunk_and_leaves_no_half_one(
    chunks: list[tuple[int, bool]], seed: int
) -> None:
    disk = SimDisk()
    store = open_store(disk)
    sealed: dict[int, bytes] = {}
    for handle, (length, is_sealed) in enumerate(chunks, start=1):
        data = pattern(length)[:length]
        if is_sealed:
            seal(store, handle, data)
            sealed[handle] = data
        else:
            incoming = store.create(write_request(handle))
            piece = data[:BLOCK]
            sums = block_sums(piece, handle=ChunkHandle(handle), first_block=0)
            incoming.append(0, piece, sums)
    disk.crash_by_chance(SeededRng(seed))
    restarted = open_store(disk)
    assert {chunk.handle for chunk in restarted.take_report().chunks} == set(sealed)
    for handle, data in sealed.items():
        assert read(restarted, handle) == data


class SeededRng:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def random_u64(self) -> int:
        return self._random.getrandbits(64)

    def uniform_ms(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


def chunk_file(root: Path, handle: int) -> Path:
    return root / "chunks" / f"{handle:016x}.chunk"


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))
