"""Snapshots as files: whole, synced and under their name, or not there at all (section 7).

A file is a row of the records of ``wal_format``, chained: META (index, term, configuration), then
one PIECE for each piece of the machine's state, then END with their number. It is written under
another name, synced, renamed, and the directory is synced. What a peer sends is stored under a name
of its own until it is whole and verifies; what has arrived of it survives a restart as far as its
sums are right, so a transfer goes on where it was.

Whether a snapshot *counts* is not decided here: the log must say so (``durable_log``).
"""

import re
from collections.abc import Iterator

import msgspec

from minigfs.closing import ClosedOnExit
from minigfs.errors import CorruptSnapshot, FileMissing, NoSpace, ProtocolError
from minigfs.ports import Disk, DiskFile
from minigfs.raft import SnapshotMetadata
from minigfs.replication.log_records import decode_metadata, encode_metadata
from minigfs.replication.wal_format import (
    FIRST_CHAIN,
    HEADER_BYTES,
    Fault,
    Record,
    decode_record,
    encode_record,
    expected_bytes,
)

__all__ = ["SnapshotFiles", "SnapshotReader", "SnapshotReceiver", "SnapshotWriter", "snapshot_name"]

META, PIECE, END = 1, 2, 3

_NAME = re.compile(r"snapshot-(\d{1,20})-(\d{1,20})")
_TEMP_NAME = re.compile(r"snapshot-\d{1,20}-\d{1,20}\.tmp")
_PART_NAME = re.compile(r"(snapshot-\d{1,20}-\d{1,20})-(\d{1,20})\.part")


def snapshot_name(metadata: SnapshotMetadata) -> str:
    return f"snapshot-{metadata.last_included_index}-{metadata.last_included_term}"


class SnapshotFiles:
    """The snapshot files in one directory; the directory is there."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory

    @staticmethod
    def name_of(metadata: SnapshotMetadata) -> str:
        """``snapshot-<index>-<term>``: what Raft knows the data by."""
        return snapshot_name(metadata)

    def names(self) -> list[str]:
        """Of the finished ones, by index."""
        found = [name for name in self._disk.list(self._directory) if _NAME.fullmatch(name)]
        return sorted(found, key=_position)

    def has(self, name: str) -> bool:
        return self._disk.exists(self._path(name))

    def create(self, metadata: SnapshotMetadata) -> "SnapshotWriter":
        """Write a snapshot of the own machine. One of the same name is replaced at the end."""
        return SnapshotWriter(self._disk, self._directory, metadata)

    def open(self, name: str) -> "SnapshotReader":
        """Raises ``FileMissing`` if it is gone, ``CorruptSnapshot`` if its first record is bad."""
        path = self._path(name)
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            raise FileMissing(
                f"{path}: there is no such snapshot; a newer one replaced it?"
            ) from None
        try:
            return SnapshotReader(file, path, name)
        except BaseException:
            file.close()
            raise

    def verify(self, name: str) -> SnapshotMetadata:
        """Read all of it. Raises what ``open`` and ``pieces`` raise."""
        with self.open(name) as reader:
            for _ in reader.pieces():
                pass
            return reader.metadata

    def receive(self, name: str, size_bytes: int) -> "SnapshotReceiver":
        """Take in a peer's file of that name and size, from where an earlier transfer ended."""
        self._path(name)
        part_name = f"{name}-{size_bytes}.part"
        for other in self._disk.list(self._directory):
            match = _PART_NAME.fullmatch(other)
            if match and match[1] == name and other != part_name:
                self._disk.remove(f"{self._directory}/{other}")
        return SnapshotReceiver(self._disk, self._directory, part_name, name, size_bytes)

    def remove(self, name: str) -> None:
        """Gone, if it was there; a reader that has it open can go on."""
        path = self._path(name)
        if self._disk.exists(path):
            self._disk.remove(path)
            self._disk.sync_dir(self._directory)

    def remove_leftovers(self, keep: set[str], newest_index: int) -> None:
        """At start: remove all but those snapshots, and transfers of something newer."""
        for name in self._disk.list(self._directory):
            if part := _PART_NAME.fullmatch(name):
                is_useless = _position(part[1])[0] <= newest_index
            else:
                is_finished = _NAME.fullmatch(name) and name not in keep
                is_useless = bool(is_finished or _TEMP_NAME.fullmatch(name))
            if is_useless:
                self._disk.remove(f"{self._directory}/{name}")

    def remove_older(self, index: int) -> None:
        """Remove finished snapshots of entries before ``index``."""
        for name in self.names():
            if _position(name)[0] < index:
                self.remove(name)

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ProtocolError(f"{name!r} is no name of a snapshot")
        return f"{self._directory}/{name}"


def _position(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2])


class SnapshotWriter:
    """A file that comes into being with ``finish``. ``NoSpace`` anywhere: call ``abandon``."""

    def __init__(self, disk: Disk, directory: str, metadata: SnapshotMetadata) -> None:
        self._disk = disk
        self._directory = directory
        self._path = f"{directory}/{snapshot_name(metadata)}"
        self._temp_path = f"{self._path}.tmp"
        self._file = disk.open(self._temp_path, create=True)
        self._file.truncate(0)
        self._end = 0
        self._chain = FIRST_CHAIN
        self._piece_count = 0
        self._put(Record(META, 0, encode_metadata(metadata)))

    def write(self, piece: bytes) -> None:
        """Add a piece (at most 64 MiB); ``SnapshotReader.pieces`` gives it back as one."""
        self._piece_count += 1
        self._put(Record(PIECE, self._piece_count, piece))

    def finish(self) -> None:
        """The snapshot is durable under its name when this returns."""
        self._put(Record(END, self._piece_count, b""))
        self._file.sync()
        self._file.close()
        self._disk.rename(self._temp_path, self._path)
        self._disk.sync_dir(self._directory)

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.close()
        if self._disk.exists(self._temp_path):
            self._disk.remove(self._temp_path)

    def _put(self, record: Record) -> None:
        data, chain = encode_record(record, 0, self._chain)
        self._file.write_at(self._end, data)
        self._end += len(data)
        self._chain = chain


class SnapshotReader(ClosedOnExit):
    """One open snapshot file."""

    def __init__(self, file: DiskFile, path: str, name: str) -> None:
        self._file = file
        self._path = path
        self.size_bytes = file.size_bytes()
        record, self._first_end, self._first_chain = self._read(0, FIRST_CHAIN)
        if record.type != META:
            raise self._damaged(0)
        try:
            self.metadata = decode_metadata(record.payload)
        except msgspec.MsgspecError as error:
            raise CorruptSnapshot(
                f"{path}: the record at offset 0 cannot be understood ({error}): did a newer "
                "release write it?"
            ) from error
        if snapshot_name(self.metadata) != name:
            raise CorruptSnapshot(
                f"{path}: by its record at offset 0 this is {snapshot_name(self.metadata)}: the "
                "file was renamed"
            )

    def read_at(self, offset: int, length: int) -> bytes:
        """The file's bytes as they are, to send; the receiver verifies them."""
        return self._file.read_at(offset, length)

    def pieces(self) -> Iterator[bytes]:
        """The pieces that were written; raises ``CorruptSnapshot`` if they are not all there."""
        at, chain, count = self._first_end, self._first_chain, 0
        while True:
            record, end, chain = self._read(at, chain)
            if record.type == END:
                break
            count += 1
            if record.type != PIECE or record.log_index != count:
                raise self._damaged(at)
            yield record.payload
            at = end
        if record.log_index != count or end != self.size_bytes:
            raise self._damaged(at)

    def verified_bytes(self) -> int:
        """How far, from the start, the records are as they were written."""
        at, chain = self._first_end, self._first_chain
        while True:
            try:
                _, at, chain = self._read(at, chain)
            except CorruptSnapshot:
                return at

    def close(self) -> None:
        self._file.close()

    def _read(self, at: int, chain: int) -> tuple[Record, int, int]:
        """The record at an offset, the offset of the next, and the record's chain."""
        length = expected_bytes(self._file.read_at(at, HEADER_BYTES))
        if isinstance(length, Fault) or at + length > self.size_bytes:
            raise self._damaged(at)
        decoded = decode_record(self._file.read_at(at, length), 0, chain)
        if isinstance(decoded, Fault):
            raise self._damaged(at)
        record, _, chain = decoded
        return record, at + length, chain

    def _damaged(self, at: int) -> CorruptSnapshot:
        return CorruptSnapshot(
            f"{self._path}: the record at offset {at} is damaged or missing; this snapshot cannot "
            "be used"
        )


class SnapshotReceiver:
    """A snapshot file that arrives in pieces; nothing of it counts before ``finish``."""

    def __init__(
        self, disk: Disk, directory: str, part_name: str, name: str, size_bytes: int
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._path = f"{directory}/{part_name}"
        self._target = f"{directory}/{name}"
        self._name = name
        self.size_bytes = size_bytes
        self._file = disk.open(self._path, create=True)
        self.received_bytes = self._resume()

    def _resume(self) -> int:
        """After a crash, bytes may be missing anywhere: only what verifies was received."""
        if self._file.size_bytes() == 0:
            return 0
        try:
            verified = SnapshotReader(self._file, self._path, self._name).verified_bytes()
        except CorruptSnapshot:
            verified = 0
        self._file.truncate(verified)
        return verified

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes of the file; those received before are skipped, a gap is refused."""
        if offset > self.received_bytes:
            raise ProtocolError(
                f"a piece of {self._name} begins at {offset}, but only {self.received_bytes} bytes "
                "are here"
            )
        end = offset + len(data)
        if end > self.size_bytes:
            raise ProtocolError(
                f"a piece of {self._name} ends at {end}, the whole has {self.size_bytes} bytes"
            )
        if end > self.received_bytes:
            new = data[self.received_bytes - offset :]
            self._file.write_at(self.received_bytes, new)
            self.received_bytes = end

    def finish(self) -> SnapshotMetadata:
        """Verify all of it, make it durable and give it its name.

        Raises ``CorruptSnapshot`` if it is not whole and right, ``NoSpace`` if the disk is full:
        then nothing of it is kept, because a second sync may wrongly succeed.
        """
        try:
            reader = SnapshotReader(self._file, self._path, self._name)
            for _ in reader.pieces():
                pass
            self._file.sync()
        except (CorruptSnapshot, NoSpace):
            self._file.truncate(0)
            self.received_bytes = 0
            raise
        self._file.close()
        self._disk.rename(self._path, self._target)
        self._disk.sync_dir(self._directory)
        return reader.metadata

    def close(self) -> None:
        """Leave off; ``SnapshotFiles.receive`` goes on from here."""
        self._file.close()
