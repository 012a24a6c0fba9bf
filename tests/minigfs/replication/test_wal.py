"""What was synced is there after any crash, and damage is never taken for a crash."""

import errno
import random

import pytest

from minigfs.errors import CorruptLog, NoSpace
from minigfs.ports import RealDisk
from minigfs.replication.wal import LOG_FILE_NAME, PREALLOCATED_BYTES, Record, WriteAheadLog
from tests.minigfs.replication.observed_disk import ObservedDisk


def open_log(disk) -> tuple[WriteAheadLog, list[Record]]:
    wal = WriteAheadLog(disk, "wal")
    return wal, list(wal.read_all())


def append(wal: WriteAheadLog, *batches: list[Record]) -> None:
    for batch in batches:
        wal.append(batch)
        wal.sync()


def records(first: int, count: int, payload_bytes: int = 20) -> list[Record]:
    return [Record(1, i, bytes([1 + i % 255]) * payload_bytes) for i in range(first, first + count)]


class LogFile:
    """The file of a log with some acknowledged batches and one last append."""

    def __init__(self, root, *batches: list[Record]) -> None:
        self.root = root
        self.path = root / "wal" / LOG_FILE_NAME
        wal, _ = open_log(RealDisk(root))
        append(wal, *batches[:-1])
        self.durable_end = wal._end
        append(wal, batches[-1])
        self.end = wal._end
        wal.close()
        self.whole = self.path.read_bytes()[: self.end]

    def read_after(self, content: bytes, *, use: bool = True) -> list[Record]:
        """The records found if the file has this content; the log can then be used once more."""
        self.path.write_bytes(content)
        wal, found = open_log(RealDisk(self.root))
        if not use:
            wal.close()
            return found
        more = Record(2, 999, b"after")
        append(wal, [more])
        wal.close()
        wal, again = open_log(RealDisk(self.root))
        wal.close()
        assert again == [*found, more]
        return found


def test_records_read_back_in_order_over_many_opens(tmp_path) -> None:
    expected = []
    for i, size in enumerate([0, 1, 7, 8, 9, 1000, 5_000_000, 3]):
        wal, found = open_log(RealDisk(tmp_path))
        assert found == expected
        expected.append(Record(i, i + 1, bytes([i + 1]) * size))
        append(wal, expected[-1:])
        wal.close()


def test_an_empty_directory_is_an_empty_log(tmp_path) -> None:
    assert open_log(RealDisk(tmp_path))[1] == []


@pytest.mark.parametrize("preallocated", [True, False])
def test_a_crash_at_every_byte_of_the_last_append_keeps_all_that_was_acknowledged(
    tmp_path, preallocated
) -> None:
    acknowledged = [records(1, 2), records(3, 1)]
    last = records(4, 3, 5)
    log = LogFile(tmp_path, *acknowledged, last)
    zeros = bytes(4096) if preallocated else b""
    for cut in range(log.durable_end, log.end):
        found = log.read_after(log.whole[:cut] + zeros, use=cut % 8 == 3)
        assert found[:3] == [r for batch in acknowledged for r in batch]
        assert found[3:] == last[: len(found) - 3]
        assert len(found) < 6


def test_a_crash_that_wrote_any_sectors_of_the_last_append_keeps_all_that_was_acknowledged(
    tmp_path,
) -> None:
    acknowledged = [records(1, 3, 400)]
    last = records(4, 5, 700)
    log = LogFile(tmp_path, *acknowledged, last)
    chance = random.Random(7)
    for number in range(150):
        content = bytearray(log.whole + bytes(4096))
        for start in range(0, log.end, 512):
            if chance.random() < 0.4:
                low, high = max(start, log.durable_end), min(start + 512, log.end)
                content[low:high] = bytes(max(high - low, 0))
        found = log.read_after(bytes(content), use=number % 10 == 0)
        assert found[:3] == [r for batch in acknowledged for r in batch]
        assert found[3:] == last[: len(found) - 3]


def test_a_flipped_bit_of_any_acknowledged_record_stops_the_start_and_changes_nothing(
    tmp_path,
) -> None:
    batches = [records(i, 1) for i in range(1, 5)]
    log = LogFile(tmp_path, *batches)
    for position in range(log.end):
        content = bytearray(log.whole + bytes(4096))
        content[position] ^= 1 << (position % 7)
        log.path.write_bytes(content)
        with pytest.raises(CorruptLog, match=rf"wal/{LOG_FILE_NAME}.* offset \d+"):
            open_log(RealDisk(tmp_path))
        assert log.path.read_bytes() == content


def test_acknowledged_sectors_that_became_zeros_stop_the_start(tmp_path) -> None:
    log = LogFile(tmp_path, *[records(i, 1, 400) for i in range(1, 12)])
    for start in range(0, log.durable_end - 512, 512):
        content = bytearray(log.whole)
        content[start : start + 512] = bytes(512)
        log.path.write_bytes(content)
        with pytest.raises(CorruptLog):
            open_log(RealDisk(tmp_path))


def test_a_record_moved_or_repeated_within_the_log_is_damage(tmp_path) -> None:
    log = LogFile(tmp_path, *[records(i, 1) for i in range(1, 5)])
    size = log.end // 4
    parts = [log.whole[i * size : (i + 1) * size] for i in range(4)]
    for order in ([0, 2, 1, 3], [0, 1, 1, 2, 3], [0, 2, 3], [1, 2, 3]):
        log.path.write_bytes(b"".join(parts[i] for i in order))
        with pytest.raises(CorruptLog):
            open_log(RealDisk(tmp_path))


def test_bytes_that_never_were_a_record_are_dropped_after_one_and_refused_as_a_whole_file(
    tmp_path,
) -> None:
    log = LogFile(tmp_path, records(1, 2), records(3, 1))
    assert log.read_after(log.whole + b"garbage! " * 20) == records(1, 3)
    log.path.write_bytes(b"something else altogether" * 10)
    with pytest.raises(CorruptLog):
        open_log(RealDisk(tmp_path))


def test_a_full_disk_refuses_an_append_and_leaves_the_log_as_it_was(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    wal, _ = open_log(disk)
    append(wal, records(1, 1))
    disk.space_bytes = PREALLOCATED_BYTES
    for _ in range(2):
        with pytest.raises(NoSpace):
            wal.append(records(2, 1, PREALLOCATED_BYTES))
    append(wal, records(2, 1))
    disk.space_bytes = None
    append(wal, records(3, 1, PREALLOCATED_BYTES))
    wal.close()
    assert [r.log_index for r in open_log(RealDisk(tmp_path))[1]] == [1, 2, 3]


def test_a_nearly_full_disk_is_used_to_its_last_pages(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    disk.space_bytes = 8192
    wal, _ = open_log(disk)
    append(wal, records(1, 1, 7000))
    with pytest.raises(NoSpace):
        wal.append(records(2, 1, 7000))
    wal.close()
    assert open_log(RealDisk(tmp_path))[1] == records(1, 1, 7000)


def test_what_a_full_disk_refused_half_written_never_comes_back(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    wal, _ = open_log(disk)
    append(wal, records(1, 1))
    disk.space_bytes = wal._end * 5 // 2  # room for one more record and a half
    with pytest.raises(NoSpace):
        wal.append(records(2, 2))
    assert open_log(RealDisk(tmp_path))[1] == records(1, 1)


def test_what_a_full_disk_refused_at_the_sync_never_comes_back(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    wal, _ = open_log(disk)
    append(wal, records(1, 1))
    wal.append(records(2, 2))
    disk.sync_error = errno.ENOSPC
    with pytest.raises(NoSpace):
        wal.sync()
    crashed = (tmp_path / "wal" / LOG_FILE_NAME).read_bytes()
    append(wal, records(2, 1, 50))
    wal.close()
    assert open_log(RealDisk(tmp_path))[1] == records(1, 1) + records(2, 1, 50)
    (tmp_path / "wal" / LOG_FILE_NAME).write_bytes(crashed)
    assert open_log(RealDisk(tmp_path))[1] == records(1, 1)


def test_an_unwritable_disk_raises_its_error_as_it_came(tmp_path) -> None:
    disk = ObservedDisk(tmp_path)
    wal, _ = open_log(disk)
    wal.append(records(1, 1))
    disk.sync_error = errno.EIO
    with pytest.raises(OSError, match="the disk failed") as caught:
        wal.sync()
    assert not isinstance(caught.value, NoSpace)
