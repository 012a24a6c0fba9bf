"""Where the chunks of one published file lie: fetched in batches, kept while the file is open.

What a published file holds never changes, so what is known of its chunks stays true; only which
servers are alive changes, and whether the last chunk is still open, and for that a chunk is asked
for again (``refresh``). Chunks may be shorter than the file's chunk size. The masters are asked by
the file's id: a rename does not disturb a reader, and neither does another file at the path, as
long as the chunks are there. Before a reader comes to the end of what is known, the next batch is
fetched.
"""

import logging
import threading
from bisect import bisect_right

from minigfs.client.masters import MasterCaller
from minigfs.errors import FileMissing, MinigfsError
from minigfs.master.messages import FileStatus, Locate, Located, LocatedChunk

__all__ = ["FIRST_BATCH_COUNT", "ChunkMap"]

FIRST_BATCH_COUNT = 64  # 4 GiB of 64 MiB chunks: one call is enough for most files
_NEXT_BATCH_COUNT = 1024
_PREFETCH_DISTANCE = 16  # a gigabyte of 64 MiB chunks before the batch is needed

logger = logging.getLogger(__name__)


class ChunkMap:
    """Chunk index -> chunk, of the file that ``path`` meant when it was opened. Thread-safe."""

    def __init__(self, masters: MasterCaller, first: Located) -> None:
        self._masters = masters
        self.status: FileStatus = first.status
        self.chunk_bytes = first.chunk_bytes
        self._is_fetching = threading.Lock()  # only ever tried, never waited for
        self._chunks: dict[int, LocatedChunk] = {}
        self._starts = first.starts
        self._keep(first)

    def place(self, offset: int) -> tuple[int, int, int]:
        """Where a byte of the file stands: index of its chunk, offset in it, the chunk's end."""
        starts = self._starts
        if not starts:
            return *divmod(offset, self.chunk_bytes), self.chunk_bytes
        index = bisect_right(starts, offset) - 1
        end = starts[index + 1] if index + 1 < len(starts) else starts[index] + self.chunk_bytes
        return index, offset - starts[index], end - starts[index]

    def chunk(self, index: int) -> LocatedChunk:
        known = self._chunks.get(index)
        if known is None:
            return self._fetch(index, _NEXT_BATCH_COUNT)
        ahead = index + _PREFETCH_DISTANCE
        if ahead < self.status.chunk_count and ahead not in self._chunks:
            self._prefetch(ahead)
        return known

    def refresh(self, index: int) -> LocatedChunk:
        """Ask again who is alive. Raises ``FileMissing`` if the file is gone for good."""
        return self._fetch(index, 1)

    def _prefetch(self, first_index: int) -> None:
        """Begin to fetch a batch, unless one is on its way. A failure is met again by whoever
        needs the chunk."""
        if not self._is_fetching.acquire(blocking=False):
            return
        threading.Thread(
            target=self._fetch_ahead, args=(first_index,), name="minigfs-locations", daemon=True
        ).start()

    def _fetch_ahead(self, first_index: int) -> None:
        try:
            self._fetch(first_index, _NEXT_BATCH_COUNT)
        except MinigfsError as error:
            logger.debug("locations of %s not fetched ahead: %s", self.status.path, error)
        finally:
            self._is_fetching.release()

    def _fetch(self, index: int, count: int) -> LocatedChunk:
        located = self._masters.call(
            Locate(
                path=self.status.path,
                first_index=index,
                count=count,
                file_id=self.status.file_id,
            )
        )
        self._keep(located)
        known = self._chunks.get(index)
        # Only what is asked for must be the same still: other parts may not be read any more.
        if known is None or known.handle not in {chunk.handle for chunk in located.chunks}:
            raise FileMissing(
                f"{self.status.path}: was changed while it was being read; open it again"
            )
        return known

    def _keep(self, located: Located) -> None:
        # One atomic step each, and no lock: a fork may happen while another thread is in here.
        if located.status.file_id == self.status.file_id:
            for chunk in located.chunks:
                known = self._chunks.get(chunk.index)
                if known is None or known.handle == chunk.handle:  # else it was patched
                    self._chunks[chunk.index] = chunk
