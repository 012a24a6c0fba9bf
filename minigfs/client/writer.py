"""Writing a file: chunk after chunk to chains of servers, then one atomic publish.

::

    write() --copy--> piece of 1 MiB --> upload of chunk i     (a thread, a chain of servers)
                                     --> upload of chunk i+1   (bounded by bytes in flight)
    close()  waits for all uploads, then gives the file its path

Nothing is visible before ``close`` returns; if it does not return, nothing ever is. An upload
starts when its first piece is full, so a file of less than one piece is sent by the closing thread
and needs no other.
"""

from collections import deque

from minigfs.client.allocation import NewFile
from minigfs.client.blocks import AllOrNothing
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.upload import ChunkUpload, UploadContext
from minigfs.errors import OutcomeUnknown, WriterFenced
from minigfs.master.messages import CreateEmptyFile, FileStatus, PublishFile, SealedChunk
from minigfs.ports import Buffer

__all__ = ["FileWriter"]

_PIECE_BYTES = 1024 * 1024
_IN_FLIGHT_BYTES_MAX = 128 * 1024 * 1024  # two chunks of 64 MiB: one fills while one is synced
_DISCARD_WAIT_S = 0.5  # a living master answers in a few milliseconds
_UPLOAD_COUNT_MAX = 8  # small chunks wait for syncs, not for us: eight waits at once


class FileWriter(AllOrNothing):
    """One file being written; made by ``MinigfsClient.open_writer``. For one thread at a time.

    As a context manager it publishes on a clean exit and discards on an exception. A writer that is
    garbage collected without ``close`` discards.
    """

    def __init__(
        self,
        context: UploadContext,
        *,
        file: NewFile,
        masters: MasterCaller,
        leases: WriterLeases,
    ) -> None:
        self._context = context
        self._file = file
        self._masters = masters
        self._leases = leases
        self._piece_bytes = min(_PIECE_BYTES, context.chunk_bytes)
        self._upload_count_max = max(
            1, min(_UPLOAD_COUNT_MAX, _IN_FLIGHT_BYTES_MAX // context.chunk_bytes)
        )
        self._size_bytes = 0
        self._chunk_count = 0
        self._filling: ChunkUpload | None = None  # the upload of the chunk that is not full yet
        self._filling_bytes = 0  # handed to it, or in the piece
        self._piece: bytearray = bytearray()
        self._piece_used = 0
        self._piece_room = 0
        self._spare_pieces: list[bytearray] = []
        self._in_flight: deque[ChunkUpload] = deque()  # full chunks, oldest first
        self._sealed: list[SealedChunk] = []
        self._status: FileStatus | None = None
        self._is_open = True

    @property
    def path(self) -> str:
        return self._context.path

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._size_bytes

    def write(self, data: Buffer) -> int:
        """Take all of ``data`` (which may be reused afterwards); its length in bytes.

        Raises what went wrong with bytes written before, too. Waits while much is in flight.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            position += self._fill(view[position:])
        self._size_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Raise what went wrong so far. Promises nothing else: a file appears when it is closed."""
        self._check_open()
        while self._in_flight and self._in_flight[0].is_done():
            self._collect_oldest()

    def close(self) -> FileStatus:
        """Publish: every byte durable on every server that acknowledged it, then the path.

        Closing again gives the same answer. On any error but ``OutcomeUnknown`` the file is
        discarded and the path is as it was; publishing may then be repeated by writing anew.
        """
        if self._status is not None:
            return self._status
        request = self._empty() if self._is_empty else self.finish()
        try:
            status = self._masters.change(request)
        except OutcomeUnknown:
            self.leave()
            raise
        except BaseException:
            self.discard()
            raise
        self.published(status)
        return status

    def finish(self) -> PublishFile:
        """Have all bytes stored, and say what gives the file its path: one change of its own
        (``close``) or of a transaction. On an error the file is discarded. May be repeated."""
        self._check_open()
        try:
            self._finish_uploads()
        except BaseException:
            self.discard()
            raise
        return PublishFile(
            file_id=self._context.allocator.file_id(),
            path=self.path,
            chunks=tuple(self._sealed),
            exclusive=self._file.exclusive,
        )

    @property
    def _is_empty(self) -> bool:
        """Nothing was written, and no temporary file was made: one change does it all."""
        return self._size_bytes == 0 and self._context.allocator.created() is None

    def _empty(self) -> CreateEmptyFile:
        self._check_open()
        return CreateEmptyFile(
            path=self.path, exclusive=self._file.exclusive, replication=self._file.replication
        )

    def published(self, status: FileStatus) -> None:
        """The change that ``finish`` told of was made: the writer is closed."""
        self._status = status
        self._end()

    def leave(self) -> None:
        """End the writing, and leave the file to a change whose outcome nobody knows."""
        if self._is_open:
            self._end()

    def discard(self) -> None:
        """Forget the file; the path is as it was. Allowed at any time, repeatedly.

        The master is told in the background, so that a dead one is not waited for; it collects by
        itself what no writer keeps alive.
        """
        if self._is_open:
            file_id = self._context.allocator.end()
            told = None if file_id is None else self._leases.abandoned(file_id)
            self._end()
            if told is not None:
                # A process that ends now, as a failed command does, should have told a living one.
                told.wait(_DISCARD_WAIT_S)

    def _complete(self) -> None:
        self.close()

    def __del__(self) -> None:
        # Only queues are touched: a finaliser may run anywhere, even inside a lock of ours.
        if getattr(self, "_is_open", False):
            self._abort_uploads()
            file_id = self._context.allocator.end()
            if file_id is not None:
                self._leases.abandoned(file_id)

    def _check_open(self) -> None:
        if not self._is_open:
            raise WriterFenced(f"{self.path}: the writer is closed")

    def _fill(self, view: memoryview) -> int:
        """Take as much of ``view`` as the current piece holds; how much that was."""
        if not self._piece_used:
            self._piece_room = self._begin_piece()
        end = min(self._piece_used + len(view), self._piece_room)
        taken = end - self._piece_used
        self._piece[self._piece_used : end] = view[:taken]
        self._piece_used = end
        self._filling_bytes += taken
        if end == self._piece_room:
            self._hand_over_piece()
        if self._filling_bytes == self._context.chunk_bytes:
            self._finish_chunk()
        return taken

    def _begin_piece(self) -> int:
        """An empty piece, which grows, or a used one to write over; how much it is to hold."""
        left_bytes = self._context.chunk_bytes - self._filling_bytes
        if left_bytes < self._piece_bytes:
            self._piece = bytearray()
            return left_bytes
        self._piece = self._spare_pieces.pop() if self._spare_pieces else bytearray()
        return self._piece_bytes

    def _hand_over_piece(self) -> None:
        if self._filling is None:
            self._filling = ChunkUpload(self._context, self._chunk_count)
            self._chunk_count += 1
        self._filling.add(self._piece)
        self._piece, self._piece_used = bytearray(), 0
        if not self._filling.is_started:
            self._make_room()
            self._filling.start()

    def _finish_chunk(self) -> None:
        assert self._filling is not None
        self._filling.finish()
        self._in_flight.append(self._filling)
        self._filling, self._filling_bytes = None, 0

    def _make_room(self) -> None:
        """Wait until one more upload may be under way."""
        while len(self._in_flight) >= self._upload_count_max:
            self._collect_oldest()

    def _collect_oldest(self) -> None:
        self._sealed.append(self._in_flight[0].result())
        pieces = self._in_flight.popleft().reclaim()
        # Memory that was used before is several times faster than memory fresh from the system.
        self._spare_pieces = [piece for piece in pieces if len(piece) == self._piece_bytes]

    def _finish_uploads(self) -> None:
        if self._piece_used:
            if self._filling is None:
                self._filling = ChunkUpload(self._context, self._chunk_count)
            del self._piece[self._piece_used :]
            self._filling.add(self._piece)
            self._piece, self._piece_used = bytearray(), 0
        if self._filling is not None:
            last = self._filling
            self._finish_chunk()
            if not last.is_started:
                last.run()
        while self._in_flight:
            self._collect_oldest()

    def _abort_uploads(self) -> None:
        if self._filling is not None:
            self._filling.abort()
        for upload in self._in_flight:
            upload.abort()

    def _end(self) -> None:
        self._is_open = False
        self._abort_uploads()
        self._filling, self._piece, self._spare_pieces = None, bytearray(), []
        self._in_flight.clear()
        file_id = self._context.allocator.end()
        if file_id is not None:
            self._leases.closed(file_id)
