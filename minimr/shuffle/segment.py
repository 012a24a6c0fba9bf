"""The segment file: all map output of one attempt, or one spilled run of it (DESIGN 6.10).

::

    magic | frame | frame | ... | index | index length u32 | index xxh3-64 u64 | magic

A frame is a run of pairs of one partition, sorted by key, as one Arrow IPC record batch message;
frames lie in order of partition and, in it, of key. The index (msgpack) holds the schema and, per
partition, the offset, length, row count and xxh3-64 of each frame. Nothing is read unchecked: a
byte that changed anywhere makes `SegmentUnavailable`, never other pairs. The digest of a segment is
the sum of its index, which holds the sums of everything else.

Writers fill a temporary file and rename it, so a segment under its name is whole as long as the
machine does not crash; there is no fsync, since a lost segment only costs its map attempt again.
"""

import os
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

from minimr.column_types import is_binary, stored
from minimr.errors import SegmentUnavailable
from minimr.pairs import Pairs, binary_parts, check_same_types, example_of

__all__ = [
    "FRAME_BYTES",
    "FrameRef",
    "SegmentReader",
    "SegmentSummary",
    "SegmentWriter",
    "decode_frame",
    "decode_schema",
    "verify_frame",
]

FRAME_BYTES = 256 << 10  # what a merge holds of each of its runs, at least

_MAGIC = b"MMRSEG01"
_TRAILER = struct.Struct("<IQ8s")


class FrameRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a frame lies in its file, and its sum."""

    offset: int
    length: int
    row_count: int
    xxh3: int


class _Index(msgspec.Struct, frozen=True, array_like=True):
    schema: bytes  # Arrow IPC schema message; empty if there are no rows
    partitions: tuple[tuple[FrameRef, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSummary:
    size_bytes: int
    record_count: int
    digest: str
    frame_bytes: int
    frame_sum: int  # of the frames' xxh3, modulo 2^64


class SegmentWriter:
    """Writes partitions in increasing order; leaving the block by an exception leaves no file."""

    def __init__(self, path: Path, partition_count: int) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._frames: list[list[FrameRef]] = [[] for _ in range(partition_count)]
        self._example: Pairs | None = None  # the first pair: the others have its types
        self._last_partition = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._temporary.open("wb")
        self._file.write(_MAGIC)
        self._offset = len(_MAGIC)

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
            frame = pairs.slice(start, end - start).serialize()
            self._file.write(frame)
            self._frames[partition].append(
                FrameRef(self._offset, frame.size, end - start, xxhash.xxh3_64_intdigest(frame))
            )
            self._offset += frame.size

    def close(self) -> SegmentSummary:
        schema = b"" if self._example is None else self._example.schema.serialize().to_pybytes()
        index = msgspec.msgpack.encode(_Index(schema, tuple(map(tuple, self._frames))))
        digest = xxhash.xxh3_64_intdigest(index)
        self._file.write(index + _TRAILER.pack(len(index), digest, _MAGIC))
        self._file.close()
        self._temporary.replace(self._path)
        return SegmentSummary(
            size_bytes=self._offset + len(index) + _TRAILER.size,
            record_count=sum(frame.row_count for frames in self._frames for frame in frames),
            digest=f"{digest:016x}",
            frame_bytes=self._offset - len(_MAGIC),
            frame_sum=sum(one.xxh3 for each in self._frames for one in each) & (2**64 - 1),
        )

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


class SegmentReader:
    """Reads partitions of one segment file; every failure is `SegmentUnavailable` with its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise SegmentUnavailable(f"segment {path}: {error.strerror}") from error
        try:
            self._index, self.digest = self._read_index()
        except BaseException:
            self._file.close()
            raise

    @property
    def schema_message(self) -> bytes:
        return self._index.schema

    def frames_of(self, partition: int) -> tuple[FrameRef, ...]:
        if not 0 <= partition < len(self._index.partitions):
            raise SegmentUnavailable(f"segment {self._path} has no partition {partition}")
        return self._index.partitions[partition]

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
        schema = decode_schema(self._index.schema, str(self._path))
        for frame in frames:
            yield decode_frame(self.read_frame(frame), frame, schema, str(self._path))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read_index(self) -> tuple[_Index, str]:
        size = os.fstat(self._file.fileno()).st_size
        if size < len(_MAGIC) + _TRAILER.size:
            raise self._damaged("is too short")
        if self._read_at(0, len(_MAGIC)) != _MAGIC:
            raise self._damaged("begins wrong")
        length, digest, magic = _TRAILER.unpack(self._read_at(size - _TRAILER.size, _TRAILER.size))
        start = size - _TRAILER.size - length
        if magic != _MAGIC or start < len(_MAGIC):
            raise self._damaged("ends wrong")
        encoded = self._read_at(start, length)
        if xxhash.xxh3_64_intdigest(encoded) != digest:
            raise self._damaged("has a wrong sum over its index")
        return msgspec.msgpack.decode(encoded, type=_Index), f"{digest:016x}"

    def _read_at(self, offset: int, length: int) -> bytes:
        try:
            content = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise SegmentUnavailable(f"segment {self._path}: {error.strerror}") from error
        if len(content) != length:
            raise self._damaged("is cut off")
        return content

    def _damaged(self, how: str) -> SegmentUnavailable:
        return SegmentUnavailable(f"segment {self._path} {how}: its map task must run again")


def verify_frame(content: "bytes | memoryview", frame: FrameRef, where: str) -> None:
    """Compare with the sum in the index: `SegmentUnavailable` if it differs."""
    if len(content) != frame.length or xxhash.xxh3_64_intdigest(content) != frame.xxh3:
        raise SegmentUnavailable(
            f"segment {where}: wrong sum over the frame at byte {frame.offset}: "
            "its map task must run again"
        )


def decode_schema(message: bytes, where: str) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowInvalid, OSError) as error:
        raise SegmentUnavailable(f"segment {where}: unreadable schema: {error}") from error


def decode_frame(content: bytes, frame: FrameRef, schema: pa.Schema, where: str) -> Pairs:
    """The pairs of a verified frame, without copying ``content``."""
    try:
        pairs = pa.ipc.read_record_batch(pa.py_buffer(content), schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise SegmentUnavailable(
            f"segment {where}: unreadable frame at byte {frame.offset}: {error}"
        ) from error
    if pairs.num_rows != frame.row_count:
        raise SegmentUnavailable(
            f"segment {where}: {pairs.num_rows} rows in the frame at byte {frame.offset}, "
            f"{frame.row_count} expected"
        )
    return pairs


def _frame_bounds(pairs: Pairs) -> Sequence[tuple[int, int]]:
    """Cut rows so that each frame holds about `FRAME_BYTES`, and at least one row."""
    if pairs.num_rows == 0:
        return []
    ends_bytes = _end_bytes(pairs.column(0)) + _end_bytes(pairs.column(1))
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
