"""Where the chunks of one published file lie: fetched in batches, kept while the file is open.

A published file never changes, so what is known of its chunks stays true; only which servers are
alive changes, and for that a chunk is asked for again (``refresh``). The path may come to mean
another file meanwhile, which is told by the file id.
"""

import threading

from minigfs.client.masters import MasterCaller
from minigfs.errors import FileMissing
from minigfs.master.messages import FileStatus, Locate, Located, LocatedChunk

__all__ = ["FIRST_BATCH_COUNT", "ChunkMap"]

FIRST_BATCH_COUNT = 64  # 4 GiB of 64 MiB chunks: one call is enough for most files
_NEXT_BATCH_COUNT = 1024


class ChunkMap:
    """Chunk index -> chunk, of the file that ``path`` meant when it was opened. Thread-safe."""

    def __init__(self, masters: MasterCaller, first: Located) -> None:
        self._masters = masters
        self.status: FileStatus = first.status
        self.chunk_bytes = first.chunk_bytes
        self._lock = threading.Lock()
        self._chunks: dict[int, LocatedChunk] = {}
        self._keep(first)

    def chunk(self, index: int) -> LocatedChunk:
        with self._lock:
            known = self._chunks.get(index)
        return known if known is not None else self._fetch(index, _NEXT_BATCH_COUNT)

    def refresh(self, index: int) -> LocatedChunk:
        """Ask again who is alive. Raises ``FileMissing`` if the path is no longer this file."""
        return self._fetch(index, 1)

    def _fetch(self, index: int, count: int) -> LocatedChunk:
        located = self._masters.call(Locate(path=self.status.path, first_index=index, count=count))
        if located.status.file_id != self.status.file_id:
            raise FileMissing(
                f"{self.status.path}: was replaced by another file while it was being read;"
                " open it again"
            )
        self._keep(located)
        with self._lock:
            return self._chunks[index]

    def _keep(self, located: Located) -> None:
        with self._lock:
            self._chunks.update((chunk.index, chunk) for chunk in located.chunks)
