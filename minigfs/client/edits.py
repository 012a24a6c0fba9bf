"""Writes and truncations that are not in the file yet, and the chunks they change. Pure.

They are kept as what was asked for, not as what comes of it: when somebody else has changed the
file meanwhile, they are made again on what is there now. The bytes lie in a scratch file of the
owner's choice, so that many of them need not be in memory.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from minigfs.ports import Buffer

__all__ = ["Edits", "NewChunk", "Scratch"]

ReadBase = Callable[[int, int], bytes]  # (offset, length) of the file as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A chunk to be made: bytes ``[start, start + length)`` of the file as it will be."""

    index: int
    start_bytes: int
    length_bytes: int


class Scratch(Protocol):
    """What is asked of a file that keeps bytes for a while."""

    def seek(self, offset: int, /) -> object: ...

    def write(self, data: Buffer, /) -> object: ...

    def readinto(self, target: memoryview, /) -> object: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Write:
    start: int  # in the file
    end: int
    place: int  # of the bytes, in the scratch file


class Edits:
    """In the order they were made; what comes later wins."""

    def __init__(self, make_scratch: Callable[[], Scratch] = io.BytesIO) -> None:
        """``make_scratch`` is asked once there is something to keep."""
        self._make_scratch = make_scratch
        self._scratch: Scratch | None = None
        self._scratch_bytes = 0
        self._writes: list[_Write] = []
        self._limit: int | None = None  # of what was there nothing behind this is left
        self._size_min = 0

    def close(self) -> None:
        """Forget the bytes."""
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    __del__ = close

    def __bool__(self) -> bool:
        return bool(self._writes) or self._limit is not None

    def write(self, offset: int, data: Buffer) -> None:
        with memoryview(data).cast("B") as view:
            if not view:
                return
            place, end = self._scratch_bytes, offset + len(view)
            self._scratch = self._scratch or self._make_scratch()
            self._scratch.seek(place)
            self._scratch.write(view)
            self._scratch_bytes += len(view)
        if self._writes:
            last = self._writes[-1]
            if last.end == offset and last.place + last.end - last.start == place:
                self._writes.pop()
                offset, place = last.start, last.place
        self._writes.append(_Write(offset, end, place))
        self._size_min = max(self._size_min, end)

    def truncate(self, size: int) -> None:
        self._limit = size if self._limit is None else min(self._limit, size)
        self._writes = [
            _Write(write.start, min(write.end, size), write.place)
            for write in self._writes
            if write.start < size
        ]
        self._size_min = size

    def size(self, base_bytes: int) -> int:
        """Of a file that has ``base_bytes`` now."""
        return max(self._left(base_bytes), self._size_min)

    def plan(
        self, starts: Sequence[int], base_bytes: int, chunk_bytes: int
    ) -> tuple[int, list[NewChunk]]:
        """How many of the chunks stay, and which are to be made (some of them in the place of one
        that stays). ``starts`` is where each chunk starts; the last ends at ``base_bytes``."""
        size = self.size(base_bytes)
        kept_count = sum(start < size for start in starts)
        left = self._left(base_bytes)
        chunks: list[NewChunk] = []
        end = 0
        for index in range(kept_count):
            start = starts[index]
            old_end = starts[index + 1] if index + 1 < len(starts) else base_bytes
            is_last = index == kept_count - 1
            end = min(start + chunk_bytes, size) if is_last else old_end
            cut = min(old_end, left) < min(old_end, end)
            if end != old_end or cut or self._touches(start, end):
                chunks.append(NewChunk(index=index, start_bytes=start, length_bytes=end - start))
        index = kept_count
        while end < size:
            length = min(chunk_bytes, size - end)
            chunks.append(NewChunk(index=index, start_bytes=end, length_bytes=length))
            index, end = index + 1, end + length
        return kept_count, chunks

    def content(self, chunk: NewChunk, base_bytes: int, read: ReadBase) -> bytearray:
        """The bytes of a chunk to be made."""
        content = bytearray(chunk.length_bytes)
        self.fill(chunk.start_bytes, memoryview(content), base_bytes, read)
        return content

    def fill(self, start: int, target: memoryview, base_bytes: int, read: ReadBase) -> None:
        """Put the bytes from ``start`` on of the file as it will be into zeros."""
        end = start + len(target)
        old_end = min(end, self._left(base_bytes))
        if old_end > start and not self._covers(start, old_end):
            target[: old_end - start] = read(start, old_end - start)
        for write in self._writes:
            low, high = max(write.start, start), min(write.end, end)
            if low < high and self._scratch is not None:
                self._scratch.seek(write.place + low - write.start)
                self._scratch.readinto(target[low - start : high - start])

    def _left(self, base_bytes: int) -> int:
        return base_bytes if self._limit is None else min(base_bytes, self._limit)

    def _touches(self, start: int, end: int) -> bool:
        return any(write.start < end and write.end > start for write in self._writes)

    def _covers(self, start: int, end: int) -> bool:
        return any(write.start <= start and write.end >= end for write in self._writes)
