"""Answers everything about open chunks: records, batches, freezing, sealing, reads.

A server that has not heard of a master for ``SILENCE_MS_MAX`` refuses mutations and reads of open
chunks: the chunk may long be sealed, and the file longer.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from minigfs.chunkserver.append_messages import (
    AppendRecord,
    AppendResolved,
    ApplyBatch,
    BatchApplied,
    BatchData,
    BatchRecord,
    ChunkLength,
    GetChunkLength,
    OpenPiece,
    ReadOpenChunk,
    ResolveAppend,
)
from minigfs.chunkserver.append_primary import PrimaryQueue, WaitingRecord
from minigfs.chunkserver.append_slots import Slot
from minigfs.chunkserver.batch_chain import BatchChain, MemberFailed
from minigfs.chunkserver.mutations import Batch
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.open_replica import OpenReplica
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import CorruptChunk, ProtocolError, Unreachable, WriterFenced
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.append_messages import (
    FinalizeChunk,
    FreezeChunk,
    FrozenReplica,
    InstallChunk,
)
from minigfs.master.heartbeat_messages import SealOrder
from minigfs.transport.bulk_server import BulkHandler
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import Empty, Request
from minigfs.transport.stream import Stream

__all__ = ["SILENCE_MS_MAX", "AppendService"]

SILENCE_MS_MAX = 10_000  # DESIGN 6.5
_PIECE_BYTES = 1024 * 1024


class AppendService:
    """Handlers for a ``BulkServer``."""

    def __init__(
        self,
        store: ChunkStore,
        open_chunks: OpenChunks,
        *,
        chunkserver_id: ChunkserverId,
        pool: ConnectionPool,
        silence_ms: Callable[[], int],
    ) -> None:
        """``silence_ms``: how long ago a master last answered."""
        self._store = store
        self._open = open_chunks
        self._chunkserver_id = chunkserver_id
        self._pool = pool
        self._silence_ms = silence_ms
        self._lock = threading.Lock()
        self._queues: dict[ChunkHandle, PrimaryQueue] = {}

    def handlers(self) -> Mapping[type[Request[Any]], BulkHandler]:
        return {
            AppendRecord: self._append,
            ApplyBatch: self._apply,
            GetChunkLength: self._length,
            ReadOpenChunk: self._read,
            ResolveAppend: self._resolve,
            InstallChunk: self._install,
            FreezeChunk: self._freeze,
            FinalizeChunk: self._finalize,
        }

    # Mutations.

    def _append(self, request: AppendRecord, stream: Stream) -> None:
        replica = self._current(request.handle, request.version)
        data = stream.request_payload
        record = BatchRecord(
            appender_id=request.appender_id,
            sequence=request.sequence,
            length_bytes=len(data),
            sum=request.sum,
        )
        if not data or len(data) * 4 > replica.header.chunk_bytes:
            raise ProtocolError(f"a record has 1 byte to a quarter of a chunk, not {len(data)}")
        waiting = WaitingRecord(record, data, request.patience_ms)
        stream.send(self._queue(replica).append(waiting))

    def _queue(self, replica: OpenReplica) -> PrimaryQueue:
        handle = replica.header.handle
        members = self._open.members(handle)
        if not members or members[0].chunkserver_id != self._chunkserver_id:
            raise WriterFenced(f"this server is not the primary of chunk {handle:x}")
        with self._lock:
            queue = self._queues.get(handle)
            if queue is None:
                chain = tuple(member.address for member in members[1:])
                queue = PrimaryQueue(replica, chain, members[0].address, self._pool)
                self._queues = {h: q for h, q in self._queues.items() if self._open.find(h)}
                self._queues[handle] = queue
            return queue

    def _apply(self, request: ApplyBatch, stream: Stream) -> None:
        """Errors raised are this server's own; those below it are named in the answer."""
        replica = self._current(request.handle, request.version)
        if not self._open.members(request.handle):
            raise WriterFenced(f"chunk {request.handle:x} is frozen here since a restart")
        batch = Batch(
            serial=request.serial, offset_bytes=request.offset_bytes, records=request.records
        )
        replica.mutations.check(batch)
        applied = BatchApplied()
        try:
            with BatchChain(self._pool, request) as below:
                pieces = self._receive(request, stream, below, batch.end_bytes)
                replica.apply(batch, pieces, request.committed_bytes)
                below.finish()
        except MemberFailed as failure:
            replica.freeze()
            applied = BatchApplied(failed=failure.address, reason=failure.reason)
        stream.send(applied)

    def _receive(
        self, request: ApplyBatch, stream: Stream, below: BatchChain, end_bytes: int
    ) -> list[memoryview]:
        pieces: list[memoryview] = []
        left = end_bytes - request.offset_bytes
        last = False
        while not last:
            data, payload = stream.receive(BatchData, timeout_ms=request.patience_ms)
            left -= len(payload)
            if left < 0:
                raise ProtocolError(f"mutation {request.serial} has more bytes than its records")
            last = data.last
            below.send(payload, last=last)
            pieces.append(payload)
        return pieces

    def _current(self, handle: ChunkHandle, version: ChunkVersion) -> OpenReplica:
        """An open replica that may still be what the master thinks it is."""
        replica = self._open.get(handle, version)
        if self._silence_ms() > SILENCE_MS_MAX:
            raise Unreachable(
                "this chunkserver has not heard of a master for "
                f"{SILENCE_MS_MAX // 1000} s, and open chunks may have moved on without it"
            )
        return replica

    # Reads.

    def _length(self, request: GetChunkLength, stream: Stream) -> None:
        replica = self._current(request.handle, request.version)
        members = self._open.members(request.handle)
        if replica.is_frozen or not members or members[0].chunkserver_id != self._chunkserver_id:
            raise WriterFenced(f"this server is not the primary of chunk {request.handle:x} now")
        stream.send(ChunkLength(length_bytes=replica.committed_bytes))

    def _read(self, request: ReadOpenChunk, stream: Stream) -> None:
        if request.offset_bytes < 0 or request.length_bytes < 0:
            raise ProtocolError("a read needs an offset and a length of 0 or more")
        replica = self._current(request.handle, request.version)
        offset, end = request.offset_bytes, request.offset_bytes + request.length_bytes
        last = False
        while not last:
            start, data, sums = replica.read(offset, min(end - offset, _PIECE_BYTES))
            last = start + len(data) in (offset, end) or start + len(data) > end
            offset = start + len(data)
            stream.send(OpenPiece(offset_bytes=start, sums=sums, last=last), data)

    def _resolve(self, request: ResolveAppend, stream: Stream) -> None:
        if self._open.find(request.handle) is not None:
            raise WriterFenced(f"chunk {request.handle:x} is not sealed here yet")
        slot: Slot | None = None
        opened = self._store.open_chunk(request.handle, request.version)
        with opened as chunk, suppress(CorruptChunk):  # of the table: the master hears of it
            slot = chunk.read_slot()
        if slot is None:
            raise WriterFenced(f"this copy of chunk {request.handle:x} does not know its records")
        last = slot.last_records.get(request.appender_id)
        is_here = last is not None and last.sequence == request.sequence
        offset = last.offset_bytes if last is not None and is_here else -1
        stream.send(AppendResolved(offset_bytes=offset))

    # Orders of the master.

    def _install(self, request: InstallChunk, stream: Stream) -> None:
        self._open.install(request)
        stream.send(Empty())

    def _freeze(self, request: FreezeChunk, stream: Stream) -> None:
        replica = self._open.find_or_bar(request.handle)
        if replica is None or replica.version != request.version:
            stream.send(FrozenReplica(is_here=False))
            return
        queue = self._queues.get(request.handle)
        if queue is not None and request.drain_ms:
            queue.drain(request.drain_ms)
        replica.freeze()
        length_bytes = replica.length_bytes
        digest = 0
        if 0 < request.length_bytes <= length_bytes:
            digest = replica.digest_at(request.length_bytes)
        frozen = FrozenReplica(
            is_here=True,
            length_bytes=length_bytes,
            committed_bytes=replica.committed_bytes,
            digest=digest,
            is_doubtful=replica.is_doubtful,
        )
        stream.send(frozen)

    def _finalize(self, request: FinalizeChunk, stream: Stream) -> None:
        order = SealOrder(
            handle=request.handle,
            version=request.version,
            length_bytes=request.length_bytes,
            digest=request.digest,
        )
        self._open.seal(order)
        with self._store.open_chunk(request.handle, request.version):
            stream.send(Empty())
