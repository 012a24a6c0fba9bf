"""Input as blocks of whole lines, each byte of a file in exactly one block of one split.

A line belongs to the range in which it begins. So the reader of a range that begins inside a file
starts one byte early and skips to the first LF, and reads past its end to finish its last line.
Lines end at LF only; a CR belongs to its line; bytes are never interpreted.

A block is one fresh buffer filled by ``readinto``: no byte is copied again before a kernel sees it,
but for the beginning of a line that the next block finishes. Files are not mapped: one that is cut
short while it is read must be an error of this task, not a SIGBUS.

Small files share a block (an unterminated last line gets its LF then). Packed input, and
remote input of more than a block, is read by a thread of its own, so that this overlaps with the
user's kernels.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from minimr.formats.byte_source import ByteSource, fill
from minimr.formats.packed import unpacked
from minimr.formats.prefetch import prefetched
from minimr.formats.records import shrunk
from minimr.formats.storage import Storage, is_local
from minimr.messages import FileRange

__all__ = ["Block", "Origin", "read_blocks"]

_TAIL_BYTES = 64 << 10  # read at a time to find the end of a range's last line
_SEARCH_BYTES = 64 << 10
_PREFETCHED_BLOCKS = 2
_NO_END = sys.maxsize


@dataclass(frozen=True, slots=True)
class Origin:
    """From ``at`` in a block on, its bytes are those of ``url`` from ``offset`` (unpacked) on."""

    at: int
    url: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Whole lines. ``buffer`` always ends in LF; ``is_terminated`` tells if the file's did."""

    buffer: pa.Buffer
    origins: tuple[Origin, ...]
    is_terminated: bool
    stored_bytes: int  # how far reading it went on in the files as they are stored

    @property
    def size_bytes(self) -> int:
        size: int = self.buffer.size
        return size if self.is_terminated else size - 1

    def origin_of(self, at: int) -> tuple[str, int]:
        """File and offset in it of the byte at ``at``."""
        origin = next(each for each in reversed(self.origins) if each.at <= at)
        return origin.url, origin.offset + at - origin.at


def read_blocks(
    ranges: Sequence[FileRange], storage: Storage, *, block_bytes: int
) -> Iterator[Block]:
    """All lines of the ranges, in order. Close the iterator to stop early.

    Raises
    ------
    UnreadableInput
        A file is damaged, or shorter than when the job was planned.
    OSError
        From the file system.
    """
    blocks = _read_blocks(ranges, storage, block_bytes)
    is_one_block = sum(each.length for each in ranges) <= block_bytes  # nothing to overlap with
    if any(each.compression or not (is_one_block or is_local(each.url)) for each in ranges):
        return prefetched(blocks, _PREFETCHED_BLOCKS)
    return blocks


def _read_blocks(
    ranges: Sequence[FileRange], storage: Storage, block_bytes: int
) -> Iterator[Block]:
    small: list[FileRange] = []
    small_bytes = 0
    for each in ranges:
        if not each.length:
            continue
        is_small = not each.compression and each.length == each.file_bytes < block_bytes // 4
        if small and (not is_small or small_bytes + each.length >= block_bytes):
            yield _read_small(small, storage)
            small, small_bytes = [], 0
        if is_small:
            small.append(each)
            small_bytes += each.length
        elif each.compression:
            yield from _read_packed(each, storage, block_bytes)
        else:
            yield from _read_range(each, storage, block_bytes)
    if small:
        yield _read_small(small, storage)


def _read_small(files: Sequence[FileRange], storage: Storage) -> Block:
    capacity = sum(each.length + 1 for each in files)
    buffer = pa.allocate_buffer(capacity)
    view = memoryview(buffer).cast("B")
    origins, at, is_terminated = [], 0, True
    for each in files:
        origins.append(Origin(at, each.url, 0))
        with storage.open_input(each.url) as file:
            _fill_all(file, view[at : at + each.length], each, 0)
        at += each.length
        is_terminated = view[at - 1] == _LF
        if not is_terminated:
            view[at] = _LF
            at += 1
    return Block(
        buffer=buffer.slice(0, at),
        origins=tuple(origins),
        is_terminated=is_terminated,
        stored_bytes=sum(each.length for each in files),
    )


def _read_range(wanted: FileRange, storage: Storage, block_bytes: int) -> Iterator[Block]:
    start = max(wanted.start - 1, 0)
    with storage.borrow_input(wanted.url, start) as file:
        cutter = _Cutter(file, wanted, start, wanted.start + wanted.length, wanted.file_bytes)
        yield from cutter.blocks(block_bytes, skips_first=wanted.start > 0)


def _read_packed(wanted: FileRange, storage: Storage, block_bytes: int) -> Iterator[Block]:
    with storage.open_input(wanted.url) as file:
        source = unpacked(file, wanted.url, wanted.compression)
        cutter = _Cutter(source, wanted, 0, _NO_END, _NO_END)
        stored = 0
        for block in cutter.blocks(block_bytes, skips_first=False):
            yield Block(
                buffer=block.buffer,
                origins=block.origins,
                is_terminated=block.is_terminated,
                stored_bytes=source.packed_bytes - stored,
            )
            stored = source.packed_bytes


_LF = 0x0A


class _Cutter:
    """Cuts what a source gives into blocks of whole lines."""

    def __init__(
        self, source: "ByteSource | IO[bytes]", wanted: FileRange, start: int, end: int, limit: int
    ) -> None:
        self._source = source
        self._wanted = wanted
        self._position = start  # in the file, of the next byte the source gives
        self._end = end  # lines that begin here or later are not ours
        self._limit = limit  # nothing is read past this

    def blocks(self, block_bytes: int, *, skips_first: bool) -> Iterator[Block]:
        carry = memoryview(b"")
        carry_start = self._position
        while True:
            buffer, filled = self._next_buffer(carry, block_bytes)
            view = memoryview(buffer).cast("B")
            is_last = self._position == self._end
            start = 0
            if skips_first:
                start = _first_line_end(view[:filled])
                skips_first = not start
                if skips_first:
                    start = filled
            if not is_last:
                stop = _last_line_end(view, start, filled)
            elif skips_first or carry_start + start >= self._end != _NO_END:
                return
            else:
                buffer, filled = self._finish_line(buffer, filled)
                stop = filled
            if stop > start:
                yield self._block(buffer, start, stop, carry_start)
            if is_last:
                return
            carry = view[stop:filled]
            carry_start = self._position - len(carry)

    def _next_buffer(self, carry: memoryview, block_bytes: int) -> tuple[pa.Buffer, int]:
        """A buffer with ``carry`` and what comes next; one byte at its end stays free."""
        room = min(max(block_bytes, 2 * len(carry)), len(carry) + self._end - self._position)
        buffer = pa.allocate_buffer(room + 1)
        view = memoryview(buffer).cast("B")
        view[: len(carry)] = carry
        read = fill(self._source, view[len(carry) : room], self._wanted.url)
        self._position += read
        if len(carry) + read < room:
            if self._end != _NO_END:
                raise shrunk(self._wanted, self._position)
            self._end = self._limit = self._position  # the end of a packed file
        return buffer, len(carry) + read

    def _finish_line(self, buffer: pa.Buffer, filled: int) -> tuple[pa.Buffer, int]:
        """Add what is missing of the last line, from behind the end of the range."""
        if filled and memoryview(buffer).cast("B")[filled - 1] == _LF:
            return buffer, filled
        tail: list[bytes] = []
        while self._position < self._limit:
            piece = bytearray(min(_TAIL_BYTES, self._limit - self._position))
            _fill_all(self._source, memoryview(piece), self._wanted, self._position)
            self._position += len(piece)
            end = piece.find(b"\n") + 1
            tail.append(bytes(piece[:end] if end else piece))
            if end:
                break
        added = sum(map(len, tail))
        if not added:
            return buffer, filled
        longer = pa.allocate_buffer(filled + added + 1)
        view = memoryview(longer).cast("B")
        view[:filled] = memoryview(buffer).cast("B")[:filled]
        view[filled : filled + added] = b"".join(tail)
        return longer, filled + added

    def _block(self, buffer: pa.Buffer, start: int, stop: int, buffer_start: int) -> Block:
        view = memoryview(buffer).cast("B")
        is_terminated = view[stop - 1] == _LF
        if not is_terminated:
            view[stop] = _LF
        return Block(
            buffer=buffer.slice(start, stop - start + (not is_terminated)),
            origins=(Origin(0, self._wanted.url, buffer_start + start),),
            is_terminated=is_terminated,
            stored_bytes=stop - start,
        )


def _fill_all(
    source: "ByteSource | IO[bytes]", view: memoryview, wanted: FileRange, position: int
) -> None:
    read = fill(source, view, wanted.url)
    if read < len(view):
        raise shrunk(wanted, position + read)


def _first_line_end(view: memoryview) -> int:
    """Just after the first LF; 0 if there is none."""
    for start in range(0, len(view), _SEARCH_BYTES):
        found = bytes(view[start : start + _SEARCH_BYTES]).find(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def _last_line_end(view: memoryview, start: int, end: int) -> int:
    """Just after the last LF in ``[start, end)``; ``start`` if there is none."""
    while end > start:
        begin = max(start, end - _SEARCH_BYTES)
        found = bytes(view[begin:end]).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return start
