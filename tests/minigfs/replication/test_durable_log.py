"""A member's durable state: what was saved shows, and survives; what failed changed nothing."""

import errno
import threading

import pytest

from minigfs.errors import CorruptLog, InvalidConfig, NoSpace
from minigfs.ports import RealDisk
from minigfs.raft import Configuration, HardState, NodeId, Snapshot, SnapshotMetadata
from minigfs.replication.durable_log import DurableLog, LogSettings, NoLog
from tests.minigfs.replication.log_histories import (
    FOUNDING,
    SMALL,
    Expected,
    History,
    entry,
    found,
    persist,
    reopen,
    snapshot_pieces,
    write_snapshot,
)
from tests.minigfs.replication.observed_disk import ObservedDisk
from tests.sim.disk import SimDisk

LARGE = LogSettings(segment_bytes=64 * 1024)
VOTE = HardState(current_term=3, voted_for=NodeId("b"))


def log_with(disk, count: int, settings: LogSettings = SMALL) -> DurableLog:
    log = found(disk, settings)
    for index in range(1, count + 1):
        log.save(persist(entry(index)))
    return log


def keep(log: DurableLog, index: int, term: int = 1) -> SnapshotMetadata:
    metadata = History.metadata(index, term)
    write_snapshot(log, metadata)
    log.complete(log.begin_keep(metadata))
    return metadata


def damage(disk, path: str) -> None:
    with disk.open(path) as file:
        middle = file.size_bytes() // 2
        file.write_at(middle, bytes([file.read_at(middle, 1)[0] ^ 4]))
        file.sync()


def test_a_new_member_knows_itself_and_its_founding_configuration_and_nothing_else() -> None:
    disk = SimDisk()
    for log in (found(disk), reopen(disk)):
        assert log.member_id == "a"
        assert log.hard_state() == HardState()
        assert (log.first_index(), log.last_index()) == (1, 0)
        assert log.snapshot() == Snapshot(metadata=SnapshotMetadata(configuration=FOUNDING))


def test_a_member_to_be_added_starts_without_a_configuration() -> None:
    disk = SimDisk()
    DurableLog.create(
        disk, "", member_id=NodeId("late"), configuration=Configuration(), settings=SMALL
    )
    log = DurableLog.open(disk, "", settings=SMALL)
    assert log.snapshot_metadata().configuration == Configuration()


def test_a_directory_without_a_log_says_so_and_one_with_a_log_takes_no_second() -> None:
    disk = SimDisk()
    with pytest.raises(NoLog, match="raft"):
        reopen(disk)
    found(disk)
    with pytest.raises(InvalidConfig, match="already"):
        found(disk)


def test_vote_and_entries_are_one_write_and_one_sync(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    log = found(disk, LogSettings(segment_bytes=1 << 20))
    disk.sync_count = 0
    log.save(persist(*(entry(index) for index in range(1, 50)), hard_state=VOTE))
    assert disk.sync_count == 1
    log.close()
    again = reopen(RealDisk(tmp_path))
    assert (again.hard_state(), again.last_index()) == (VOTE, 49)
    again.close()


def test_a_save_shows_only_when_it_is_finished_and_may_run_in_another_thread() -> None:
    log = log_with(SimDisk(), 1)
    save = log.begin_save(persist(entry(2), hard_state=VOTE))
    thread = threading.Thread(target=save.run)
    thread.start()
    thread.join()
    assert (log.last_index(), log.hard_state()) == (1, HardState())
    log.finish_save(save)
    assert (log.last_index(), log.hard_state()) == (2, VOTE)


def test_one_save_at_a_time_finished_once_it_has_run() -> None:
    log = log_with(SimDisk(), 1)
    save = log.begin_save(persist(entry(2)))
    with pytest.raises(AssertionError, match="one save at a time"):
        log.begin_save(persist(entry(2)))
    with pytest.raises(AssertionError, match="when it has run"):
        log.finish_save(save)


def test_what_would_leave_a_hole_is_a_bug_of_the_caller() -> None:
    log = log_with(SimDisk(), 3)
    with pytest.raises(AssertionError, match="gap"):
        log.begin_save(persist(entry(5)))
    with pytest.raises(AssertionError, match="gap"):
        log.begin_save(persist(entry(4), entry(6)))
    with pytest.raises(AssertionError, match="no snapshot"):
        log.begin_compact(1)


def test_a_later_entry_of_the_same_index_overrides_also_over_segments_and_restarts() -> None:
    disk = SimDisk()
    log = log_with(disk, 30)
    log.save(persist(entry(12, 2), entry(13, 2)))
    for again in (log, reopen(disk)):
        assert again.last_index() == 13
        assert [again.term(index) for index in (11, 12, 13)] == [1, 2, 2]


def test_entries_overridden_in_a_segment_whose_predecessors_are_gone_read_back() -> None:
    disk = SimDisk()
    log, expected = found(disk), Expected()

    def save(unit) -> None:
        log.save(unit)
        expected.save(unit)

    def segment_count() -> int:
        return len(disk.list("raft/wal"))

    save(persist(*(entry(index) for index in range(1, 20))))
    before = segment_count()
    while segment_count() == before:  # the next segment begins with votes, behind entry 19
        term = expected.hard_state.current_term + 1
        save(persist(hard_state=HardState(current_term=term)))
    for first in (15, 16, 17, 18, 19, 20, 21):
        save(persist(entry(first, 2)))
    expected.snapshot, expected.first = keep(log, 20, 2), 21
    log.complete(log.begin_compact(20))
    assert segment_count() < before + 2
    again = reopen(disk)
    assert expected.differs(again) is None
    assert again.first_index() < 20


def test_a_leaders_snapshot_takes_the_place_of_the_whole_log() -> None:
    disk = SimDisk()
    log = log_with(disk, 30)
    keep(log, 10)
    snapshot = write_snapshot(log, History.metadata(25, 4))
    log.save(persist(entry(26, 4), snapshot=snapshot, hard_state=HardState(current_term=4)))
    assert log.snapshots.names() == ["snapshot-25-4"]
    assert len(disk.list("raft/wal")) <= 3
    for again in (log, reopen(disk)):
        assert (again.first_index(), again.last_index()) == (26, 26)
        assert (again.snapshot(), again.term(25)) == (snapshot, 4)
        assert again.hard_state() == HardState(current_term=4)
        with again.snapshots.open("snapshot-25-4") as reader:
            assert list(reader.pieces()) == snapshot_pieces(snapshot.metadata)


def test_compaction_drops_entries_segments_and_the_older_snapshots() -> None:
    disk = SimDisk()
    log = log_with(disk, 60)
    keep(log, 20)
    metadata = keep(log, 40)
    assert log.snapshots.names() == ["snapshot-20-1", "snapshot-40-1"]
    segments = len(disk.list("raft/wal"))
    log.complete(log.begin_compact(35))
    assert log.first_index() == 36
    assert log.snapshots.names() == ["snapshot-40-1"]
    assert len(disk.list("raft/wal")) < segments
    assert reopen(disk).snapshot_metadata() == metadata


def test_a_snapshot_without_a_record_is_removed_at_the_next_start() -> None:
    disk = SimDisk()
    log = log_with(disk, 5)
    write_snapshot(log, History.metadata(4, 1))
    log = reopen(disk)
    assert log.snapshots.names() == []
    assert log.snapshot_metadata().last_included_index == 0


@pytest.mark.parametrize("fault", ["damaged", "missing", "renamed over"])
def test_a_bad_snapshot_is_replaced_by_an_older_one_only_if_the_log_covers_what_is_between(
    fault,
) -> None:
    def spoil(disk, newest: str, older: str) -> None:
        if fault == "damaged":
            damage(disk, newest)
        elif fault == "missing":
            disk.remove(newest)
        else:
            disk.rename(older, newest)

    for compacted in (False, True):
        disk = SimDisk()
        log = log_with(disk, 60)
        keep(log, 20)
        newest = keep(log, 40)
        write_snapshot(log, History.metadata(30, 1))
        if compacted:
            log.complete(log.begin_compact(39))
            write_snapshot(log, History.metadata(30, 1))
        log.close()
        spoil(disk, "raft/snapshots/snapshot-40-1", "raft/snapshots/snapshot-30-1")
        if compacted:
            with pytest.raises(CorruptLog, match=r"snapshots/snapshot-40-1.*remove this member"):
                reopen(disk)
            continue
        for log in (reopen(disk), reopen(disk)):
            assert log.snapshot_metadata().last_included_index == 20
            assert (log.first_index(), log.last_index()) == (1, 60)
        assert keep(log, 40) == newest
        assert reopen(disk).snapshot_metadata() == newest


def test_without_any_good_snapshot_a_log_that_is_whole_from_its_first_entry_is_enough() -> None:
    disk = SimDisk()
    log = log_with(disk, 30)
    keep(log, 20)
    damage(disk, "raft/snapshots/snapshot-20-1")
    again = reopen(disk)
    assert again.snapshot_metadata() == SnapshotMetadata(configuration=FOUNDING)
    assert (again.first_index(), again.last_index()) == (1, 30)


def full_disk(settings: LogSettings) -> tuple[SimDisk, DurableLog]:
    """A disk without space, and a log that has used up what it had preallocated."""
    disk = SimDisk(capacity_bytes=settings.segment_bytes * 5 // 2)
    log = found(disk, settings)
    while True:
        save = log.begin_save(persist(entry(log.last_index() + 1, 1, b"x" * 50)))
        try:
            save.run()
        except NoSpace:
            return disk, log
        log.finish_save(save)


def test_a_full_disk_refuses_a_save_changes_nothing_and_takes_it_when_there_is_space() -> None:
    disk, log = full_disk(SMALL)
    save, last = log._outstanding, log.last_index()
    assert save is not None
    assert last > 10
    for _ in range(3):
        with pytest.raises(NoSpace):
            save.run()
    assert log.last_index() == last
    disk.resize(1 << 20)
    save.run()
    log.finish_save(save)
    disk.crash()
    assert reopen(disk).last_index() == last + 1


def test_a_start_on_a_full_disk_works() -> None:
    disk, log = full_disk(SMALL)
    disk.crash()
    assert reopen(disk).last_index() == log.last_index()


def test_what_the_room_promises_fits_and_it_ends_before_the_disk_does() -> None:
    settings = LogSettings(segment_bytes=8192)
    for size in (0, 100, 700):
        disk = SimDisk(capacity_bytes=20_000)
        log = found(disk, settings)
        assert log.room_bytes > settings.segment_bytes // 2
        disk.resize(0)
        while True:
            new = entry(log.last_index() + 1, 1, b"x" * size)
            if new.size_bytes + 256 > log.room_bytes:
                break
            log.save(
                persist(new, hard_state=HardState(current_term=1 << 40, voted_for=NodeId("a" * 64)))
            )
        assert log.last_index() * (size + 100) > settings.segment_bytes  # both are used


def test_a_write_takes_no_more_than_its_bytes_and_a_fixed_overhead() -> None:
    log = found(SimDisk(), LogSettings(segment_bytes=1 << 24))
    for count, size in ((1, 0), (1, 70_000), (100, 0), (100, 255), (3, 3_000_000)):
        before = log.room_bytes
        new = [entry(log.last_index() + 1 + at, 1 << 40, bytes(size)) for at in range(count)]
        log.save(
            persist(*new, hard_state=HardState(current_term=1 << 40, voted_for=NodeId("a" * 32)))
        )
        log.complete(log.begin_room() or log.begin_save(persist()))
        used = before - log.room_bytes
        assert used <= 256 + sum(one.size_bytes for one in new)


def test_room_is_asked_for_again_when_the_disk_has_space() -> None:
    disk = SimDisk(capacity_bytes=SMALL.segment_bytes * 3 // 2)
    log = found(disk)
    assert not log.has_room_ahead
    save = log.begin_room()
    assert save is not None
    log.complete(save)
    assert not log.has_room_ahead
    room_bytes = log.room_bytes
    disk.resize(1 << 20)
    save = log.begin_room()
    assert save is not None
    log.complete(save)
    assert log.has_room_ahead
    assert log.room_bytes >= room_bytes
    assert log.begin_room() is None


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_broken_disk_raises_its_error_as_it_came_and_takes_nothing_more(operation) -> None:
    disk = SimDisk()
    log = log_with(disk, 2)
    save = log.begin_save(persist(entry(3)))
    disk.fail(operation, errno.EIO)
    with pytest.raises(OSError, match="Input/output") as caught:
        save.run()
    assert not isinstance(caught.value, NoSpace)
    assert log.last_index() == 2
    with pytest.raises(OSError, match="failed before"):  # a second sync might succeed wrongly
        save.run()


def test_a_disk_that_cannot_even_be_cut_back_fails_for_good() -> None:
    disk = SimDisk()
    log = log_with(disk, 2)
    save = log.begin_save(persist(entry(3)))
    disk.fail("sync", errno.ENOSPC, times=2)
    with pytest.raises(OSError, match="cannot be cut back") as caught:
        save.run()
    assert not isinstance(caught.value, NoSpace)


def test_what_a_start_has_read_is_durable_before_it_is_built_on() -> None:
    disk = SimDisk()
    log = log_with(disk, 2)
    disk.before_change = _stop_syncs
    with pytest.raises(InterruptedError):
        log.save(persist(entry(3)))
    disk.before_change = None
    disk.kill()  # the process died, the machine did not
    assert reopen(disk).last_index() == 3
    disk.crash()
    assert reopen(disk).last_index() == 3


def test_a_segment_whose_name_a_start_has_read_is_durable_before_it_is_built_on() -> None:
    disk = SimDisk()
    log = found(disk)

    def stop(operation: str, path: str) -> None:
        if (operation, path) == ("sync", "raft/wal"):
            raise InterruptedError

    def save_for_ever() -> None:
        while True:
            log.save(persist(entry(log.last_index() + 1)))

    disk.before_change = stop
    with pytest.raises(InterruptedError):
        save_for_ever()
    disk.before_change = None
    disk.kill()
    last = reopen(disk).last_index()
    assert last == log.last_index() + 1
    disk.crash()
    assert reopen(disk).last_index() == last


def _stop_syncs(operation: str, path: str) -> None:
    if operation == "sync":
        raise InterruptedError


def test_a_torn_tail_is_dropped_and_what_is_written_in_its_place_stays() -> None:
    disk = SimDisk()
    log = log_with(disk, 3, LARGE)
    disk.before_change = _stop_syncs
    with pytest.raises(InterruptedError):
        log.save(persist(*(entry(index, 1, b"y" * 400) for index in range(4, 9))))
    disk.before_change = None
    disk.crash(torn_bytes=1000)
    again = reopen(disk, LARGE)
    assert again.last_index() == 3
    again.save(persist(entry(4, 2)))
    disk.crash()
    assert (reopen(disk, LARGE).last_index(), reopen(disk, LARGE).term(4)) == (4, 2)
