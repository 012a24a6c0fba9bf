"""Verified reads of one chunk from whichever of its replicas can give the right bytes.

The first read of a chunk asks the server for the chunk's table of sums and holds it against the
digest in the master's log; every block is then held against the table, so what a reader returns is
what the writer closed, whatever disks, memory or wires did in between. A replica with wrong bytes
is reported, one that does not answer is remembered as suspect and asked last for a while; the read
goes on at the next one from the first byte that is still missing. One that is slow to answer is
raced by the next (``hedging``).

A replica on this machine comes first, and is read from its file (``lent_chunks``) if its server
lends it; whatever stands in the way of that, the socket is left.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from minigfs.chunkserver.checksum import widen_to_blocks
from minigfs.chunkserver.messages import ChunkPiece, ReadChunk
from minigfs.client.hedging import HedgePolicy
from minigfs.client.lent_chunks import Lenders, LentChunk, check_blocks, check_table
from minigfs.client.locations import ChunkMap
from minigfs.client.masters import MasterCaller
from minigfs.client.open_chunk_reads import fill_from_open
from minigfs.client.patience import Patience
from minigfs.errors import (
    CorruptChunk,
    DamageError,
    MinigfsError,
    ProtocolError,
    SecurityError,
    Unreachable,
)
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.messages import LocatedChunk, Replica, ReportDamage
from minigfs.ports import Clock, SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.stream import Stream, first_to_answer

__all__ = ["ReplicaReader", "SuspectServers"]

_SUSPECT_MS = 5_000  # the master needs as long to call a silent server dead
_GONE_AFTER_MS = 1_500  # a chunk that was just written, or is being moved, is found by then
_FIRST_TRY_TIMEOUT_MS = 2_000  # a server that hangs costs a reader no more than this once
_OPEN_MS_MAX = 750  # to connect and prove a token, while there are others to ask
_TABLES_KEPT_COUNT_MAX = 64  # 8 KiB each at 64 MiB chunks
_BORROWED_COUNT_MAX = 8  # chunk files that one reader holds open; a deleted one keeps its space

_ResultT = TypeVar("_ResultT")


class SuspectServers:
    """Servers that did not answer lately; shared by all readers of a client."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._until_ms: dict[ChunkserverId, int] = {}

    def add(self, chunkserver_id: ChunkserverId) -> None:
        self._until_ms[chunkserver_id] = self._clock.monotonic_ms() + _SUSPECT_MS

    def order(self, chunk: LocatedChunk) -> list[Replica]:
        """The replicas to try, best first: readers of different chunks start at different ones,
        and whoever failed last comes last."""
        now_ms = self._clock.monotonic_ms()
        count = len(chunk.replicas)
        turned = [chunk.replicas[(chunk.handle + i) % count] for i in range(count)]
        return sorted(turned, key=lambda replica: self._suspicion(replica, now_ms))

    def _suspicion(self, replica: Replica, now_ms: int) -> int:
        until_ms = self._until_ms.get(replica.chunkserver_id, 0)
        return until_ms if until_ms > now_ms else 0


class _Turn:
    """Whose turn it is to be read from, and who comes after."""

    __slots__ = ("replica", "waiting")

    def __init__(self, replica: Replica, waiting: list[Replica]) -> None:
        self.replica = replica
        self.waiting = waiting


class ReplicaReader:
    """Reads the chunks of one open file. Thread-safe."""

    def __init__(
        self,
        chunk_map: ChunkMap,
        *,
        masters: MasterCaller,
        pool: ConnectionPool,
        suspects: SuspectServers,
        lenders: Lenders,
        hedging: HedgePolicy,
        timeout_ms: int,
        clock: Clock | None = None,
    ) -> None:
        self._map = chunk_map
        self._masters = masters
        self._pool = pool
        self._suspects = suspects
        self._lenders = lenders
        self._hedging = hedging
        self._clock = clock or SystemClock()
        self._timeout_ms = timeout_ms
        self._tables: dict[ChunkHandle, bytes] = {}
        self._borrowed: dict[ChunkHandle, tuple[tuple[ChunkVersion, ChunkserverId], LentChunk]] = {}

    def is_lent(self, index: int) -> bool:
        """Whether the chunk is likely read from its file, which makes reading ahead pointless."""
        return any(self._lenders.can_lend(replica) for replica in self._map.chunk(index).replicas)

    def fill(self, index: int, start: int, target: memoryview) -> None:
        """Put the bytes ``[start, start + len(target))`` of a chunk into ``target``, verified.

        Raises ``CorruptChunk`` when no replica has them right, ``Unreachable`` when none that has
        answered before the deadline; what ``target`` holds then is undefined.
        """
        done = 0

        def attempt(chunk: LocatedChunk, turn: _Turn, timeout_ms: int) -> None:
            nonlocal done
            if chunk.is_open:
                done += fill_from_open(
                    self._pool, chunk, turn.replica, start + done, target[done:], timeout_ms
                )
                return
            lent = self._lent(chunk, turn.replica)
            if lent is not None:
                lent.fill(start + done, target[done:])
                return
            rest = target[done:]
            for count in self._stream(chunk, turn, start + done, rest, timeout_ms):
                done += count

        self._from_any_replica(index, attempt)

    def view(self, index: int, start: int, end: int) -> memoryview | None:
        """The bytes as they lie in the page cache, verified and not copied; None if the chunk is
        on no server of this machine that lends it."""

        def attempt(chunk: LocatedChunk, turn: _Turn, _timeout_ms: int) -> memoryview | None:
            lent = None if chunk.is_open else self._lent(chunk, turn.replica)
            return None if lent is None else lent.view(start, end)

        return self._from_any_replica(index, attempt)

    def close(self) -> None:
        """Give borrowed files back; views of them stay good."""
        self._borrowed.clear()

    def _from_any_replica(
        self, index: int, attempt: Callable[[LocatedChunk, _Turn, int], _ResultT]
    ) -> _ResultT:
        patience = Patience(self._timeout_ms)
        chunk = self._map.chunk(index)
        damaged: dict[ChunkserverId, str] = {}
        timeout_ms = min(_FIRST_TRY_TIMEOUT_MS, self._timeout_ms)
        while True:
            failure: MinigfsError | None = None
            ordered = self._nearest_first(chunk)
            waiting = [one for one in ordered if one.chunkserver_id not in damaged]
            while waiting:
                turn = _Turn(waiting.pop(0), waiting)
                try:
                    return attempt(chunk, turn, timeout_ms)
                except SecurityError:
                    raise
                except DamageError as error:
                    replica = turn.replica
                    self._borrowed.pop(chunk.handle, None)
                    damaged[replica.chunkserver_id] = f"{replica.address}: {error}"
                    self._report(chunk, replica, error)
                except MinigfsError as error:
                    failure = error
                    self._suspects.add(turn.replica.chunkserver_id)
            chunk = self._after_all_failed(chunk, damaged, failure, patience)
            timeout_ms = patience.remaining_ms

    def _nearest_first(self, chunk: LocatedChunk) -> list[Replica]:
        """Those of this machine before others, and both by their merits."""
        ordered = self._suspects.order(chunk)
        return sorted(ordered, key=lambda replica: not self._lenders.can_lend(replica))

    def _lent(self, chunk: LocatedChunk, replica: Replica) -> LentChunk | None:
        known = self._borrowed.get(chunk.handle)
        if known is not None and known[0] == (chunk.version, replica.chunkserver_id):
            return known[1]
        lent = self._lenders.borrow(chunk, replica)
        if lent is not None:
            while len(self._borrowed) >= _BORROWED_COUNT_MAX:
                self._borrowed.pop(next(iter(self._borrowed.copy()), chunk.handle), None)
            self._borrowed[chunk.handle] = (chunk.version, replica.chunkserver_id), lent
        return lent

    def _after_all_failed(
        self,
        chunk: LocatedChunk,
        damaged: Mapping[ChunkserverId, str],
        failure: MinigfsError | None,
        patience: Patience,
    ) -> LocatedChunk:
        """The chunk as the master sees it now, or the error that ends the read."""
        chunk = self._map.refresh(chunk.index)
        where = f"{self._map.status.path}, chunk {chunk.index} ({chunk.handle:x})"
        untried = [r for r in chunk.replicas if r.chunkserver_id not in damaged]
        if damaged and not untried and failure is None:
            raise CorruptChunk(
                f"{where}: damaged on every server that has it ({'; '.join(damaged.values())});"
                " restore the file from where it came from"
            )
        waited_ms = self._timeout_ms - patience.remaining_ms
        if chunk.gone_from and not chunk.replicas and waited_ms >= _GONE_AFTER_MS:
            raise CorruptChunk(
                f"{where}: lost: its servers ({', '.join(chunk.gone_from)}) are there and none has"
                " it any more; restore the file from where it came from"
            )
        if not patience.pause():
            reason = f"last error: {failure}" if failure is not None else "no server has it now"
            raise Unreachable(
                f"{where}: no chunkserver answered in time; {reason};"
                " see `status`, and start the chunkservers that are missing"
            ) from failure
        return chunk

    def _stream(
        self,
        chunk: LocatedChunk,
        turn: "_Turn",
        start: int,
        target: memoryview,
        timeout_ms: int,
    ) -> Iterator[int]:
        """Fill ``target`` by socket; yields how many more bytes of it are right."""
        table = self._tables.get(chunk.handle)
        end = start + len(target)
        request = ReadChunk(
            handle=chunk.handle,
            version=chunk.version,
            offset_bytes=start,
            length_bytes=end - start,
            want_table=table is None,
        )
        position, wide_end = widen_to_blocks(start, end - start, chunk.length_bytes)
        with self._ask(turn, request, timeout_ms) as stream:
            replica = turn.replica
            last = False
            while not last:
                # Whole blocks are received where they are wanted; what does not fit is copied.
                room = target[position - start :] if position >= start else target[:0]
                piece, payload = stream.receive(ChunkPiece, timeout_ms=timeout_ms, into=room)
                last = piece.last
                if table is None:
                    table = self._trust(chunk, piece.table)
                if piece.offset_bytes != position or (not payload and not last):
                    raise ProtocolError(f"{replica.address} sent pieces out of order")
                check_blocks(chunk.handle, payload, table, position)
                low, high = max(start - position, 0), min(end - position, len(payload))
                if len(payload) > len(room):
                    target[position + low - start : position + high - start] = payload[low:high]
                position += len(payload)
                yield high - low
        if position != wide_end:
            raise CorruptChunk(f"chunk {chunk.handle:x}: {replica.address} has too few bytes")

    def _ask(self, turn: "_Turn", request: ReadChunk, timeout_ms: int) -> Stream:
        """A call that the turn's replica answers, or else the next one, if it is sooner ready."""
        began_ms = self._clock.monotonic_ms()
        open_ms = min(timeout_ms, _OPEN_MS_MAX) if turn.waiting else timeout_ms
        first = self._pool.open_stream(turn.replica.address, request, timeout_ms=open_ms)
        delay_ms = self._hedging.delay_ms() if turn.waiting else None
        answered = first
        if delay_ms is not None and first_to_answer([first], delay_ms) is None:
            answered = self._race(turn, first, request, timeout_ms)
        self._hedging.answered(self._clock.monotonic_ms() - began_ms)
        return answered

    def _race(self, turn: "_Turn", first: Stream, request: ReadChunk, timeout_ms: int) -> Stream:
        """Ask the next replica too; whoever answers first has the turn."""
        self._hedging.hedged()
        slow, other = turn.replica, turn.waiting[0]
        try:
            second = self._pool.open_stream(other.address, request, timeout_ms=timeout_ms)
        except MinigfsError:
            return first
        if first_to_answer([first, second], timeout_ms) is first:
            second.close()
            return first
        first.close()
        self._suspects.add(slow.chunkserver_id)
        turn.replica = turn.waiting.pop(0)
        turn.waiting.append(slow)  # it may still be the only one that has the right bytes
        return second

    def _trust(self, chunk: LocatedChunk, table: bytes) -> bytes:
        check_table(chunk, table)
        if len(self._tables) >= _TABLES_KEPT_COUNT_MAX:
            self._tables.clear()
        self._tables[chunk.handle] = table
        return table

    def _report(self, chunk: LocatedChunk, replica: Replica, error: MinigfsError) -> None:
        report = ReportDamage(
            handle=chunk.handle, chunkserver_id=replica.chunkserver_id, reason=str(error)
        )
        try:
            self._masters.call(report)
        except MinigfsError:
            # The read can still succeed elsewhere, and the server itself reports what it finds.
            return
