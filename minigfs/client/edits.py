"""Writes and truncations that are not in the file yet, and the chunks they change. Pure.

They are kept as what was asked for, not as what comes of it: when somebody else has changed the
file meanwhile, they are made again on what is there now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigfs.ports import Buffer

__all__ = ["Edits", "NewChunk"]

ReadBase = Callable[[int, int], bytes]  # (offset, length) of the file as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A chunk to be made: bytes ``[start, start + length)`` of the file as it will be."""

    index: int
    start_bytes: int
    length_bytes: int


class Edits:
    """In the order they were made; what comes later wins."""

    def __init__(self) -> None:
        self._writes: list[tuple[int, bytes]] = []
        self._limit: int | None = None  # of what was there nothing behind this is left
        self._size_min = 0
        self.pending_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._writes) or self._limit is not None

    def write(self, offset: int, data: Buffer) -> None:
        kept = bytes(data)
        if not kept:
            return
        if self._writes and sum(_span(self._writes[-1])) == offset:
            last_offset, last = self._writes.pop()
            kept, offset = last + kept, last_offset
            self.pending_bytes -= len(last)
        self._writes.append((offset, kept))
        self.pending_bytes += len(kept)
        self._size_min = max(self._size_min, offset + len(kept))

    def truncate(self, size: int) -> None:
        self._limit = size if self._limit is None else min(self._limit, size)
        self._writes = [
            (offset, data[: size - offset]) for offset, data in self._writes if offset < size
        ]
        self.pending_bytes = sum(len(data) for _, data in self._writes)
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
        start, end = chunk.start_bytes, chunk.start_bytes + chunk.length_bytes
        content = bytearray(chunk.length_bytes)
        old_end = min(end, self._left(base_bytes))
        if old_end > start and not self._covers(start, old_end):
            content[: old_end - start] = read(start, old_end - start)
        for offset, data in self._writes:
            low, high = max(offset, start), min(offset + len(data), end)
            if low < high:
                content[low - start : high - start] = data[low - offset : high - offset]
        return content

    def _left(self, base_bytes: int) -> int:
        return base_bytes if self._limit is None else min(base_bytes, self._limit)

    def _touches(self, start: int, end: int) -> bool:
        return any(offset < end and offset + len(data) > start for offset, data in self._writes)

    def _covers(self, start: int, end: int) -> bool:
        return any(offset <= start and offset + len(data) >= end for offset, data in self._writes)


def _span(write: tuple[int, bytes]) -> tuple[int, int]:
    offset, data = write
    return offset, len(data)
