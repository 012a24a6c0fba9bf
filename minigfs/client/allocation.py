"""Chunks for a writer: asked for in batches that grow, and asked for again when a server fails.

A file of one chunk asks once; a file of thousands of small chunks asks once for 64 of them. A
server that failed is excluded from what this writer asks for later, and what was allocated ahead
on it is given back unused. If that leaves too few servers, the exclusions are forgotten: the
server may be back.
"""

import threading

from minigfs.client.masters import MasterCaller
from minigfs.errors import NotEnoughChunkservers
from minigfs.ids import ChunkserverId, FileId
from minigfs.master.messages import AllocateChunks, LocatedChunk

__all__ = ["ChunkAllocator"]

_BATCH_COUNT_MAX = 64
_BATCH_BYTES_MAX = 64 * 1024 * 1024  # of file: bigger chunks are asked for one at a time
_BATCH_GROWTH = 4


class ChunkAllocator:
    """Thread-safe; the lock is held over the call to the master, so that the others wait for the
    batch instead of asking for one each."""

    def __init__(self, masters: MasterCaller, file_id: FileId, chunk_bytes: int) -> None:
        self._masters = masters
        self._file_id = file_id
        self._batch_count_max = max(1, min(_BATCH_COUNT_MAX, _BATCH_BYTES_MAX // chunk_bytes))
        self._batch_count = 1
        self._lock = threading.Lock()
        self._next_index = 0
        self._ready: dict[int, LocatedChunk] = {}
        self._excluded: set[ChunkserverId] = set()

    def take(self, index: int) -> LocatedChunk:
        """The chunk at ``index``; each index is taken once."""
        with self._lock:
            while index >= self._next_index:
                count = self._batch_count
                for chunk in self._ask(self._next_index, count):
                    self._ready[chunk.index] = chunk
                self._next_index += count
                self._batch_count = min(count * _BATCH_GROWTH, self._batch_count_max)
            chunk = self._ready.pop(index)
            if self._excluded.intersection(r.chunkserver_id for r in chunk.replicas):
                (chunk,) = self._ask(index, 1)
            return chunk

    def replace(self, failed: LocatedChunk, address: str) -> LocatedChunk:
        """Another chunk for the same index, without the server at ``address``.

        Raises ``NotEnoughChunkservers``, and then excludes nobody any more.
        """
        with self._lock:
            self._excluded.update(r.chunkserver_id for r in failed.replicas if r.address == address)
            try:
                (chunk,) = self._ask(failed.index, 1)
            except NotEnoughChunkservers:
                self._excluded.clear()
                raise
            return chunk

    def _ask(self, first_index: int, count: int) -> tuple[LocatedChunk, ...]:
        request = AllocateChunks(
            file_id=self._file_id,
            first_index=first_index,
            count=count,
            excluded=tuple(sorted(self._excluded)),
        )
        return self._masters.change(request).chunks
