"""Records that wait for the primary of a chunk, and the batch that takes them.

::

    handlers of appenders wait --> one of them takes what waits, as a batch:
                                     to the chain, in pieces -+-> durable on every member: answers
                                     applied here ------------+

Whoever gets the turn commits for all that wait, so under load one sync serves many. One batch is
under way at a time. If any member fails, the primary takes nothing more: appenders go to the
master, which seals the chunk without the member that failed.
"""

import threading
from dataclasses import dataclass

from minigfs.chunkserver.append_messages import ApplyBatch, BatchRecord, RecordAppended
from minigfs.chunkserver.batch_chain import BatchChain, MemberFailed
from minigfs.chunkserver.mutations import FULL, STALE, Batch
from minigfs.chunkserver.open_replica import OpenReplica
from minigfs.errors import MinigfsError
from minigfs.transport.client import ConnectionPool

__all__ = ["PrimaryQueue", "WaitingRecord"]

_BATCH_BYTES_MAX = 4 * 1024 * 1024  # a batch is one sync; a bigger one makes the others wait
_PIECE_BYTES = 1024 * 1024


@dataclass(slots=True)
class WaitingRecord:
    record: BatchRecord
    data: memoryview
    patience_ms: int
    reply: RecordAppended | None = None


class PrimaryQueue:
    """Of one open chunk, on its primary. Thread-safe."""

    def __init__(
        self, replica: OpenReplica, chain: tuple[str, ...], own_address: str, pool: ConnectionPool
    ) -> None:
        self._replica = replica
        self._chain = chain
        self._own_address = own_address
        self._pool = pool
        self._changed = threading.Condition()
        self._is_busy = False  # a batch is under way
        self._waiting: list[WaitingRecord] = []

    def append(self, waiting: WaitingRecord) -> RecordAppended:
        """Return when the outcome is known. Raises only trouble of this whole process."""
        with self._changed:
            self._waiting.append(waiting)
            self._changed.wait_for(lambda: waiting.reply is not None or not self._is_busy)
            self._is_busy = self._is_busy or waiting.reply is None
        if waiting.reply is None:
            self._commit_until(waiting)
        assert waiting.reply is not None
        return waiting.reply

    def drain(self, timeout_ms: int) -> None:
        """Freeze the chunk between two batches; or at once, if the time is up before."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_busy, timeout_ms / 1000)
            self._replica.freeze()

    def _commit_until(self, waiting: WaitingRecord) -> None:
        """It is our turn: commit batches until ours is one of them."""
        try:
            while waiting.reply is None:
                self._commit(self._take())
        finally:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()

    def _take(self) -> list[WaitingRecord]:
        with self._changed:
            count = size_bytes = 0
            for one in self._waiting:
                size_bytes += len(one.data)
                if count and size_bytes > _BATCH_BYTES_MAX:
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            return taken

    def _commit(self, taken: list[WaitingRecord]) -> None:
        failed, reason = self._own_address, "the primary failed"
        try:
            batch, offsets = self._replica.mutations.plan([one.record for one in taken])
            chosen = {id(record) for record in batch.records}
            data = [one.data for one in taken if id(one.record) in chosen]
            if batch.records:
                self._apply(batch, data, max(one.patience_ms for one in taken))
            for one, offset in zip(taken, offsets, strict=True):
                one.reply = _reply(offset)
        except MemberFailed as failure:
            failed, reason = failure.address, failure.reason
        except MinigfsError as error:
            reason = error.message
            failed = "" if self._replica.is_frozen else failed
        finally:
            undecided = [one for one in taken if one.reply is None]
            if undecided:
                self._replica.freeze()
            for one in undecided:
                one.reply = RecordAppended(failed=failed, reason=reason)

    def _apply(self, batch: Batch, data: list[memoryview], patience_ms: int) -> None:
        """Return when the batch is durable on every member."""
        header = self._replica.header
        request = ApplyBatch(
            handle=header.handle,
            version=header.version,
            serial=batch.serial,
            offset_bytes=batch.offset_bytes,
            committed_bytes=self._replica.committed_bytes,
            records=batch.records,
            chain=self._chain,
            patience_ms=patience_ms,
        )
        joined = memoryview(b"".join(data))
        with BatchChain(self._pool, request) as chain:
            for start in range(0, len(joined), _PIECE_BYTES):
                stop = start + _PIECE_BYTES
                chain.send(joined[start:stop], last=stop >= len(joined))
            self._replica.apply(batch, (joined,), self._replica.committed_bytes)
            chain.finish()
        self._replica.commit(batch.end_bytes)


def _reply(offset: int) -> RecordAppended:
    if offset == STALE:
        return RecordAppended(reason="a later record of this appender was appended before")
    return RecordAppended(is_full=True) if offset == FULL else RecordAppended(offset_bytes=offset)
