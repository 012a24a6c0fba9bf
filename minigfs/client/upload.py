"""One chunk on its way to its servers, with its bytes kept until all of them have it.

An upload is filled by the writer's thread and sent by a thread of its own (or, for the last chunk
of a file, by the writer's thread itself). The two share one queue and one future and no lock, so an
upload can be aborted from anywhere, a finaliser included. The bytes of the chunk stay here until
every server of the chain has acknowledged: when a server fails, the chunk is allocated anew without
it and sent again from its first byte. A small chunk goes to each server directly.
"""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.liveness import silent_servers
from minigfs.chunkserver.messages import (
    ChunkData,
    ChunkWritten,
    WriteChunk,
    chain_timeout_ms,
)
from minigfs.client.allocation import ChunkAllocator
from minigfs.client.patience import Patience
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import (
    CorruptChunk,
    MinigfsError,
    NoSpace,
    NotEnoughChunkservers,
    SecurityError,
    WriterFenced,
    error_from_wire,
)
from minigfs.ids import ChunkserverId
from minigfs.master.messages import LocatedChunk, SealedChunk
from minigfs.transport.client import ConnectionPool
from minigfs.transport.stream import Stream

__all__ = ["ChunkUpload", "UploadContext"]

# A chain saves the writer's link, and costs a hop for each server: of less than this, only hops.
_DIRECT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadContext:
    """What all uploads of one writer share."""

    pool: ConnectionPool
    allocator: ChunkAllocator
    path: str
    chunk_bytes: int
    timeout_ms: int


class _Failed(Exception):
    """Servers of the chain failed; ``addresses`` says which, ``error`` how."""

    def __init__(self, error: MinigfsError, *addresses: str) -> None:
        super().__init__(str(error))
        self.addresses = addresses
        self.error = error


class _ChainWatch:
    """Finds all servers of a chain that hang at once, not one after the other."""

    def __init__(self, pool: ConnectionPool, chain: tuple[str, ...]) -> None:
        self._pool = pool
        self._chain = chain
        self._silent: tuple[str, ...] = ()

    def __call__(self) -> bool:
        self._silent = silent_servers(self._pool, self._chain)
        return not self._silent

    def failed(self, error: MinigfsError, address: str) -> _Failed:
        """Who is to be left out after an error of the server at ``address``: those that hang, if
        any do, since whoever comes before them in the chain is not to blame. If all seem to hang,
        it may be this process, or its machine, that is slow."""
        if isinstance(error, NoSpace | CorruptChunk) or (not self._silent and self()):
            return _Failed(error, address)
        if len(self._silent) == len(self._chain):
            return _Failed(error, address)
        return _Failed(error, *self._silent)


class ChunkUpload:
    """``add`` pieces, then ``finish``; ``run`` sends them; ``result`` waits for the outcome."""

    def __init__(self, context: UploadContext, index: int) -> None:
        self._context = context
        self._index = index
        self._arriving: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._pieces: list[bytearray] = []  # all that have arrived, for sending again
        self._complete = False
        self._aborted = False
        self._outcome: Future[SealedChunk] = Future()
        self.is_started = False

    def add(self, piece: bytearray) -> None:
        """The next piece; all but the last are whole checksum blocks. The upload's from now on."""
        assert len(piece) > 0
        self._arriving.put(piece)

    def finish(self) -> None:
        """No more pieces will come."""
        self._arriving.put(None)

    def abort(self) -> None:
        """Stop soon, without a result. Safe in a finaliser."""
        self._aborted = True
        self._arriving.put(None)

    def start(self) -> None:
        """Send in the background from now on."""
        self.is_started = True
        threading.Thread(target=self.run, name="minigfs-upload", daemon=True).start()

    def run(self) -> None:
        """Send in this thread; returns when the outcome is known."""
        self.is_started = True
        try:
            self._outcome.set_result(self._send_until_sealed())
        except BaseException as error:
            self._outcome.set_exception(error)

    def is_done(self) -> bool:
        return self._outcome.done()

    def result(self) -> SealedChunk:
        """Wait until the chunk is durable on every server of its chain, or raise why not."""
        return self._outcome.result()

    def reclaim(self) -> list[bytearray]:
        """After ``result``: the pieces, which nobody needs any more."""
        assert self.is_done()
        pieces, self._pieces = self._pieces, []
        return pieces

    def _send_until_sealed(self) -> SealedChunk:
        chunk = self._allocate()
        patience: Patience | None = None
        while True:
            try:
                return self._send(chunk)
            except _Failed as failed:
                patience = patience or Patience(self._context.timeout_ms)
                chunk = self._replace(chunk, failed, patience)

    def _allocate(self) -> LocatedChunk:
        """The chunk for our index; a cluster that is just starting is given time to."""
        patience = Patience(self._context.timeout_ms)
        while True:
            try:
                return self._context.allocator.take(self._index)
            except NotEnoughChunkservers:
                if not patience.pause():
                    raise

    def _replace(self, chunk: LocatedChunk, failed: _Failed, patience: Patience) -> LocatedChunk:
        """Another chunk for the bytes of one that failed; the failure itself if there is none."""
        left_out = failed.addresses
        while True:
            try:
                return self._context.allocator.replace(chunk, left_out)
            except NotEnoughChunkservers:
                # Full disks do not empty themselves while we wait; dead servers may come back, and
                # who was slow may answer now.
                left_out = ()
                if isinstance(failed.error, NoSpace) or not patience.pause():
                    raise type(failed.error)(
                        f"cannot write {self._context.path}: {failed.addresses[0]}: {failed.error}"
                    ) from failed.error

    def _send(self, chunk: LocatedChunk) -> SealedChunk:
        chain = tuple(replica.address for replica in chunk.replicas)
        watch = _ChainWatch(self._context.pool, chain)
        timeout_ms = chain_timeout_ms(len(chain) - 1)
        frames = self._frames(chunk)
        first, piece = next(frames)
        if first.last and len(piece) <= _DIRECT_BYTES_MAX:
            return self._send_to_all(chunk, first, piece, chain, watch)
        whole = first if first.last else None
        table, length_bytes = [first.sums], len(piece)
        try:
            with self._context.pool.open_stream(
                chain[0],
                self._request(chunk, chain[1:], whole),
                timeout_ms=timeout_ms,
                payload=b"" if whole is None else piece,
                watch=watch,
            ) as stream:
                if whole is None:
                    stream.send(first, piece, timeout_ms=timeout_ms)
                for data, piece in frames:
                    stream.send(data, piece, timeout_ms=timeout_ms)
                    table.append(data.sums)
                    length_bytes += len(piece)
                written, _ = stream.receive(ChunkWritten, timeout_ms=timeout_ms)
        except (SecurityError, WriterFenced):
            raise
        except MinigfsError as error:
            raise watch.failed(error, chain[0]) from error
        if written.failure is not None:
            failure = error_from_wire(written.failure.code, written.failure.message)
            raise watch.failed(failure, written.failure.address)
        digest = digest_of_table(b"".join(table))
        _check_written(chunk, written, length_bytes, digest, chain[0])
        return _sealed(chunk, length_bytes, digest, written.replicas)

    def _send_to_all(
        self,
        chunk: LocatedChunk,
        whole: ChunkData,
        piece: bytearray,
        addresses: tuple[str, ...],
        watch: _ChainWatch,
    ) -> SealedChunk:
        """Each server has little to take and nobody to hand it on to: they work side by side."""
        request, timeout_ms = self._request(chunk, (), whole), chain_timeout_ms(0)
        calls: list[Stream] = []
        replicas: list[ChunkserverId] = []
        address = addresses[0]
        with ExitStack() as open_calls:
            try:
                for address in addresses:
                    call = self._context.pool.open_stream(
                        address, request, timeout_ms=timeout_ms, payload=piece, watch=watch
                    )
                    calls.append(open_calls.enter_context(call))
                for address, call in zip(addresses, calls, strict=True):
                    written, _ = call.receive(ChunkWritten, timeout_ms=timeout_ms)
                    _check_written(chunk, written, len(piece), digest_of_table(whole.sums), address)
                    replicas += written.replicas
            except (SecurityError, WriterFenced):
                raise
            except MinigfsError as error:
                raise watch.failed(error, address) from error
        return _sealed(chunk, len(piece), digest_of_table(whole.sums), tuple(replicas))

    def _frames(self, chunk: LocatedChunk) -> Iterator[tuple[ChunkData, bytearray]]:
        """All pieces from the first on, each with what is said of it."""
        offset = 0
        for piece, last in self._pieces_from_first():
            first_block = offset // CHECKSUM_BLOCK_BYTES
            sums = block_sums(piece, handle=chunk.handle, first_block=first_block)
            yield ChunkData(offset_bytes=offset, sums=sums, last=last), piece
            offset += len(piece)

    def _request(
        self, chunk: LocatedChunk, chain: tuple[str, ...], whole: ChunkData | None
    ) -> WriteChunk:
        return WriteChunk(
            handle=chunk.handle,
            version=chunk.version,
            file_id=self._context.allocator.file_id(),
            index=self._index,
            path_hint=self._context.path,
            chunk_bytes=self._context.chunk_bytes,
            chain=chain,
            whole=whole,
        )

    def _pieces_from_first(self) -> Iterator[tuple[bytearray, bool]]:
        """Every piece with whether it is the last: known only when the next one, or the end, is."""
        position = 0
        while True:
            while not self._complete and position + 1 >= len(self._pieces):
                self._wait_for_piece()
            last = self._complete and position + 1 == len(self._pieces)
            yield self._pieces[position], last
            if last:
                return
            position += 1

    def _wait_for_piece(self) -> None:
        piece = self._arriving.get()
        if self._aborted:
            raise WriterFenced(f"{self._context.path}: the writer was discarded")
        if piece is None:
            self._complete = True
        else:
            self._pieces.append(piece)


def _check_written(
    chunk: LocatedChunk, written: ChunkWritten, length_bytes: int, digest: int, address: str
) -> None:
    if (written.length_bytes, written.digest) != (length_bytes, digest):
        error = CorruptChunk(f"chunk {chunk.handle:x}: the servers have other bytes than ours")
        raise _Failed(error, address)


def _sealed(
    chunk: LocatedChunk, length_bytes: int, digest: int, replicas: tuple[ChunkserverId, ...]
) -> SealedChunk:
    return SealedChunk(
        handle=chunk.handle, length_bytes=length_bytes, digest=digest, replicas=replicas
    )
