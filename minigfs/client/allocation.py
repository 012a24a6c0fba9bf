"""What a writer gets of the master: its temporary file, and chunks for it.

The file and its first chunk may be a spare that came with the master's leave to write: then a small
file costs one change of the log, its publication. Else they are created, by a change of their own,
when a byte is about to be stored. Further chunks are asked for in batches that grow, and asked for
again when a server fails: a file of thousands of small chunks asks once for 64 of them. A server
that failed is excluded from what this writer asks for later, and what was allocated ahead on it is
given back unused. If that leaves too few servers, the exclusions are forgotten: the server may be
back.
"""

import os
import threading
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.spare_files import SpareFile
from minigfs.errors import NotEnoughChunkservers, WriterFenced
from minigfs.ids import ChunkserverId, FileId
from minigfs.master.messages import AllocateChunks, Created, CreateFile, LocatedChunk

__all__ = ["ChunkAllocator", "NewFile"]

_BATCH_COUNT_MAX = 64
_BATCH_BYTES_MAX = 64 * 1024 * 1024  # of file: bigger chunks are asked for one at a time
_BATCH_GROWTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """What a writer was asked to write. ``replication`` None: as the path's policies say."""

    path: str
    exclusive: bool
    replication: int | None
    chunk_bytes: int
    spare: SpareFile | None = None


class ChunkAllocator:
    """Thread-safe; the lock is held over the call to the master, so that the others wait for the
    batch instead of asking for one each."""

    def __init__(self, masters: MasterCaller, leases: WriterLeases, file: NewFile) -> None:
        self._masters = masters
        self._leases = leases
        self._file = file
        # One at most, in a row: the step that takes it out must be atomic.
        self._spare = deque([file.spare] if file.spare is not None else [])
        self._batch_count_max = max(1, min(_BATCH_COUNT_MAX, _BATCH_BYTES_MAX // file.chunk_bytes))
        self._batch_count = 1
        self._lock = threading.Lock()
        self._next_index = 0
        self._ready: dict[int, LocatedChunk] = {}
        self._excluded: set[ChunkserverId] = set()
        self._file_id: FileId | None = None
        self._process_id = os.getpid()
        self._is_over = False

    def file_id(self) -> FileId:
        """Of the temporary file, which is created if it was not needed before."""
        with self._lock:
            return self._file_id or self._create(0)

    def created(self) -> FileId | None:
        """The temporary file, if there is one yet and it is this process's, not that of the
        parent of a fork. Safe in a finaliser."""
        return self._file_id if self._process_id == os.getpid() else None

    def end(self) -> FileId | None:
        """The writing is over: a file that is being created just now is discarded."""
        self._is_over = True
        with suppress(IndexError):
            self._spare.pop().put_back()
        return self.created()

    def take(self, index: int) -> LocatedChunk:
        """The chunk at ``index``; each index is taken once.

        Raises ``NotEnoughChunkservers``, and may then be asked again.
        """
        with self._lock:
            if self._file_id is None:
                self._create(1 if index == 0 else 0)  # a spare file has a chunk, asked for or not
            while index >= self._next_index:
                self._add(self._ask(self._next_index, self._batch_count))
            chunk = self._ready[index]
            if not chunk.replicas or self._excluded.intersection(
                r.chunkserver_id for r in chunk.replicas
            ):
                chunk = self._ask_anew(index)
            del self._ready[index]  # not before: who is refused here asks again
            return chunk

    def replace(self, failed: LocatedChunk, addresses: Collection[str]) -> LocatedChunk:
        """Another chunk for the same index, without the servers at ``addresses``.

        Raises ``NotEnoughChunkservers``, and then excludes nobody any more.
        """
        with self._lock:
            self._excluded.update(
                r.chunkserver_id for r in failed.replicas if r.address in addresses
            )
            return self._ask_anew(failed.index)

    def _create(self, chunk_count: int) -> FileId:
        created = self._own_spare() or self._masters.change(
            CreateFile(
                path=self._file.path,
                exclusive=self._file.exclusive,
                replication=self._file.replication,
                chunk_count=chunk_count,
                holder=self._leases.holder,
            )
        )
        self._leases.opened(created.file_id)
        self._file_id = created.file_id
        if self._is_over:
            self._leases.abandoned(created.file_id)
            raise WriterFenced(f"{self._file.path}: the writer was discarded")
        self._add(created.chunks)
        return created.file_id

    def _own_spare(self) -> Created | None:
        try:
            spare = self._spare.pop()
        except IndexError:
            return None
        return spare.created if spare.is_usable() else None

    def _add(self, chunks: tuple[LocatedChunk, ...]) -> None:
        for chunk in chunks:
            self._ready[chunk.index] = chunk
        self._next_index += len(chunks)
        if chunks:
            self._batch_count = min(self._batch_count * _BATCH_GROWTH, self._batch_count_max)

    def _ask_anew(self, index: int) -> LocatedChunk:
        """Another chunk, on servers that are not excluded; or nobody is excluded any more.

        A new leader that answers for an earlier one may have heard of no server of a chunk yet, or
        have discarded it since.
        """
        try:
            for chunk in self._ask(index, 1):
                if chunk.replicas:
                    return chunk
        except NotEnoughChunkservers:
            self._excluded.clear()
            raise
        self._excluded.clear()
        raise NotEnoughChunkservers(
            f"{self._file.path}: the new master knows no server of chunk {index} yet: try again"
        )

    def _ask(self, first_index: int, count: int) -> tuple[LocatedChunk, ...]:
        assert self._file_id is not None
        request = AllocateChunks(
            file_id=self._file_id,
            first_index=first_index,
            count=count,
            excluded=tuple(sorted(self._excluded)),
        )
        return self._masters.change(request).chunks
