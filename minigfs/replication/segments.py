"""The write-ahead log as a row of files: what ``append`` returned from survives any crash.

::

    wal/0000000000000007.wal   HEAD record record ... SEAL 0 0 0
    wal/0000000000000008.wal   HEAD record record record 0 0 0 0 0 0      <- appended to
    wal/spare.tmp              0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0          <- space for the next

One append is one write and one sync, in one segment. If it does not fit into the rest of a segment
it opens the next: head and records are written into the spare file and synced, *then* the file gets
its name and the directory is synced, then the old segment is sealed. So a segment that has its name
is whole up to there, a head is never torn, and a segment that is sealed has a successor.

The checksums of all records are one chain (``wal_format``): a head is checked by itself and names
the chain of the segment before it. A segment that is missing, swapped, old or another member's does
not fit. Where segments end is decided by that chain; only the last one's end can be a torn tail.

A full disk refuses an append and changes nothing. Any other error of a write or a sync leaves it
unknown what the disk holds, and a second sync may wrongly succeed: it is raised as it came, the log
takes nothing more, and the process must end.
"""

import errno
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from minigfs.errors import CorruptLog, NoSpace
from minigfs.ports import Disk, DiskFile
from minigfs.raft import NodeId
from minigfs.replication.log_records import (
    HEAD,
    REPLACE,
    SEAL,
    Checkpoint,
    Head,
    decode_head,
    encode_head,
)
from minigfs.replication.wal_format import (
    FIRST_CHAIN,
    Fault,
    Record,
    Tail,
    decode_record,
    encode_record,
    judge_tail,
    record_bytes,
)

__all__ = ["WHAT_TO_DO", "LogSettings", "SegmentedLog", "segment_name", "segment_sequences"]

logger = logging.getLogger(__name__)

WHAT_TO_DO = (
    "nothing was changed. The other members have the data: move this directory away and run `up` "
    "again, or remove this member from the group (admin masters remove) and start one with an "
    "empty directory and --join"
)
SPARE_NAME = "spare.tmp"
_SEGMENT_NAME = re.compile(r"(\d{16})\.wal")
_SEAL_BYTES = record_bytes(0)
_HEAD_BYTES = 2048  # kept free for the head of the next segment; few are as long
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """``segment_bytes``: size of a segment; one that holds a larger record is larger."""

    segment_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _Segment:
    sequence: int
    path: str
    top_index: int = 0  # highest entry in it that no snapshot from the leader has made void
    end: int = 0  # where the next record goes
    chain: int = FIRST_CHAIN
    allocated: int = 0
    is_sealed: bool = False
    tail_is_torn: bool = False


def segment_name(sequence: int) -> str:
    return f"{sequence:016d}.wal"


def segment_sequences(disk: Disk, directory: str) -> list[int]:
    """Of the segments in a directory, in order; none if the directory is not there."""
    if not disk.exists(directory):
        return []
    matches = (_SEGMENT_NAME.fullmatch(name) for name in disk.list(directory))
    return sorted(int(match[1]) for match in matches if match)


class SegmentedLog:
    """``create`` one or ``open`` it, read it to its end once, ``start``, then append.

    For one caller at a time, in any thread.
    """

    def __init__(self, disk: Disk, directory: str, settings: LogSettings) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = settings.segment_bytes
        self._segments: list[_Segment] = []
        self._file: DiskFile | None = None
        self._spare: DiskFile | None = None
        self._spare_bytes = 0
        self._failure: OSError | None = None
        self.member_id = NodeId("")

    @classmethod
    def create(
        cls,
        disk: Disk,
        directory: str,
        *,
        member_id: NodeId,
        checkpoint: Checkpoint,
        settings: LogSettings,
    ) -> "SegmentedLog":
        """A log of one segment without records; the directory is there and holds no segment."""
        log = cls(disk, directory, settings)
        log.member_id = member_id
        log._open_segment((), checkpoint)
        log.make_room()
        return log

    # Reading.

    def read_all(self) -> Iterator[Head | Record]:
        """Each segment's head, then its records. Changes nothing.

        Raises ``CorruptLog`` where what was durable once does not read back.
        """
        assert not self._segments, "a log is read once"
        sequences = segment_sequences(self._disk, self._directory)
        for expected, sequence in enumerate(sequences, sequences[0]):
            path = f"{self._directory}/{segment_name(expected)}"
            if sequence != expected:
                raise CorruptLog(f"{path}: this segment of the log is missing; {WHAT_TO_DO}")
            is_last = sequence == sequences[-1]
            yield from self._read_segment(_Segment(sequence, path), is_last=is_last)

    def _read_segment(self, segment: _Segment, *, is_last: bool) -> Iterator[Head | Record]:
        with self._disk.open(segment.path) as file:
            content = file.read_at(0, file.size_bytes())
        segment.allocated = len(content)
        head = self._read_head(segment, content)
        durable_end = segment.end + head.batch_bytes
        self._segments.append(segment)
        yield head
        decoded = decode_record(content, segment.end, segment.chain)
        while not isinstance(decoded, Fault):
            record, end, chain = decoded
            if record.type == SEAL:
                segment.is_sealed = True
                break
            segment.end, segment.chain = end, chain
            self._note(record)
            yield record
            decoded = decode_record(content, end, chain)
        if is_last:
            self._judge_end(segment, content, durable_end)

    def _read_head(self, segment: _Segment, content: bytes) -> Head:
        """The head, once it is sure that it is whole and belongs behind the segment before."""
        decoded = decode_record(content, 0, FIRST_CHAIN)
        if isinstance(decoded, Fault) or decoded[0].type != HEAD:
            raise CorruptLog(
                f"{segment.path}: the head of this segment, at offset 0, is damaged; {WHAT_TO_DO}"
            )
        record, segment.end, segment.chain = decoded
        try:
            head = decode_head(record.payload)
        except msgspec.MsgspecError as error:
            raise CorruptLog(
                f"{segment.path}: the head at offset 0 cannot be understood ({error}): did a newer "
                "release write it?"
            ) from error
        if head.sequence != segment.sequence:
            raise CorruptLog(
                f"{segment.path}: by its head, at offset 0, this is segment {head.sequence}: the "
                f"file was renamed; {WHAT_TO_DO}"
            )
        if not self._segments:
            self.member_id = head.member_id
        elif head.member_id != self.member_id:
            raise CorruptLog(
                f"{segment.path}: by its head, at offset 0, this segment belongs to member "
                f"{head.member_id}, the others to {self.member_id}; {WHAT_TO_DO}"
            )
        elif head.chain_before != self._segments[-1].chain:
            before = self._segments[-1]
            raise CorruptLog(
                f"{before.path}: damaged at offset {before.end}: {segment.path} does not go on "
                f"where the records before that offset end; {WHAT_TO_DO}"
            )
        return head

    def _judge_end(self, segment: _Segment, content: bytes, durable_end: int) -> None:
        if segment.is_sealed:
            following = f"{self._directory}/{segment_name(segment.sequence + 1)}"
            raise CorruptLog(
                f"{following}: this segment of the log is missing: {segment.path} says at offset "
                f"{segment.end} that it goes on there; {WHAT_TO_DO}"
            )
        tail = judge_tail(content[segment.end :], segment.end)
        if tail is Tail.DAMAGED or segment.end < durable_end:
            raise CorruptLog(
                f"{segment.path}: the record at offset {segment.end} is damaged, and it may have "
                f"been acknowledged; {WHAT_TO_DO}"
            )
        segment.tail_is_torn = tail is Tail.TORN

    def start(self) -> None:
        """Make good what the last crash left, so that appending can go on: after ``read_all``."""
        self._drop_spare()
        segment = self._segments[-1]
        file = self._disk.open(segment.path)
        if segment.tail_is_torn:
            logger.warning("%s: dropped a cut append at offset %d", segment.path, segment.end)
            file.truncate(segment.end)
            segment.allocated = segment.end
        # What was read may never have been synced; records to come will say that it was.
        file.sync()
        self._disk.sync_dir(self._directory)
        self._file = file
        if len(self._segments) > 1 and not self._segments[-2].is_sealed:
            before = self._segments[-2]
            with self._disk.open(before.path) as unsealed:
                unsealed.truncate(before.end)
                self._seal(before, unsealed)
        self.make_room()

    # Writing.

    @property
    def room_bytes(self) -> int:
        """Bytes of records that surely fit into space that is preallocated already."""
        segment = self._segments[-1]
        here = segment.allocated - segment.end - _SEAL_BYTES
        return max(here, self._spare_bytes - _HEAD_BYTES - _SEAL_BYTES, 0)

    @property
    def has_spare(self) -> bool:
        return self._spare is not None

    def append(self, records: Sequence[Record], checkpoint: Callable[[], Checkpoint]) -> None:
        """Write the records after the last; they are durable when this returns.

        ``checkpoint``: what stands before these records, asked for if they open a segment.
        """
        self._refuse_if_failed()
        segment = self._segments[-1]
        data, chain = _encode_all(records, segment.end, segment.chain)
        end = segment.end + len(data)
        try:
            if end + _SEAL_BYTES <= segment.allocated or self._extend(segment, end + _SEAL_BYTES):
                self._write(segment, data)
                segment.end, segment.chain = end, chain
            else:
                before = self._ready()
                self._open_segment(records, checkpoint())
                self._seal(segment, before)
                self.make_room()
        except NoSpace:
            raise
        except OSError as error:
            self._failure = error
            raise
        for record in records:
            self._note(record)

    def make_room(self) -> None:
        """Preallocate the next segment if the disk has space for it."""
        self._refuse_if_failed()
        if self._spare is not None:
            return
        try:
            self._make_spare(self._segment_bytes)
        except NoSpace:
            logger.warning("%s: no space for the next segment", self._directory)

    def remove_obsolete(self, up_to_index: int) -> None:
        """Remove the oldest segments as far as they hold no entry above ``up_to_index``."""
        self._refuse_if_failed()
        while len(self._segments) > 1 and self._segments[0].top_index <= up_to_index:
            # One by one: a crash may leave any of several removed names behind, thus a gap.
            if self._disk.exists(self._segments[0].path):
                self._disk.remove(self._segments[0].path)
            self._disk.sync_dir(self._directory)
            del self._segments[0]

    def close(self) -> None:
        for file in (self._file, self._spare):
            if file is not None:
                file.close()

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise OSError(
                errno.EIO, f"{self._directory}: the log failed before ({self._failure}), stop"
            )

    def _note(self, record: Record) -> None:
        if record.type == REPLACE:
            for segment in self._segments:
                segment.top_index = 0
        last = self._segments[-1]
        last.top_index = max(last.top_index, record.log_index)

    def _extend(self, segment: _Segment, length: int) -> bool:
        """Whether a segment that could not be preallocated in full was given that length now."""
        if length > self._segment_bytes or self._file is None:
            return False
        for allocated in (self._segment_bytes, _pages(length)):
            try:
                self._file.preallocate(allocated)
            except NoSpace:
                continue
            segment.allocated = allocated
            return True
        return False

    def _write(self, segment: _Segment, data: bytes) -> None:
        file = self._ready()
        try:
            file.write_durably(segment.end, data)
        except NoSpace:
            with self._must_not_be_full():
                file.truncate(segment.end)
                file.sync()
            segment.allocated = segment.end
            raise

    def _open_segment(self, records: Sequence[Record], checkpoint: Checkpoint) -> None:
        """Go on in a new segment that begins with these records. On ``NoSpace`` there is none."""
        sequence, chain = 1, FIRST_CHAIN
        if self._segments:
            sequence, chain = self._segments[-1].sequence + 1, self._segments[-1].chain
        path = f"{self._directory}/{segment_name(sequence)}"
        batch_bytes = sum(record_bytes(len(record.payload)) for record in records)
        head = Head(self.member_id, sequence, chain, batch_bytes, checkpoint)
        head_data, chain = encode_record(encode_head(head), 0, FIRST_CHAIN)
        data, chain = _encode_all(records, 0, chain)
        end = len(head_data) + len(data)
        try:
            spare = self._spare_of(end + _SEAL_BYTES)
            spare.write_at(0, head_data, data)
            spare.sync()
            self._disk.rename(self._spare_path, path)
            self._disk.sync_dir(self._directory)
        except NoSpace:
            with self._must_not_be_full():
                self._drop_spare()
                if self._disk.exists(path):
                    self._disk.remove(path)
                self._disk.sync_dir(self._directory)
            raise
        segment = _Segment(sequence, path, end=end, chain=chain, allocated=self._spare_bytes)
        self._segments.append(segment)
        self._file, self._spare, self._spare_bytes = spare, None, 0

    def _seal(self, segment: _Segment, file: DiskFile) -> None:
        """Note at the end of a segment that there is a next one, so that it cannot get lost."""
        record = Record(SEAL, segment.sequence + 1, b"")
        data, _ = encode_record(record, segment.end, segment.chain)
        try:
            file.write_durably(segment.end, data)
            segment.is_sealed = True
        except NoSpace:
            logger.warning("%s: no space for its last record; it goes without", segment.path)
        file.close()

    # The spare file.

    @property
    def _spare_path(self) -> str:
        return f"{self._directory}/{SPARE_NAME}"

    def _spare_of(self, length: int) -> DiskFile:
        """The spare file, with space for so many bytes."""
        if self._spare is None:
            try:
                return self._make_spare(max(self._segment_bytes, length))
            except NoSpace:
                return self._make_spare(_pages(length))
        if self._spare_bytes < length:
            self._spare.preallocate(length)
            self._spare_bytes = length
        return self._spare

    def _make_spare(self, length: int) -> DiskFile:
        file = self._disk.open(self._spare_path, create=True)
        self._spare = file
        try:
            file.truncate(0)  # one that a crash left behind
            file.preallocate(length)
            file.sync()
        except NoSpace:
            self._drop_spare()
            raise
        self._spare_bytes = length
        return file

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare, self._spare_bytes = None, 0
        if self._disk.exists(self._spare_path):
            self._disk.remove(self._spare_path)

    def _ready(self) -> DiskFile:
        assert self._file is not None, "read the log to its end and start it before appending"
        return self._file

    @contextmanager
    def _must_not_be_full(self) -> Iterator[None]:
        """While what was refused is removed, which has to be gone for good."""
        try:
            yield
        except NoSpace as error:
            raise OSError(errno.EIO, f"{self._directory} cannot be cut back: {error}") from error


def _encode_all(records: Sequence[Record], durable: int, chain: int) -> tuple[bytes, int]:
    if len(records) == 1:
        return encode_record(records[0], durable, chain)
    encoded: list[bytes] = []
    for record in records:
        data, chain = encode_record(record, durable, chain)
        encoded.append(data)
    return b"".join(encoded), chain


def _pages(length: int) -> int:
    return (length + _PAGE_BYTES - 1) // _PAGE_BYTES * _PAGE_BYTES
