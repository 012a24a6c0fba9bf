"""The copies that servers were ordered to make: who, from whom, how much at once, until when.

Limits keep repair from taking everything from readers and writers (GFS section 4.3): for each
server so many orders and bytes, as a target and as a source; and a rate, which is the server's
part of what the cluster may use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.heartbeat_messages import CopyOrder
from minigfs.master.membership import Server
from minigfs.master.state import Chunk

__all__ = ["FAILURE_PAUSE_MS", "CopyBook", "RepairLimits", "RunningCopy"]

FAILURE_PAUSE_MS = 5_000  # before a server is asked again for a copy that it could not make
_EXPIRY_MS = 1_000  # between two looks for late ones


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairLimits:
    """What repair may take from readers and writers."""

    server_bytes_per_second: int = 64 << 20  # copied to one server
    cluster_bytes_per_second: int = 1 << 30
    server_bytes_ordered: int = 128 << 20  # two chunks, so that a server never waits for orders
    server_count_ordered: int = 256  # small chunks cost a sync each, not bytes
    source_bytes_ordered: int = 256 << 20
    order_timeout_ms: int = 60_000

    @classmethod
    def at_rate(cls, bytes_per_second: int) -> "RepairLimits":
        """As by default, but so many bytes a second to one server, and orders for two seconds."""
        usual = cls()
        return replace(
            usual,
            server_bytes_per_second=bytes_per_second,
            cluster_bytes_per_second=max(bytes_per_second, usual.cluster_bytes_per_second),
            server_bytes_ordered=max(2 * bytes_per_second, usual.server_bytes_ordered),
            source_bytes_ordered=max(4 * bytes_per_second, usual.source_bytes_ordered),
        )


@dataclass(slots=True, kw_only=True)
class RunningCopy:
    """A copy that was ordered; ``is_made`` once its target has it and the log is to be told."""

    chunk: Chunk
    target: ChunkserverId
    source_ids: tuple[ChunkserverId, ...]
    instead_of: ChunkserverId | None  # a move: whose replica is given up for it
    deadline_ms: int
    is_made: bool = False


@dataclass(slots=True)
class _Load:
    orders: dict[ChunkHandle, CopyOrder] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0


class CopyBook:
    """At most one copy of a chunk runs at a time. Times are of a monotonic clock."""

    def __init__(self, limits: RepairLimits) -> None:
        self._limits = limits
        self._running: dict[ChunkHandle, RunningCopy] = {}
        self._loads: dict[ChunkserverId, _Load] = {}
        self._failing: dict[tuple[ChunkserverId, ChunkHandle], int] = {}  # until when
        self._next_expiry_ms = 0

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, handle: object) -> bool:
        return handle in self._running

    def get(self, handle: ChunkHandle) -> RunningCopy | None:
        return self._running.get(handle)

    def moves(self) -> list[RunningCopy]:
        return [copy for copy in self._running.values() if copy.instead_of is not None]

    def orders_for(self, server: ChunkserverId) -> tuple[CopyOrder, ...]:
        """All copies that the server is to make now, in the order they were given."""
        return tuple(self._load(server).orders.values())

    def bytes_per_second(self, server_count: int) -> int:
        """What each of so many servers may copy."""
        share = self._limits.cluster_bytes_per_second // max(server_count, 1)
        return min(self._limits.server_bytes_per_second, share)

    def has_room(self, target: ChunkserverId, length_bytes: int) -> bool:
        load, limits = self._load(target), self._limits
        if len(load.orders) >= limits.server_count_ordered:
            return False
        return not load.orders or load.bytes_in + length_bytes <= limits.server_bytes_ordered

    def may_send(self, source: ChunkserverId, length_bytes: int) -> bool:
        sent = self.sent_bytes(source)
        return sent == 0 or sent + length_bytes <= self._limits.source_bytes_ordered

    def sent_bytes(self, source: ChunkserverId) -> int:
        """What it is asked for first, by the orders that stand."""
        return self._load(source).bytes_out

    def place(
        self,
        chunk: Chunk,
        target: ChunkserverId,
        sources: Sequence[Server],
        *,
        rate: int,
        now_ms: int,
        instead_of: ChunkserverId | None = None,
    ) -> None:
        """Order a copy; the sources are asked one after the other."""
        others = [server for server in sources if server.chunkserver_id != target]
        load = self._load(target)
        load.orders[chunk.handle] = CopyOrder(
            handle=chunk.handle,
            version=chunk.version,
            length_bytes=chunk.length_bytes,
            digest=chunk.digest,
            sources=tuple(server.last_heartbeat.address for server in others),
            bytes_per_second=rate,
        )
        load.bytes_in += chunk.length_bytes
        if others:
            self._load(others[0].chunkserver_id).bytes_out += chunk.length_bytes
        work_ms = 4_000 * load.bytes_in // max(rate, 1)
        self._running[chunk.handle] = RunningCopy(
            chunk=chunk,
            target=target,
            source_ids=tuple(server.chunkserver_id for server in others),
            instead_of=instead_of,
            deadline_ms=now_ms + self._limits.order_timeout_ms + work_ms,
        )

    def made(self, copy: RunningCopy) -> None:
        """Its target has it; it ends when the log says so."""
        if not copy.is_made:
            copy.is_made = True
            self._unload(copy)

    def end(self, handle: ChunkHandle) -> None:
        copy = self._running.pop(handle, None)
        if copy is not None and not copy.is_made:
            self._unload(copy)

    def withdraw(self, target: ChunkserverId) -> tuple[ChunkHandle, ...]:
        """End all that a server was ordered; what that was."""
        withdrawn = tuple(self._load(target).orders)
        for handle in withdrawn:
            self.end(handle)
        return withdrawn

    def end_late(self, now_ms: int) -> list[ChunkHandle]:
        """End what should have ended long ago; what that was."""
        if now_ms < self._next_expiry_ms:
            return []
        self._next_expiry_ms = now_ms + _EXPIRY_MS
        for key in [key for key, until_ms in self._failing.items() if until_ms <= now_ms]:
            del self._failing[key]
        late = [
            handle
            for handle, copy in self._running.items()
            if now_ms > copy.deadline_ms and not copy.is_made
        ]
        for handle in late:
            self.failed(self._running[handle].target, handle, now_ms)
        return late

    def failed(self, target: ChunkserverId, handle: ChunkHandle, now_ms: int) -> None:
        """The target could not make the copy, and is not asked again for a while."""
        self._failing[target, handle] = now_ms + FAILURE_PAUSE_MS
        copy = self._running.get(handle)
        if copy is not None and copy.target == target:
            self.end(handle)

    def may_try(self, target: ChunkserverId, handle: ChunkHandle) -> bool:
        return (target, handle) not in self._failing

    def retry_ms(self, handle: ChunkHandle) -> int | None:
        """When the first of the servers that could not make a copy may try again."""
        untils = [until for (_, failed), until in self._failing.items() if failed == handle]
        return min(untils, default=None)

    def _unload(self, copy: RunningCopy) -> None:
        load = self._load(copy.target)
        del load.orders[copy.chunk.handle]
        load.bytes_in -= copy.chunk.length_bytes
        if copy.source_ids:
            self._load(copy.source_ids[0]).bytes_out -= copy.chunk.length_bytes

    def _load(self, server: ChunkserverId) -> _Load:
        return self._loads.setdefault(server, _Load())
