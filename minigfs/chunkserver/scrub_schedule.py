"""Which chunk is read next, and how fast, so that every byte is looked at within a stated time.

A pass goes through the chunks by handle. It is begun half the bound after the one before it and is
paced to take a quarter, so the last byte of a pass is read again before the bound even if the
server stood still for another quarter. Few bytes are read faster than that would need: the sooner
damage is found the better, and then there is rest until the next pass. Pure.
"""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.ids import ChunkHandle

__all__ = ["RATE_MIN", "SCRUB_BOUND_MS", "ScrubRecord", "ScrubSchedule"]

SCRUB_BOUND_MS = 7 * 24 * 3_600_000
RATE_MIN = 4 * 1024 * 1024  # bytes a second: 14 GB an hour, hardly noticed by any disk


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

    def next(self, chunks: Sequence[StoredChunk], now_ms: int) -> StoredChunk | None:
        """The chunk (of all that are here, by handle) to read now; None while there is rest."""
        record = self.record
        if not record.is_running:
            is_future = record.began_ms > now_ms  # the clock was set back
            if not is_future and now_ms - record.began_ms < self._bound_ms // 2:
                return None
            self.record = record = ScrubRecord(
                began_ms=now_ms, is_running=True, complete_ms=record.complete_ms
            )
        place = bisect_right(chunks, record.cursor, key=lambda chunk: chunk.handle)
        if place < len(chunks):
            return chunks[place]
        self.record = msgspec.structs.replace(
            record, is_running=False, cursor=ChunkHandle(0), complete_ms=record.began_ms
        )
        return None

    def done(self, handle: ChunkHandle) -> None:
        """It was read, or found damaged, or is not here any more."""
        self.record = msgspec.structs.replace(self.record, cursor=handle)

    def rate(self, stored_bytes: int) -> int:
        """Bytes a second."""
        return max(self._rate_min, stored_bytes * 4_000 // self._bound_ms)
