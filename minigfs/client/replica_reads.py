"""Verified reads of one chunk from whichever of its replicas can give the right bytes.

The first read of a chunk asks the server for the chunk's table of sums and holds it against the
digest in the master's log; every block is then held against the table, so what a reader returns is
what the writer closed, whatever disks, memory or wires did in between. A replica with wrong bytes
is reported, one that does not answer is remembered as suspect and asked last for a while; the read
goes on at the next one from the first byte that is still missing.

(Same-host reads through a passed file descriptor belong in ``_stream``: the table and the length
come in the reply all the same, so nothing above it changes.)
"""

from collections.abc import Iterator, Mapping

from minigfs.chunkserver.checksum import (
    digest_of_table,
    first_bad_block,
    table_slice,
    widen_to_blocks,
)
from minigfs.chunkserver.messages import ChunkPiece, ReadChunk
from minigfs.client.locations import ChunkMap
from minigfs.client.masters import MasterCaller
from minigfs.client.patience import Patience
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import (
    CorruptChunk,
    DamageError,
    MinigfsError,
    ProtocolError,
    SecurityError,
    Unreachable,
)
from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.messages import LocatedChunk, Replica, ReportDamage
from minigfs.ports import Clock, SystemClock
from minigfs.transport.client import ConnectionPool

__all__ = ["ReplicaReader", "SuspectServers"]

_SUSPECT_MS = 5_000  # the master needs as long to call a silent server dead
_FIRST_TRY_TIMEOUT_MS = 2_000  # a server that hangs costs a reader no more than this once
_TABLES_KEPT_COUNT_MAX = 64  # 8 KiB each at 64 MiB chunks


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


class ReplicaReader:
    """Reads the chunks of one open file. Thread-safe."""

    def __init__(
        self,
        chunk_map: ChunkMap,
        *,
        masters: MasterCaller,
        pool: ConnectionPool,
        suspects: SuspectServers,
        timeout_ms: int,
    ) -> None:
        self._map = chunk_map
        self._masters = masters
        self._pool = pool
        self._suspects = suspects
        self._timeout_ms = timeout_ms
        self._tables: dict[ChunkHandle, bytes] = {}

    def pieces(self, index: int, start: int, end: int) -> Iterator[memoryview]:
        """The bytes ``[start, end)`` of a chunk, verified, in order, in pieces.

        Raises ``CorruptChunk`` when no replica has them right, ``Unreachable`` when none that has
        answered before the deadline.
        """
        patience = Patience(self._timeout_ms)
        chunk = self._map.chunk(index)
        damaged: dict[ChunkserverId, str] = {}
        timeout_ms = min(_FIRST_TRY_TIMEOUT_MS, self._timeout_ms)
        while True:
            failure: MinigfsError | None = None
            for replica in self._suspects.order(chunk):
                if replica.chunkserver_id in damaged:
                    continue
                try:
                    for piece in self._stream(chunk, replica, start, end, timeout_ms):
                        start += len(piece)
                        yield piece
                    return
                except SecurityError:
                    raise
                except DamageError as error:
                    damaged[replica.chunkserver_id] = f"{replica.address}: {error}"
                    self._report(chunk, replica, error)
                except MinigfsError as error:
                    failure = error
                    self._suspects.add(replica.chunkserver_id)
            chunk = self._after_all_failed(chunk, damaged, failure, patience)
            timeout_ms = patience.remaining_ms

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
        if not patience.pause():
            reason = f"last error: {failure}" if failure is not None else "no server has it now"
            raise Unreachable(
                f"{where}: no chunkserver answered in time; {reason};"
                " see `status`, and start the chunkservers that are missing"
            ) from failure
        return chunk

    def _stream(
        self, chunk: LocatedChunk, replica: Replica, start: int, end: int, timeout_ms: int
    ) -> Iterator[memoryview]:
        table = self._tables.get(chunk.handle)
        request = ReadChunk(
            handle=chunk.handle,
            version=chunk.version,
            offset_bytes=start,
            length_bytes=end - start,
            want_table=table is None,
        )
        position, wide_end = widen_to_blocks(start, end - start, chunk.length_bytes)
        with self._pool.open_stream(replica.address, request, timeout_ms=timeout_ms) as stream:
            last = False
            while not last:
                piece, payload = stream.receive(ChunkPiece, timeout_ms=timeout_ms)
                last = piece.last
                if table is None:
                    table = self._trust(chunk, piece.table)
                if piece.offset_bytes != position or (not payload and not last):
                    raise ProtocolError(f"{replica.address} sent pieces out of order")
                _verify(chunk, payload, table, position)
                low, high = max(start - position, 0), min(end - position, len(payload))
                position += len(payload)
                yield payload[low:high]
        if position != wide_end:
            raise CorruptChunk(f"chunk {chunk.handle:x}: {replica.address} has too few bytes")

    def _trust(self, chunk: LocatedChunk, table: bytes) -> bytes:
        if digest_of_table(table) != chunk.digest:
            raise CorruptChunk(f"chunk {chunk.handle:x}: not the bytes that were published")
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


def _verify(chunk: LocatedChunk, data: memoryview, table: bytes, offset: int) -> None:
    assert offset % CHECKSUM_BLOCK_BYTES == 0
    first_block = offset // CHECKSUM_BLOCK_BYTES
    expected = table_slice(table, first_block, len(data))
    bad_block = first_bad_block(data, expected, handle=chunk.handle, first_block=first_block)
    if bad_block is not None:
        raise CorruptChunk(f"chunk {chunk.handle:x}: block {bad_block} arrived damaged")
