"""What can happen to the directory of a master that does not run, done on purpose."""

import os
import shutil
from pathlib import Path

from minigfs.ids import Origin, SessionId
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.raft import Entry, Persist, PersistToken, Snapshot, SnapshotMetadata
from minigfs.replication.commands import LoggedCommand, encode_logged_command
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.founding import load_member
from minigfs.replication.machines import ReplicatedMachines

__all__ = [
    "copy_of",
    "flip",
    "keep_snapshot",
    "leave_cut_append",
    "nearly_fill_segment",
    "newest_segment",
    "open_log",
    "written_bytes",
]

SECTOR_BYTES = 512


def open_log(directory: Path) -> DurableLog:
    loaded = load_member(directory)
    assert loaded is not None, f"{directory} holds no member"
    return loaded[0]


def newest_segment(directory: Path) -> Path:
    return max((directory / "wal").glob("*.wal"))


def written_bytes(segment: Path) -> int:
    """Where the zeros of the space that is preallocated begin."""
    return len(segment.read_bytes().rstrip(b"\0"))


def flip(path: Path, offset: int) -> None:
    """One bit of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def copy_of(directory: Path, name: str) -> Path:
    """A copy beside it, made while nobody writes."""
    copy = directory.with_name(name)
    shutil.copytree(directory, copy)
    return copy


def leave_cut_append(directory: Path) -> int:
    """As a power cut in the middle of a write would: the first sectors of an append, but not all.

    Returns the offset where it begins.
    """
    copy = copy_of(directory, f"{directory.name}.appended")
    segment = newest_segment(directory)
    begin = written_bytes(segment)
    log = open_log(copy)
    origin = Origin(SessionId(1), 1, 1)
    command = LoggedCommand(FILE_SYSTEM_MACHINE, 1, bytes(range(1, 256)) * 16, origin)
    index, term = log.last_index() + 1, log.term(log.last_index())
    entry = Entry(index=index, term=term, data=encode_logged_command(command))
    log.save(Persist(token=PersistToken(0), snapshot=None, hard_state=None, entries=(entry,)))
    log.close()
    whole = newest_segment(copy).read_bytes()
    end = (begin // SECTOR_BYTES + 4) * SECTOR_BYTES
    with segment.open("r+b") as file:
        file.seek(begin)
        file.write(whole[begin:end])
    shutil.rmtree(copy)
    return begin


def keep_snapshot(directory: Path, *, is_all: bool) -> Path:
    """Make a snapshot of what the log says, all of which must be committed; its file.

    ``is_all``: as if it had come from the leader, so that the log begins behind it. Else as the
    member does by itself, and the entries that lead up to it are still there.
    """
    log = open_log(directory)
    assert log.first_index() == 1, "there is a snapshot already"
    machines = ReplicatedMachines({FILE_SYSTEM_MACHINE: FileSystemMachine()})
    last = log.last_index()
    for entry in log.entries(1, last, 1 << 40):
        machines.apply(entry)
    metadata = SnapshotMetadata(
        last_included_index=last,
        last_included_term=log.term(last),
        configuration=log.snapshot_metadata().configuration,
    )
    writer = log.snapshots.create(metadata)
    for piece in machines.freeze():
        writer.write(piece)
    writer.finish()
    name = log.snapshots.name_of(metadata)
    if is_all:
        snapshot = Snapshot(metadata=metadata, data=name.encode())
        log.save(Persist(token=PersistToken(0), snapshot=snapshot, hard_state=None, entries=()))
    else:
        log.complete(log.begin_keep(metadata))
    log.close()
    return directory / "snapshots" / name


def nearly_fill_segment(directory: Path, *, left_bytes: int) -> None:
    """Leave so much of the segment that is written to, as if all else had been used; and give back
    the space that is kept for the next one."""
    segment = newest_segment(directory)
    end = written_bytes(segment) + left_bytes
    os.truncate(segment, end)
    with segment.open("r+b") as file:  # it may have been shorter
        os.posix_fallocate(file.fileno(), 0, end)
    (directory / "wal" / "spare.tmp").unlink(missing_ok=True)
