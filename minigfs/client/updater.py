"""Changing a published file in place: bytes at any offset, and its length.

::

    write, truncate --> edits, here      flush --> the chunks they change, made anew, durable
                                               --> one change of the log puts them into the file

Nothing is visible before ``flush`` returns, and then all of it is, durably: hflush and fsync are
one. A flush that fails has changed nothing, and may be repeated. When another writer has changed
the file meanwhile, the edits are made again on what is there now, so writers at different offsets
do not undo each other; at the same offset the last flush wins. Whoever asks for it is refused
instead when a chunk that the edits change is not the one that was there at the opening. Reads see
the file as it was then, or at the last flush, with the edits. What is not flushed lies in memory,
and beyond 64 MiB in this machine's temporary directory. A chunk costs as much as a whole one
however few of its bytes change; whoever only adds to a file is better off with an ``Appender``.
"""

import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

from minigfs.client.allocation import ChunkAllocator, NewFile
from minigfs.client.blocks import AllOrNothing
from minigfs.client.edits import Edits, NewChunk, Scratch
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.patience import Patience
from minigfs.client.reader import FileReader
from minigfs.client.upload import ChunkUpload, UploadContext
from minigfs.errors import (
    FileMissing,
    MinigfsError,
    PreconditionFailed,
    UsageError,
    WriterFenced,
)
from minigfs.ids import ChunkHandle
from minigfs.master.append_messages import PatchedChunk, PatchFile, SealFile
from minigfs.master.growth import NO_CHUNK
from minigfs.master.messages import FileStatus, Located
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool

__all__ = ["UpdatableFile"]

_MEMORY_BYTES_MAX = 64 * 1024 * 1024  # of what was written; more lies on the disk
_PIECE_BYTES = 1024 * 1024


class UpdatableFile(AllOrNothing):
    """Made by ``MinigfsClient.open_for_update``. Thread-safe; the position is shared.

    As a context manager it flushes on a clean exit and drops what was not flushed on an exception.
    """

    def __init__(
        self,
        path: str,
        located: Located,
        *,
        refuse_conflicts: bool,
        pool: ConnectionPool,
        masters: MasterCaller,
        leases: WriterLeases,
        locate: Callable[[str], Located],
        open_reader: Callable[[str], FileReader],
        timeout_ms: int,
    ) -> None:
        self.path = path
        self._file_id = located.status.file_id
        self._size_bytes = located.status.size_bytes
        self._refuses_conflicts = refuse_conflicts
        self._seen = tuple(chunk.handle for chunk in located.chunks)
        self._pool = pool
        self._masters = masters
        self._leases = leases
        self._locate = locate
        self._open_reader = open_reader
        self._timeout_ms = timeout_ms
        self._edits = Edits(_scratch_file)
        self._reader: FileReader | None = None  # of the file without the edits
        self._position = 0
        self._lock = threading.RLock()
        self._is_open = True

    @property
    def size_bytes(self) -> int:
        """With what was written here and not flushed yet."""
        return self._edits.size(self._size_bytes)

    def write_at(self, offset: int, data: Buffer) -> int:
        """Put ``data`` at an offset; a gap between it and the end is filled with zeros."""
        view = memoryview(data).cast("B")
        with self._lock:
            self._check_open()
            if offset < 0:
                raise UsageError(f"{self.path}: cannot write at {offset}")
            self._edits.write(offset, view)
            return len(view)

    def write(self, data: Buffer) -> int:
        """Put ``data`` at the position, which goes on behind it."""
        with self._lock:
            count = self.write_at(self._position, data)
            self._position += count
            return count

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes ``[offset, offset + length)`` with the edits, fewer only where they end."""
        with self._lock:
            self._check_open()
            if offset < 0 or length < 0:
                raise UsageError(f"{self.path}: cannot read {length} bytes at {offset}")
            reader = self._base()
            content = bytearray(max(0, min(length, self.size_bytes - offset)))
            self._edits.fill(offset, memoryview(content), reader.size_bytes, reader.read_at)
            return bytes(content)

    def _base(self) -> FileReader:
        if self._reader is None:
            reader = self._open_reader(self.path)
            try:
                self._check_same(reader.status)
            except BaseException:
                reader.close()
                raise
            self._reader, self._size_bytes = reader, reader.size_bytes
        return self._reader

    def read(self, length: int = -1) -> bytes:
        """What follows the position, to the end if ``length`` is negative."""
        with self._lock:
            self._check_open()
            left = max(self.size_bytes - self._position, 0)
            content = self.read_at(self._position, left if length < 0 else min(length, left))
            self._position += len(content)
            return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position: from the start (0), from where it is (1), from the end (2)."""
        with self._lock:
            self._check_open()
            if whence not in (0, 1, 2):
                raise UsageError(f"{self.path}: whence is 0, 1 or 2, not {whence}")
            position = (0, self._position, self.size_bytes)[whence] + offset
            if position < 0:
                raise UsageError(f"{self.path}: cannot seek to {position}")
            self._position = position
            return position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or fill it with zeros, to ``size``, by default the position."""
        with self._lock:
            self._check_open()
            size = self._position if size is None else size
            if size < 0:
                raise UsageError(f"{self.path}: a file cannot have {size} bytes")
            self._edits.truncate(size)
            return size

    def flush(self) -> None:
        """Make everything written so far visible and durable, at once; or raise, and nothing is."""
        with self._lock:
            self._check_open()
            if not self._edits:
                return
            patience = Patience(self._timeout_ms)
            while True:
                try:
                    status = self._patch()
                except WriterFenced:  # somebody else was faster: make the edits on what is there
                    if not patience.pause():
                        raise
                else:
                    self._size_bytes = status.size_bytes
                    self._begin_anew()
                    return

    fsync = flush

    def close(self) -> None:
        """Flush, and end. Closing twice is no error; after a failed flush it may be repeated."""
        with self._lock:
            if self._is_open:
                self.flush()
                self._is_open = False
                self._begin_anew()

    def discard(self) -> None:
        """End without what was not flushed."""
        with self._lock:
            self._is_open = False
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Nothing is edited."""
        edits, self._edits = self._edits, Edits(_scratch_file)
        edits.close()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _complete(self) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise WriterFenced(f"{self.path}: the file is closed")

    def _check_same(self, status: FileStatus) -> None:
        if status.file_id != self._file_id:
            raise FileMissing(f"{self.path}: was replaced by another file; open it again")

    def _patch(self) -> FileStatus:
        """Make the edits on the file as it is now; ``WriterFenced`` if it is not so any more."""
        located = self._located()
        base_bytes = located.status.size_bytes
        starts = [located.start_bytes(chunk.index) for chunk in located.chunks]
        kept_count, chunks = self._edits.plan(starts, base_bytes, located.chunk_bytes)
        if self._refuses_conflicts:
            self._check_unchanged(located, chunks)
        file = NewFile(
            path=self.path,
            exclusive=False,
            replication=located.status.replication,
            chunk_bytes=located.chunk_bytes,
        )
        allocator = ChunkAllocator(self._masters, self._leases, file)
        try:
            with self._open_reader(self.path) as reader:
                if reader.size_bytes != base_bytes:
                    raise WriterFenced(f"{self.path}: has changed meanwhile")
                replaced = tuple(
                    self._made(number, chunk, located, allocator, reader)
                    for number, chunk in enumerate(chunks)
                )
            request = PatchFile(
                file_id=self._file_id,
                temporary_id=allocator.created(),
                chunk_count=len(located.chunks),
                kept_count=kept_count,
                replaced=replaced,
            )
            status = self._masters.change(request)
        except BaseException:
            self._give_up(allocator)
            raise
        self._done(allocator)
        self._seen = _patched(self._seen[:kept_count], replaced)
        return status

    def _check_unchanged(self, located: Located, chunks: list[NewChunk]) -> None:
        standing = tuple(chunk.handle for chunk in located.chunks)
        for chunk in chunks:
            place = slice(chunk.index, chunk.index + 1)
            if standing[place] != self._seen[place]:
                raise PreconditionFailed(
                    f"{self.path}: chunk {chunk.index} was changed by others since the file was "
                    f"opened; open it again and repeat the changes"
                )

    def _located(self) -> Located:
        """All chunks of the file, none of them open."""
        located = self._locate(self.path)
        self._check_same(located.status)
        if located.status.is_open:
            self._masters.call(SealFile(path=self.path))
            located = self._locate(self.path)
            self._check_same(located.status)
            if located.status.is_open:
                raise WriterFenced(f"{self.path}: is being appended to")
        return located

    def _made(
        self,
        number: int,
        chunk: NewChunk,
        located: Located,
        allocator: ChunkAllocator,
        reader: FileReader,
    ) -> PatchedChunk:
        """A chunk of the temporary file, durable, and the place it is for."""
        content = self._edits.content(chunk, located.status.size_bytes, reader.read_at)
        context = UploadContext(
            pool=self._pool,
            allocator=allocator,
            path=self.path,
            chunk_bytes=located.chunk_bytes,
            timeout_ms=self._timeout_ms,
        )
        upload = ChunkUpload(context, number)
        for start in range(0, len(content), _PIECE_BYTES):
            upload.add(content[start : start + _PIECE_BYTES])
        upload.finish()
        upload.run()
        standing = located.chunks[chunk.index].handle if chunk.index < len(located.chunks) else None
        return PatchedChunk(index=chunk.index, expected=standing or NO_CHUNK, chunk=upload.result())

    def _give_up(self, allocator: ChunkAllocator) -> None:
        file_id = allocator.end()
        if file_id is not None:
            with suppress(MinigfsError):
                self._leases.abandoned(file_id)

    def _done(self, allocator: ChunkAllocator) -> None:
        file_id = allocator.end()
        if file_id is not None:
            self._leases.closed(file_id)


def _scratch_file() -> Scratch:
    return tempfile.SpooledTemporaryFile(_MEMORY_BYTES_MAX, prefix="minigfs-")


def _patched(
    handles: tuple[ChunkHandle, ...], replaced: tuple[PatchedChunk, ...]
) -> tuple[ChunkHandle, ...]:
    """What a reader of the file has seen of it, after its own patch."""
    patched = list(handles)
    for one in sorted(replaced, key=lambda one: one.index):
        patched[one.index : one.index + 1] = [one.chunk.handle]
    return tuple(patched)
