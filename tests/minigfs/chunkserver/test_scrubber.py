"""Every kind of damage to a file at rest is found by looking, and told to the master."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.chunkserver import scrubber as scrubber_module
from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.chunkserver.inspector import Inspector
from minigfs.chunkserver.messages import VerifyChunk
from minigfs.chunkserver.reports import ChunkReport
from minigfs.chunkserver.scrub_schedule import (
    CHUNK_COST_BYTES,
    RATE_MIN,
    ScrubRecord,
    ScrubSchedule,
)
from minigfs.chunkserver.scrubber import Scrubber
from minigfs.chunkserver.store import ChunkStore
from minigfs.chunkserver.verification import ChunkVerification
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_store import open_store, pattern, seal
from tests.sim.clock import SimClock

DAY_MS = 24 * 3_600_000
CONTENT = pattern(150_000)[:150_000]


@pytest.fixture
def disk(tmp_path: Path) -> RealDisk:
    return RealDisk(tmp_path)


@pytest.fixture
def store(disk: RealDisk) -> ChunkStore:
    store = open_store(disk)
    for handle in (1, 2, 3):
        seal(store, handle, CONTENT)
    while store_report(store).full:
        pass
    return store


def store_report(store: ChunkStore) -> ChunkReport:
    report = store.take_report()
    store.report_delivered(report, 1)
    return report


def file_of(tmp_path: Path, handle: int) -> Path:
    return tmp_path / "chunks" / f"{handle:016x}.chunk"


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    other = path.with_name(f"{2:016x}.chunk")
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def roll_back(path: Path, tmp_path: Path) -> None:
    """Another content of the same chunk, file and version, sealed as it should be."""
    past = open_store(RealDisk(tmp_path / "past"))
    seal(past, 1, CONTENT[::-1])
    path.write_bytes(file_of(tmp_path / "past", 1).read_bytes())


AT_A_GLANCE: dict[str, Callable[[Path, Path], object]] = {
    "a bit of the header": lambda path, _: flip(path, 20),
    "a bit of the sums": lambda path, _: flip(path, 110),
    "cut short": lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    "cut to nothing": lambda path, _: path.write_bytes(b""),
    "swapped": lambda path, _: swap(path),
    "rolled back": roll_back,
}


@pytest.mark.parametrize("harm", AT_A_GLANCE.values(), ids=AT_A_GLANCE)
def test_an_inspection_finds_what_a_file_does_not_say_of_itself(
    harm: Callable[[Path, Path], object], store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    inspector = Inspector(store)
    inspector.inspect()
    assert store_report(store).damaged == ()
    harm(file_of(tmp_path, 1), tmp_path)
    inspector.inspect()
    found = store_report(store)
    assert found.damaged[0] == 1
    assert found.gone == ()
    assert store.damaged_count == len(found.damaged)
    assert store_report(store).damaged == ()


def test_an_inspection_finds_that_a_file_is_gone(
    store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    file_of(tmp_path, 2).unlink()
    Inspector(store).inspect()
    report = store_report(store)
    assert (report.gone, report.damaged) == ((2,), ())
    assert store.chunk_count == 2


@pytest.mark.parametrize("offset_from_end", [1, 18_927, 18_929, 149_999, 150_000])
def test_a_scrub_finds_a_flipped_bit_in_any_block(
    offset_from_end: int, store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    flip(file_of(tmp_path, 3), -offset_from_end)
    scrubber = Scrubber(store, disk)
    Inspector(store).inspect()
    assert store_report(store).damaged == ()
    while scrubber.scrub_next():
        pass
    assert store_report(store).damaged == (3,)
    assert scrubber.scrubbed_bytes > 0


def test_damage_is_told_again_to_a_master_that_begins_to_know_this_server(
    store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    flip(file_of(tmp_path, 3), -1)
    while (scrubber := Scrubber(store, disk)).scrub_next():
        break
    for _ in range(2):
        scrubber.scrub_next()
    assert store_report(store).damaged == (3,)
    store.owe_full_report()
    again = store_report(store)
    assert (again.full, again.damaged) == (True, (3,))
    assert 3 in [chunk.handle for chunk in again.chunks]


def test_a_chunk_that_is_deleted_is_damaged_no_more(
    store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    flip(file_of(tmp_path, 1), 20)
    Inspector(store).inspect()
    store.delete(ChunkHandle(1))
    report = store_report(store)
    assert (report.gone, report.damaged, store.damaged_count) == ((1,), (), 0)


def test_what_is_replaced_while_it_is_looked_at_is_no_damage(
    store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = store.find(ChunkHandle(1))
    assert known is not None
    with store.open_chunk(ChunkHandle(1), known.version) as opened:
        store.admit(replace(known))
        error = opened._on_damage(ChunkHandle(1), CorruptChunk("seen in the old file"))
    assert "replaced" in str(error)
    store.delete(ChunkHandle(1))
    assert (store.damaged_count, store.damage_found_count) == (0, 0)


def test_a_passing_trouble_is_taken_back(store: ChunkStore, tmp_path: Path, disk: RealDisk) -> None:
    flip(file_of(tmp_path, 1), 20)
    Inspector(store).inspect()
    assert store_report(store).damaged == (1,)
    flip(file_of(tmp_path, 1), 20)
    store.found_sound(ChunkHandle(1))
    assert store.damaged_count == 0
    assert [chunk.handle for chunk in store_report(store).chunks] == [1]


def test_the_thread_finds_damage_and_remembers_a_complete_pass(
    store: ChunkStore, disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubber_module, "_IDLE_S", 0.001)
    flip(file_of(tmp_path, 2), -1)
    found = threading.Event()
    monkeypatch.setattr(store, "_found_damage", _noticing(store._found_damage, found))
    scrubber = Scrubber(store, disk)
    assert scrubber.last_scrubbed_ms == 0
    scrubber.start()
    try:
        assert found.wait(10)
        while scrubber.last_scrubbed_ms == 0 or not disk.exists("scrub.json"):
            found.wait(0.01)
    finally:
        scrubber.stop()
    assert store_report(store).damaged == (2,)
    complete_ms = scrubber.last_scrubbed_ms
    while Scrubber(store, disk).last_scrubbed_ms == 0:
        scrubber._write_record()
    assert Scrubber(store, disk).last_scrubbed_ms == complete_ms


def test_when_each_chunk_was_read_is_known_also_after_a_restart(
    store: ChunkStore, disk: RealDisk, tmp_path: Path
) -> None:
    clock = SimClock()
    scrubber = Scrubber(store, disk, clock=clock)
    flip(file_of(tmp_path, 2), -1)
    for _ in range(3):
        clock.advance(1_000)
        assert scrubber.scrub_next()
    first = clock.now_ms() - 2_000
    assert [scrubber.times.of(ChunkHandle(h)) for h in (1, 2, 3, 4)] == [first, 0, first + 2_000, 0]
    clock.advance(1_000)
    verification = ChunkVerification(store, scrubber.times)
    verification.verify(VerifyChunk(handle=ChunkHandle(1), quick=True))
    assert scrubber.times.of(ChunkHandle(1)) == first
    verification.verify(VerifyChunk(handle=ChunkHandle(1)))
    store.delete(ChunkHandle(3))
    scrubber.stop()
    again = Scrubber(store, disk, clock=clock)
    assert [again.times.of(ChunkHandle(h)) for h in (1, 2, 3)] == [first + 3_000, 0, 0]
    (tmp_path / "scrubbed.msgpack").write_bytes(b"?")
    assert Scrubber(store, disk, clock=clock).times.of(ChunkHandle(1)) == 0


def _noticing(
    find: Callable[[StoredChunk, ChunkHandle, OSError], OSError], found: threading.Event
) -> Callable[[StoredChunk, ChunkHandle, OSError], OSError]:
    def notice(known: StoredChunk, handle: ChunkHandle, error: OSError) -> OSError:
        found.set()
        return find(known, handle, error)

    return notice


def test_the_chunks_are_listed_once_in_a_pass_and_never_at_rest(
    store: ChunkStore, disk: RealDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may hold a million of them, and the thread asks for the next one all the time."""
    listed = 0
    known_chunks = store.known_chunks

    def counted() -> list[StoredChunk]:
        nonlocal listed
        listed += 1
        return known_chunks()

    monkeypatch.setattr(store, "known_chunks", counted)
    scrubber = Scrubber(store, disk)
    assert [scrubber.scrub_next() for _ in range(10)] == [True] * 3 + [False] * 7
    assert listed == 1


def test_a_damaged_record_costs_a_pass_and_no_more(store: ChunkStore, disk: RealDisk) -> None:
    with disk.open("scrub.json", create=True) as file:
        file.write_at(0, b"{rubbish")
    assert Scrubber(store, disk).scrub_next()


def stored(handle: int) -> StoredChunk:
    return StoredChunk(handle=ChunkHandle(handle), version=ChunkVersion(1), length_bytes=1)


def one_chunk() -> list[StoredChunk]:
    return [stored(1)]


@given(
    handles=st.lists(st.sets(st.integers(1, 30)), min_size=1, max_size=4),
    restarts=st.sets(st.integers(0, 60)),
)
def test_every_chunk_that_stays_is_read_once_in_each_pass_whatever_comes_and_goes(
    handles: list[set[int]], restarts: set[int]
) -> None:
    schedule = ScrubSchedule(ScrubRecord(), bound_ms=DAY_MS)
    read: list[int] = []
    now_ms = DAY_MS
    for step in range(200):
        here = sorted(handles[min(step // 5, len(handles) - 1)])
        chunk = schedule.next(lambda here=here: [stored(handle) for handle in here], now_ms)
        if chunk is None:
            break
        if step in restarts:  # in the middle of a chunk: it is read again
            schedule = ScrubSchedule(schedule.record, bound_ms=DAY_MS)
            continue
        read.append(chunk.handle)
        schedule.done(chunk.handle)
        now_ms += 1
    assert schedule.record.complete_ms == DAY_MS
    assert read == sorted(set(read))
    assert set(read) >= set.intersection(*handles)


def test_the_next_pass_begins_after_half_the_bound_and_takes_a_quarter() -> None:
    schedule = ScrubSchedule(ScrubRecord(), bound_ms=DAY_MS)
    assert schedule.next(list, DAY_MS) is None
    assert schedule.record.complete_ms == DAY_MS
    assert schedule.next(one_chunk, DAY_MS + DAY_MS // 2 - 1) is None
    assert schedule.next(one_chunk, DAY_MS + DAY_MS // 2) == stored(1)
    assert schedule.rate(0, 0) == RATE_MIN
    much = RATE_MIN * DAY_MS // 1000
    assert schedule.rate(much, 0) == 4 * RATE_MIN
    assert schedule.rate(0, much // CHUNK_COST_BYTES) == pytest.approx(4 * RATE_MIN)


def test_a_clock_that_was_set_back_does_not_stop_the_scrubbing() -> None:
    schedule = ScrubSchedule(ScrubRecord(began_ms=9 * DAY_MS, complete_ms=9 * DAY_MS))
    assert schedule.next(one_chunk, DAY_MS) == stored(1)


def test_a_small_chunk_is_paid_for_as_more_than_its_bytes(
    store: ChunkStore, disk: RealDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a thousand chunks of a byte takes a processor's time and hardly any of the disk's."""
    scrubber, pauses_s = Scrubber(store, disk, rate_min=CHUNK_COST_BYTES), list[float]()

    def pause(seconds: float) -> bool:
        pauses_s.append(seconds)
        return False

    seal(store, 4, b"x")
    monkeypatch.setattr(scrubber._stopping, "wait", pause)
    for _ in range(3):
        scrubber.scrub_next()
    pauses_s.clear()
    scrubber.scrub_next()
    assert sum(pauses_s) == pytest.approx(1.0, rel=0.01)
