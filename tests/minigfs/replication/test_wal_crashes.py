"""The log on a simulated disk that forgets, tears and fills, against a list of what is due."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.errors import NoSpace
from minigfs.replication.wal import Record, WriteAheadLog
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk

SMALL_DISK_BYTES = 128 * 1024  # the log goes page by page, and the test is quick


def open_log(disk: SimDisk) -> tuple[WriteAheadLog, list[Record]]:
    wal = WriteAheadLog(disk, "wal")
    return wal, list(wal.read_all())


def test_a_crash_at_every_byte_of_the_last_append_keeps_all_that_was_acknowledged() -> None:
    acknowledged = [Record(1, i, b"%d" % i * 20) for i in (1, 2)]
    last = [Record(1, i, b"%d" % i * 9) for i in (3, 4)]
    cut, survivor_counts = 0, []
    while not survivor_counts or survivor_counts[-1] < 4:
        disk = SimDisk(SMALL_DISK_BYTES)
        wal, _ = open_log(disk)
        wal.append(acknowledged)
        wal.sync()
        wal.append(last)
        disk.crash(torn_bytes=cut)
        wal, found = open_log(disk)
        assert found == (acknowledged + last)[: len(found)]
        survivor_counts.append(len(found))
        wal.append([Record(1, 9, b"after")])
        wal.sync()
        disk.crash()
        assert open_log(disk)[1] == [*found, Record(1, 9, b"after")]
        cut += 1
    assert sorted(survivor_counts) == survivor_counts
    assert set(survivor_counts) == {2, 3, 4}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 700), min_size=1, max_size=3)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 2**32)),
        st.tuples(st.just("too large"), st.just(0)),
        st.tuples(st.just("full sync"), st.just(0)),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=120)
@given(steps=steps)
def test_acknowledged_records_survive_any_crash_and_refused_ones_never_return(steps) -> None:
    disk = SimDisk(SMALL_DISK_BYTES)
    wal, _ = open_log(disk)
    durable: list[Record] = []
    written: list[Record] = []
    number = 0
    for step, argument in [*steps, ("crash", 1)]:
        if step == "append":
            batch = [Record(1, number + i, bytes([1 + i]) * n) for i, n in enumerate(argument)]
            number += len(batch)
            wal.append(batch)
            written += batch
        elif step == "sync":
            wal.sync()
            durable, written = durable + written, []
        elif step == "too large":
            with pytest.raises(NoSpace):
                wal.append([Record(2, 0, b"x" * SMALL_DISK_BYTES)])
        elif step == "full sync":
            disk.fail("sync", errno.ENOSPC)
            with pytest.raises(NoSpace):
                wal.sync()
            written = []
        else:
            disk.crash_by_chance(SimRng(argument))
            wal, found = open_log(disk)
            assert found[: len(durable)] == durable
            extra = found[len(durable) :]
            assert extra == written[: len(extra)]
            durable, written = found, []


def test_the_file_itself_survives_a_crash_right_after_the_first_sync() -> None:
    disk = SimDisk()
    wal, _ = open_log(disk)
    wal.append([Record(1, 1, b"first")])
    wal.sync()
    disk.crash()
    assert open_log(disk)[1] == [Record(1, 1, b"first")]


def test_what_a_start_has_read_is_durable_before_it_is_built_on() -> None:
    disk = SimDisk()
    wal, _ = open_log(disk)
    wal.append([Record(1, 1, b"never synced")])
    wal.close()  # the process died, the machine did not
    _, found = open_log(disk)
    assert found == [Record(1, 1, b"never synced")]
    disk.crash()
    assert open_log(disk)[1] == found


def test_a_disk_that_cannot_even_be_cut_back_fails_for_good() -> None:
    disk = SimDisk()
    wal, _ = open_log(disk)
    wal.append([Record(1, 1, b"x")])
    disk.fail("sync", errno.ENOSPC, times=2)
    with pytest.raises(OSError, match="cannot be cut back") as caught:
        wal.sync()
    assert not isinstance(caught.value, NoSpace)
