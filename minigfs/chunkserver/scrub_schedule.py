"""Which chunk is read next, and how fast, so that every byte is looked at within a stated time.

A pass goes through the chunks by handle, those that are here when it begins: what is sealed later
was written later, and needs no reading yet. It is begun half the bound after the one before it and
is paced to take a quarter, so the last byte of a pass is read again before the bound even if the
server stood still for another quarter. Few bytes are read faster than that would need: the sooner
damage is found the better, and then there is rest until the next pass. Pure.
"""

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.ids import ChunkHandle

__all__ = ["CHUNK_COST_BYTES", "RATE_MIN", "SCRUB_BOUND_MS", "ScrubRecord", "ScrubSchedule"]

SCRUB_BOUND_MS = 7 * 24 * 3_600_000
RATE_MIN = 4 * 1024 * 1024  # bytes a second: 14 GB an hour, hardly noticed by any disk
CHUNK_COST_BYTES = 64 * 1024  # what it takes to open a chunk, in bytes read: most in small ones


class ScrubRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a restart. Times are milliseconds since the epoch, 0 for never."""

    began_ms: int = 0  # the newest pass
    cursor: ChunkHandle = ChunkHandle(0)  # the last chunk it has read
    is_running: bool = False
    complete_ms: int = 0  # when the newest complete pass began: all here was read since then


class ScrubSchedule:
    def __init__(
        self, record: ScrubRecord, *, bound_ms: int = SCRUB_BOUND_MS, rate_min: int = RATE_MIN
    ) -> None:
        assert bound_ms > 0
        assert rate_min > 0
        self._rate_min = rate_min
        self.record = record
        self._bound_ms = bound_ms
        self._unread: deque[StoredChunk] | None = None  # of the pass, once it is known

    def next(
        self, list_chunks: Callable[[], Iterable[StoredChunk]], now_ms: int
    ) -> StoredChunk | None:
        """The chunk to read now; None while there is rest. ``list_chunks`` gives all that are
        here, by handle; it is called once in a pass."""
        record = self.record
        if not record.is_running:
            is_future = record.began_ms > now_ms  # the clock was set back
            if not is_future and now_ms - record.began_ms < self._bound_ms // 2:
                return None
            self.record = record = ScrubRecord(
                began_ms=now_ms, is_running=True, complete_ms=record.complete_ms
            )
        if self._unread is None:
            self._unread = deque(c for c in list_chunks() if c.handle > record.cursor)
        while self._unread and self._unread[0].handle <= record.cursor:
            self._unread.popleft()
        if self._unread:
            return self._unread[0]
        self._unread = None
        self.record = msgspec.structs.replace(
            record, is_running=False, cursor=ChunkHandle(0), complete_ms=record.began_ms
        )
        return None

    def done(self, handle: ChunkHandle) -> None:
        """It was read, or found damaged, or is not here any more."""
        self.record = msgspec.structs.replace(self.record, cursor=handle)

    def rate(self, stored_bytes: int, chunk_count: int) -> int:
        """Bytes a second, of which each chunk takes ``CHUNK_COST_BYTES`` more than it has."""
        cost_bytes = stored_bytes + chunk_count * CHUNK_COST_BYTES
        return max(self._rate_min, cost_bytes * 4_000 // self._bound_ms)
