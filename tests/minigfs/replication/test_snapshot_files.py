"""A snapshot file is whole and right, or it is not there; a transfer goes on where it broke."""

import errno
import itertools

import pytest

from minigfs.errors import CorruptSnapshot, FileMissing, NoSpace, ProtocolError
from minigfs.ports import RealDisk
from minigfs.replication.snapshot_files import SnapshotFiles
from tests.minigfs.replication.log_histories import History
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk

METADATA = History.metadata(12, 3)
NAME = "snapshot-12-3"
PIECES = [b"first" * 40, b"", b"last" * 70]


def files_on(disk) -> SnapshotFiles:
    disk.make_dirs("s")
    disk.sync_dir("")
    return SnapshotFiles(disk, "s")


def write(files: SnapshotFiles, metadata=METADATA, pieces=PIECES) -> bytes:
    writer = files.create(metadata)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    with files.open(files.name_of(metadata)) as reader:
        return reader.read_at(0, reader.size_bytes)


@pytest.fixture(params=["real", "simulated"])
def disk(request, tmp_path):
    return RealDisk(tmp_path) if request.param == "real" else SimDisk()


def test_pieces_read_back_as_they_were_written(disk) -> None:
    files = files_on(disk)
    write(files)
    assert files.names() == [NAME]
    with files.open(NAME) as reader:
        assert reader.metadata == METADATA
        assert list(reader.pieces()) == list(reader.pieces()) == PIECES
        assert len(reader.read_at(0, 1 << 20)) == reader.size_bytes == disk.size_bytes(f"s/{NAME}")


def test_names_are_in_the_order_of_their_index() -> None:
    files = files_on(SimDisk())
    for index in (100, 9, 20):
        write(files, History.metadata(index, 1))
    assert files.names() == ["snapshot-9-1", "snapshot-20-1", "snapshot-100-1"]


def test_an_unfinished_snapshot_is_not_there_and_a_finished_one_survives_a_crash() -> None:
    disk = SimDisk()
    files = files_on(disk)
    writer = files.create(METADATA)
    writer.write(b"piece")
    assert files.names() == []
    writer.finish()
    disk.crash()
    assert files.verify(NAME) == METADATA


def test_an_abandoned_snapshot_leaves_nothing(disk) -> None:
    files = files_on(disk)
    writer = files.create(METADATA)
    writer.write(b"piece")
    writer.abandon()
    assert disk.list("s") == []


def test_any_damaged_byte_of_a_snapshot_is_found(disk) -> None:
    files = files_on(disk)
    whole = write(files)
    with disk.open(f"s/{NAME}") as file:
        for offset, byte in enumerate(whole):
            file.write_at(offset, bytes([byte ^ (1 << offset % 8)]))
            with pytest.raises(CorruptSnapshot, match=rf"s/{NAME}.* offset \d+"):
                files.verify(NAME)
            file.write_at(offset, bytes([byte]))
        for length in range(len(whole)):
            file.truncate(length)
            with pytest.raises(CorruptSnapshot):
                files.verify(NAME)
            file.write_at(0, whole)
        file.write_at(len(whole), b"\0")
        with pytest.raises(CorruptSnapshot):
            files.verify(NAME)


def test_a_renamed_or_missing_snapshot_is_told_by_name(disk) -> None:
    files = files_on(disk)
    write(files)
    disk.rename(f"s/{NAME}", "s/snapshot-13-3")
    with pytest.raises(CorruptSnapshot, match="snapshot-12-3"):
        files.open("snapshot-13-3")
    with pytest.raises(FileMissing, match=NAME):
        files.open(NAME)


@pytest.mark.parametrize("name", ["../wal/x", "snapshot-1", "snapshot-1-2.tmp", "", "snapshot-1-x"])
def test_a_name_from_a_peer_never_becomes_another_path(name) -> None:
    files = files_on(SimDisk())
    for use in (files.open, files.remove, files.has, lambda name: files.receive(name, 10)):
        with pytest.raises(ProtocolError):
            use(name)


def received(files: SnapshotFiles, whole: bytes, start: int = 0, piece_bytes: int = 50):
    receiver = files.receive(NAME, len(whole))
    for offset in range(start, len(whole), piece_bytes):
        receiver.write(offset, whole[offset : offset + piece_bytes])
    return receiver


def test_a_received_snapshot_is_the_senders_and_counts_from_finish_on(disk) -> None:
    whole = write(files_on(SimDisk()))
    files = files_on(disk)
    receiver = received(files, whole)
    assert not files.has(NAME)
    assert receiver.finish() == METADATA
    assert disk.list("s") == [NAME]
    with files.open(NAME) as reader:
        assert reader.read_at(0, 1 << 20) == whole


def test_pieces_may_come_twice_but_not_with_a_gap_or_beyond_the_end() -> None:
    whole = write(files_on(SimDisk()))
    files = files_on(SimDisk())
    receiver = files.receive(NAME, len(whole))
    receiver.write(0, whole[:100])
    receiver.write(50, whole[50:150])
    receiver.write(0, b"other bytes for what is there already"[:30])
    assert receiver.received_bytes == 150
    with pytest.raises(ProtocolError, match="151"):
        receiver.write(151, b"x")
    with pytest.raises(ProtocolError):
        receiver.write(150, bytes(len(whole)))
    receiver.write(150, whole[150:])
    assert receiver.finish() == METADATA


def test_a_transfer_goes_on_after_a_crash_from_what_is_sure(disk) -> None:
    whole = write(files_on(SimDisk()))
    files = files_on(disk)
    received(files, whole[:-60]).close()
    part = files.receive(NAME, len(whole))
    assert part.received_bytes == 0  # of another size: not the same file
    part.write(0, whole[:-60])
    part.close()
    assert len(disk.list("s")) == 1
    again = files.receive(NAME, len(whole))
    assert len(whole) // 3 < again.received_bytes <= len(whole) - 60
    again.write(again.received_bytes, whole[again.received_bytes :])
    assert again.finish() == METADATA


def test_a_transfer_that_a_crash_tore_anywhere_ends_well() -> None:
    whole = write(files_on(SimDisk()))
    for seed, kept in itertools.product(range(20), (80, 300, len(whole))):
        disk = SimDisk()
        files = files_on(disk)
        received(files, whole[:kept])
        disk.sync_dir("s")
        disk.crash_by_chance(SimRng(seed))
        files.remove_leftovers(set(), 11)
        receiver = files.receive(NAME, len(whole))
        assert receiver.received_bytes <= kept
        receiver.write(receiver.received_bytes, whole[receiver.received_bytes :])
        assert receiver.finish() == METADATA
        disk.crash()
        assert files.verify(NAME) == METADATA


def test_a_transfer_that_does_not_verify_starts_from_nothing(disk) -> None:
    whole = write(files_on(SimDisk()))
    files = files_on(disk)
    wrong = bytearray(whole)
    wrong[len(whole) // 2] ^= 1
    receiver = received(files, bytes(wrong))
    with pytest.raises(CorruptSnapshot):
        receiver.finish()
    assert receiver.received_bytes == 0
    receiver.write(0, whole)
    assert receiver.finish() == METADATA


def test_a_transfer_of_a_different_snapshot_under_that_name_is_refused() -> None:
    other = write(files_on(SimDisk()), History.metadata(13, 3))
    receiver = received(files_on(SimDisk()), other)
    with pytest.raises(CorruptSnapshot, match="snapshot-13-3"):
        receiver.finish()


def test_a_disk_that_is_full_at_the_end_of_a_transfer_keeps_nothing_of_it() -> None:
    whole = write(files_on(SimDisk()))
    disk = SimDisk()
    receiver = received(files_on(disk), whole)
    disk.fail("sync", errno.ENOSPC)
    with pytest.raises(NoSpace):
        receiver.finish()
    assert receiver.received_bytes == 0


def test_leftovers_go_and_strangers_files_stay() -> None:
    disk = SimDisk()
    files = files_on(disk)
    for index in (5, 12, 20):
        write(files, History.metadata(index, 3))
    files.create(History.metadata(30, 3))
    files.receive("snapshot-11-3", 10)
    files.receive("snapshot-40-3", 10)
    disk.open("s/notes", create=True).close()
    files.remove_leftovers({NAME}, 12)
    assert disk.list("s") == ["notes", NAME, "snapshot-40-3-10.part"]
