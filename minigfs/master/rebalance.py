"""Which replicas to move so that servers are filled alike (GFS section 4.3).

Each server should have its part of all bytes stored, in proportion to its disk. The server that has
most beyond its part gives replicas to those that have least, one chunk after the other, never onto
a server, host or rack where the chunk is less safe. By itself this only evens out great differences
(a new server fills gradually); asked for, it goes on until the servers are nearly alike.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.membership import Membership, Server
from minigfs.master.state import Chunk, FileSystemState

__all__ = ["Move", "Rebalance"]

GENTLE_EXCESS_PERCENT = 10  # of the disk, beyond its part: less is not worth the traffic
ASKED_EXCESS_PERCENT = 2  # of its part
_TRIES_MAX = 200  # chunks looked at for one move


@dataclass(frozen=True, slots=True)
class Move:
    chunk: Chunk
    source: Server
    target: Server


class Rebalance:
    """Remembers where it was; everything else is given."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self.is_asked_for = False
        self._cursors: dict[ChunkserverId, Iterator[ChunkHandle]] = {}

    def next_move(
        self,
        state: FileSystemState,
        servers: Sequence[Server],
        *,
        takers: Collection[ChunkserverId],
        planned: Mapping[ChunkserverId, int],
        is_busy: Callable[[ChunkHandle], bool],
    ) -> Move | None:
        """The move that helps most, from one of ``servers`` to a taker; None if none helps now.

        ``planned`` is how many bytes each will have more or less by moves under way; chunks that
        are busy stay.
        """
        excess = _excess(servers, planned)
        if len(excess) < 2:
            return None
        fullest = max(servers, key=lambda s: (excess[s.chunkserver_id], s.chunkserver_id))
        if excess[fullest.chunkserver_id] <= self._borne(fullest, excess[fullest.chunkserver_id]):
            return None
        targets = sorted(
            (s for s in servers if s.chunkserver_id in takers),
            key=lambda s: (excess[s.chunkserver_id], s.chunkserver_id),
        )
        for chunk in islice(self._chunks_of(fullest, state), _TRIES_MAX):
            if is_busy(chunk.handle):
                continue
            for target in targets:
                gap = excess[fullest.chunkserver_id] - excess[target.chunkserver_id]
                if chunk.length_bytes >= gap:
                    break  # it would only change places with the fullest
                if self._is_as_safe(chunk, fullest, target):
                    return Move(chunk, fullest, target)
        return None

    def _borne(self, server: Server, excess: int) -> int:
        """How much beyond its part a server may have."""
        beat = server.last_heartbeat
        if self.is_asked_for:
            return (beat.stored_bytes - excess) * ASKED_EXCESS_PERCENT // 100
        return beat.capacity_bytes * GENTLE_EXCESS_PERCENT // 100

    def _chunks_of(self, server: Server, state: FileSystemState) -> Iterator[Chunk]:
        """The server's chunks, round and round, each once in a call."""
        for _ in range(2):
            cursor = self._cursors.get(server.chunkserver_id)
            if cursor is None:
                cursor = self._cursors[server.chunkserver_id] = iter(server.held)
            for handle in cursor:
                chunk = state.chunks.get(handle)
                if chunk is not None and chunk.length_bytes:
                    yield chunk
            del self._cursors[server.chunkserver_id]

    def _is_as_safe(self, chunk: Chunk, source: Server, target: Server) -> bool:
        if source.chunkserver_id not in chunk.replicas or target.chunkserver_id in chunk.replicas:
            return False
        others = [
            server.last_heartbeat
            for server in self._membership.servers(chunk.replicas)
            if server is not source
        ]
        before, after = source.last_heartbeat, target.last_heartbeat
        for name in ("host", "rack"):
            labels = {getattr(other, name) for other in others}
            if getattr(after, name) in labels and getattr(before, name) not in labels:
                return False
        return True


def _excess(
    servers: Sequence[Server], planned: Mapping[ChunkserverId, int]
) -> dict[ChunkserverId, int]:
    """How many bytes each server has beyond its part."""
    stored = {
        s.chunkserver_id: s.last_heartbeat.stored_bytes + planned.get(s.chunkserver_id, 0)
        for s in servers
    }
    capacity = {s.chunkserver_id: max(s.last_heartbeat.capacity_bytes, 1) for s in servers}
    total, total_capacity = sum(stored.values()), sum(capacity.values())
    return {
        server: stored[server] - total * capacity[server] // total_capacity for server in stored
    }
