"""The segment: all map output of one attempt, or one spilled run of it (DESIGN 6.10).

::

    magic | frame | frame | ... | tables | directory | schema | trailer

A frame is a run of pairs of one partition, sorted by key, as one Arrow IPC record batch message,
packed if the segment is; frames lie in order of partition and, in it, of key. Each partition has a
table of its frames (offset, length, rows, unpacked bytes, xxh3-64), and the directory has an entry
of fixed width per partition: where its table is, its sum, and a sum of the entry itself. So what a
reader of one partition reads does not grow with the number of partitions.

Nothing is read unchecked: a byte that changed anywhere makes `SegmentUnavailable`, never other
pairs. The digest of a segment is the sum of its tables, which hold the sums of all frames; it seeds
the sums of the entries and stands in the trailer, which has a sum too, over the schema and itself.

Offsets count from the segment's own begin, so that small segments can share a file
(`minimr.shuffle.pack`). The others fill a temporary file and rename it, so a segment under its name
is whole as long as the machine does not crash; there is no fsync, since a lost segment only costs
its map attempt again.
"""

import errno
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from minigfs.closing import ClosedOnExit
from minimr.column_types import is_binary, stored
from minimr.errors import SegmentDamaged, SegmentUnavailable
from minimr.pairs import Pairs, binary_parts, check_same_types, example_of

__all__ = [
    "FRAME_BYTES",
    "FrameRef",
    "SegmentEncoder",
    "SegmentReader",
    "SegmentSummary",
    "SegmentWriter",
    "check_space",
    "decode_frame",
    "decode_schema",
    "verify_frame",
]

FRAME_BYTES = 256 << 10  # what a merge holds of each of its runs, at least

_MAGIC = b"MMRSEG02"
_FRAME = struct.Struct("<QQIQQ")  # as in FrameRef
_ENTRY = struct.Struct("<QIQ")  # of the table: offset, frames, xxh3
_SUM = struct.Struct("<Q")
_ENTRY_BYTES = _ENTRY.size + _SUM.size
_TRAILER = struct.Struct("<QIIBQ")  # directory's offset, partitions, schema bytes, codec, digest
_TRAILER_BYTES = _TRAILER.size + _SUM.size + len(_MAGIC)
_CODECS = ("", "lz4", "zstd")
_TAIL_BYTES = 4 << 10  # read at once: trailer and, mostly, schema
_WRITTEN_BYTES = 1 << 20  # at a time

_SPACE_CHECKED_BYTES = 64 << 20  # written between two looks at the disk
_SPACE_KEPT_SHARE = 100  # of the disk, one part in as many, so that others can still delete
_SPACE_KEPT_BYTES_MAX = 512 << 20


class FrameRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a frame lies in its file, its rows, its bytes when unpacked, and its sum."""

    offset: int
    length: int
    row_count: int
    plain_bytes: int
    xxh3: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSummary:
    path: Path  # the file that it is in
    start: int = 0  # where it begins there
    size_bytes: int
    record_count: int
    digest: str
    frame_bytes: int
    frame_sum: int  # of the frames' xxh3, modulo 2^64


class SegmentEncoder:
    """Writes partitions in increasing order to ``file``, from where that is; ``path`` is its name.

    ``compression`` of the frames: "lz4", "zstd", or "" for none.
    """

    def __init__(
        self, file: BinaryIO, path: Path, partition_count: int, *, compression: str = ""
    ) -> None:
        self._file = file
        self._path = path
        self._compression = compression
        self._codec = pa.Codec(compression) if compression else None
        self._tables: list[bytearray] = [bytearray() for _ in range(partition_count)]
        self._example: Pairs | None = None  # the first pair: the others have its types
        self._last_partition = 0
        self._record_count = 0
        self._frame_sum = 0
        self._file.write(_MAGIC)
        self._offset = len(_MAGIC)

    @property
    def size_bytes(self) -> int:
        """Of what was written until now."""
        return self._offset

    def append(self, partition: int, pairs: Pairs) -> None:
        """Add sorted pairs that come after all pairs added before."""
        assert partition >= self._last_partition, "partitions are written in order"
        self._last_partition = partition
        if not pairs.num_rows:
            return
        if self._example is None:
            self._example = example_of(pairs)
        check_same_types(self._example, pairs)
        for start, end in _frame_bounds(pairs):
            self._append(partition, pairs.slice(start, end - start))

    def finish(self) -> SegmentSummary:
        """Add what readers find the frames by."""
        schema = b"" if self._example is None else self._example.schema.serialize().to_pybytes()
        tables = b"".join(self._tables)
        digest = xxhash.xxh3_64_intdigest(tables, seed=len(self._tables))
        directory, offset = [], self._offset
        for index, table in enumerate(self._tables):
            count = len(table) // _FRAME.size
            entry = _ENTRY.pack(offset, count, xxhash.xxh3_64_intdigest(table))
            directory.append(entry + _SUM.pack(_entry_sum(entry, index, digest)))
            offset += len(table)
        codec = _CODECS.index(self._compression)
        trailer = _TRAILER.pack(offset, len(self._tables), len(schema), codec, digest)
        checked = schema + trailer
        end = b"".join((*directory, checked, _SUM.pack(xxhash.xxh3_64_intdigest(checked)), _MAGIC))
        self._file.write(tables)
        self._file.write(end)
        return SegmentSummary(
            path=self._path,
            size_bytes=offset + len(end),
            record_count=self._record_count,
            digest=f"{digest:016x}",
            frame_bytes=self._offset - len(_MAGIC),
            frame_sum=self._frame_sum & (2**64 - 1),
        )

    def _append(self, partition: int, rows: Pairs) -> None:
        plain = rows.serialize()
        frame = plain if self._codec is None else self._codec.compress(plain)
        self._file.write(frame)
        digest = xxhash.xxh3_64_intdigest(frame)
        self._tables[partition] += _FRAME.pack(
            self._offset, frame.size, rows.num_rows, plain.size, digest
        )
        self._frame_sum += digest
        self._record_count += rows.num_rows
        self._offset += frame.size


class SegmentWriter:
    """A segment in a file of its own; leaving the block by an exception leaves no file.

    `OSError` (ENOSPC) before the disk is full to the last byte.
    """

    def __init__(self, path: Path, partition_count: int, *, compression: str = "") -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        check_space(path.parent)
        self._space_checked_at = _SPACE_CHECKED_BYTES
        self._file: BinaryIO = self._temporary.open("wb", buffering=_WRITTEN_BYTES)
        self._encoder = SegmentEncoder(self._file, path, partition_count, compression=compression)

    def append(self, partition: int, pairs: Pairs) -> None:
        """See `SegmentEncoder.append`."""
        end_bytes = self._encoder.size_bytes + pairs.nbytes
        if end_bytes > self._space_checked_at:
            check_space(self._path.parent, pairs.nbytes)
            self._space_checked_at = end_bytes + _SPACE_CHECKED_BYTES
        self._encoder.append(partition, pairs)

    def close(self) -> SegmentSummary:
        summary = self._encoder.finish()
        self._file.close()
        self._temporary.replace(self._path)
        return summary

    def discard(self) -> None:
        with suppress(OSError):  # a full disk: what cannot be flushed is not wanted either
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None or not self._file.closed:
            self.discard()


class SegmentReader(ClosedOnExit):
    """Reads partitions of one segment; every failure is `SegmentUnavailable` with its path.

    It lies at ``start`` of the file and has ``size_bytes`` (None: up to the file's end).
    """

    def __init__(self, path: Path, start: int = 0, size_bytes: int | None = None) -> None:
        self._path = path
        self._start = start
        self._size_bytes = size_bytes
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise SegmentUnavailable(f"segment {path}: {error.strerror}") from error
        try:
            self._read_trailer()
        except BaseException:
            self._file.close()
            raise

    @property
    def digest(self) -> str:
        return f"{self._digest:016x}"

    def frames_of(self, partition: int) -> tuple[FrameRef, ...]:
        if not 0 <= partition < self._partition_count:
            raise SegmentUnavailable(f"segment {self._path} has no partition {partition}")
        found = self._read_at(self._directory + partition * _ENTRY_BYTES, _ENTRY_BYTES)
        entry, (checked,) = found[: _ENTRY.size], _SUM.unpack_from(found, _ENTRY.size)
        if _entry_sum(entry, partition, self._digest) != checked:
            raise self._damaged(f"has a wrong sum over its entry of partition {partition}")
        offset, count, table_sum = _ENTRY.unpack(entry)
        table = self._read_at(offset, count * _FRAME.size)
        if xxhash.xxh3_64_intdigest(table) != table_sum:
            raise self._damaged(f"has a wrong sum over its table of partition {partition}")
        return tuple(FrameRef(*fields) for fields in _FRAME.iter_unpack(table))

    def read_frame(self, frame: FrameRef) -> bytes:
        """The frame's bytes, verified."""
        content = self._read_at(frame.offset, frame.length)
        verify_frame(content, frame, str(self._path))
        return content

    def read_pieces(self, frames: Sequence[FrameRef], piece_bytes: int) -> Iterator[bytes]:
        """The bytes of neighbouring frames, not verified: that is for the one who decodes them."""
        if not frames:
            return
        offset, end = frames[0].offset, frames[-1].offset + frames[-1].length
        while offset < end:
            piece = self._read_at(offset, min(piece_bytes, end - offset))
            yield piece
            offset += len(piece)

    def read_pairs(self, partition: int) -> Iterator[Pairs]:
        """The sorted pairs of a partition, frame by frame."""
        frames = self.frames_of(partition)
        if not frames:
            return
        where = str(self._path)
        schema = decode_schema(self.schema_message, where)
        for frame in frames:
            yield decode_frame(self.read_frame(frame), frame, schema, self.compression, where)

    def close(self) -> None:
        self._file.close()

    def _read_trailer(self) -> None:
        size = self._size_bytes
        if size is None:
            size = os.fstat(self._file.fileno()).st_size - self._start
        if size < len(_MAGIC) + _TRAILER_BYTES:
            raise self._damaged("is too short")
        if self._read_at(0, len(_MAGIC)) != _MAGIC:
            raise self._damaged("begins wrong")
        tail = self._read_at(size - min(size, _TAIL_BYTES), min(size, _TAIL_BYTES))
        if tail[-len(_MAGIC) :] != _MAGIC:
            raise self._damaged("ends wrong")
        trailer = tail[-_TRAILER_BYTES : -_SUM.size - len(_MAGIC)]
        (checked,) = _SUM.unpack_from(tail, len(tail) - _SUM.size - len(_MAGIC))
        self._directory, self._partition_count, length, codec, self._digest = _TRAILER.unpack(
            trailer
        )
        if length > size - _TRAILER_BYTES:
            raise self._damaged("has a wrong sum over its trailer")
        self.schema_message = self._read_at(size - _TRAILER_BYTES - length, length)
        if xxhash.xxh3_64_intdigest(self.schema_message + trailer) != checked:
            raise self._damaged("has a wrong sum over its trailer")
        self.compression = _CODECS[codec]

    def _read_at(self, offset: int, length: int) -> bytes:
        try:
            content = os.pread(self._file.fileno(), length, self._start + offset)
        except OSError as error:
            raise SegmentUnavailable(f"segment {self._path}: {error.strerror}") from error
        if len(content) != length:
            raise self._damaged("is cut off")
        return content

    def _damaged(self, how: str) -> SegmentDamaged:
        return SegmentDamaged(f"segment {self._path} {how}: its map task must run again")


def check_space(directory: Path, wanted_bytes: int = 0) -> None:
    """`OSError` (ENOSPC) if ``wanted_bytes`` more would leave too little free for others."""
    usage = shutil.disk_usage(directory)
    kept_bytes = min(usage.total // _SPACE_KEPT_SHARE, _SPACE_KEPT_BYTES_MAX)
    if usage.free - wanted_bytes < kept_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{usage.free >> 20} MiB are free, and {kept_bytes >> 20} MiB must stay so",
            str(directory),
        )


def _entry_sum(entry: bytes, partition: int, digest: int) -> int:
    return xxhash.xxh3_64_intdigest(entry + _SUM.pack(partition), seed=digest)


def verify_frame(content: "bytes | memoryview", frame: FrameRef, where: str) -> None:
    """Compare with the sum in the index: `SegmentDamaged` if it differs."""
    if len(content) != frame.length or xxhash.xxh3_64_intdigest(content) != frame.xxh3:
        raise SegmentDamaged(
            f"segment {where}: wrong sum over the frame at byte {frame.offset}: "
            "its map task must run again"
        )


def decode_schema(message: bytes, where: str) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowInvalid, OSError) as error:
        raise SegmentDamaged(f"segment {where}: unreadable schema: {error}") from error


def decode_frame(
    content: bytes, frame: FrameRef, schema: pa.Schema, compression: str, where: str
) -> Pairs:
    """The pairs of a verified frame, without copying ``content`` if it is not packed."""
    try:
        message = pa.py_buffer(content)
        if compression:
            message = pa.Codec(compression).decompress(message, frame.plain_bytes)
        pairs = pa.ipc.read_record_batch(message, schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise SegmentDamaged(
            f"segment {where}: unreadable frame at byte {frame.offset}: {error}"
        ) from error
    if pairs.num_rows != frame.row_count:
        raise SegmentDamaged(
            f"segment {where}: {pairs.num_rows} rows in the frame at byte {frame.offset}, "
            f"{frame.row_count} expected"
        )
    return pairs


def _frame_bounds(pairs: Pairs) -> Sequence[tuple[int, int]]:
    """Cut rows so that each frame holds about `FRAME_BYTES`, and at least one row."""
    if pairs.num_rows == 0:
        return []
    most_bytes = pairs.nbytes + 8 * pairs.num_rows * pairs.num_columns
    if most_bytes <= FRAME_BYTES:  # what each row takes need not be known
        return [(0, pairs.num_rows)]
    ends_bytes = sum(map(_end_bytes, pairs.columns), np.zeros(1, np.int64))
    if ends_bytes[-1] <= FRAME_BYTES:
        return [(0, pairs.num_rows)]
    bounds = [0]
    while bounds[-1] < pairs.num_rows:
        start = bounds[-1]
        before = int(ends_bytes[start - 1]) if start else 0
        end = int(np.searchsorted(ends_bytes, before + FRAME_BYTES, side="right"))
        bounds.append(max(end, start + 1))
    return list(pairwise(bounds))


def _end_bytes(column: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Bytes of the column up to and with each row."""
    fixed = 8 * np.arange(1, len(column) + 1, dtype=np.int64)
    column = stored(column)
    if not is_binary(column.type):
        return fixed
    offsets, _ = binary_parts(column)
    ends: np.ndarray[tuple[int], np.dtype[np.int64]] = fixed + offsets[1:] - offsets[0]
    return ends
