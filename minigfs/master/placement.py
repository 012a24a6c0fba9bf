"""Where replicas go, and which of too many is given up (GFS sections 4.2, 4.3).

Distinct hosts first, then distinct racks, then the server that carries the least for its free
space: chunks recently created there, against the bytes it has free. That fills disks evenly, yet
sends no flood of writes to a server that has just joined and is empty. The order of a set is the
order of its chain and of the replicas that readers try, so it starts at a random member.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import msgspec

from minigfs.disk_room import full_at_bytes
from minigfs.errors import NoSpace, NotEnoughChunkservers
from minigfs.ids import ChunkserverId

__all__ = ["Candidate", "ReplicaSets", "choose_replica_sets", "choose_target", "choose_victim"]

ReplicaSets: TypeAlias = tuple[tuple[ChunkserverId, ...], ...]

_LOAD_SCALE = 2**64  # keeps the load an integer: free bytes are below it


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A live chunkserver, as far as placement cares."""

    chunkserver_id: ChunkserverId
    host: str
    rack: str
    capacity_bytes: int
    free_bytes: int
    recent_creations: int
    stored_bytes: int = 0  # of chunks

    @property
    def use(self) -> float:
        """The part of what it may have for chunks that it has used: 0 to 1."""
        return self.stored_bytes / max(self.stored_bytes + self.free_bytes, 1)

    @property
    def is_full(self) -> bool:
        return self.free_bytes <= full_at_bytes(self.capacity_bytes)


def choose_replica_sets(
    candidates: Sequence[Candidate],
    *,
    count: int,
    replication: int,
    draw_u64: Callable[[], int],
    excluded: Collection[ChunkserverId] = (),
) -> ReplicaSets:
    """Servers for ``count`` chunks, ``replication`` each or as many as there are, at least one.

    Raises
    ------
    NotEnoughChunkservers
        No chunkserver is left.
    NoSpace
        All of them are full.
    """
    allowed = [c for c in candidates if c.chunkserver_id not in excluded]
    if not allowed:
        raise NotEnoughChunkservers(
            f"no chunkserver can take a chunk: {len(candidates)} alive, "
            f"{len(excluded)} excluded by the writer; start more, or try again"
        )
    usable = [c for c in allowed if not c.is_full]
    if not usable:
        raise NoSpace(
            f"the disks of all {len(allowed)} chunkservers are full: free space, or add one"
        )
    creations = {c.chunkserver_id: c.recent_creations for c in usable}
    sets = [_choose_one(usable, creations, replication) for _ in range(count)]
    return tuple(_rotate(chosen, draw_u64() % len(chosen)) for chosen in sets)


def choose_target(
    candidates: Sequence[Candidate],
    members: Sequence[Candidate],
    creations: Mapping[ChunkserverId, int],
) -> ChunkserverId:
    """Which of the candidates is the best place for one more replica beside those of ``members``;
    ``creations`` are recent creations by now."""
    hosts = [member.host for member in members]
    racks = [member.rack for member in members]
    best = min(candidates, key=lambda c: _burden(c, hosts, racks, creations[c.chunkserver_id]))
    return best.chunkserver_id


def choose_victim(members: Sequence[Candidate]) -> ChunkserverId:
    """Which of too many replicas to give up: one that shares its host, then its rack, with
    another; of several, the one whose server has used most of its space."""
    hosts = [member.host for member in members]
    racks = [member.rack for member in members]
    worst = max(
        members,
        key=lambda m: (hosts.count(m.host), racks.count(m.rack), m.use, m.chunkserver_id),
    )
    return worst.chunkserver_id


def _burden(
    candidate: Candidate, hosts: Sequence[str], racks: Sequence[str], creations: int
) -> tuple[int, int, int, str]:
    """The smaller, the better a place beside replicas on these hosts and racks."""
    return (
        hosts.count(candidate.host),
        racks.count(candidate.rack),
        (creations + 1) * _LOAD_SCALE // max(candidate.free_bytes, 1),
        candidate.chunkserver_id,
    )


def _rotate(chosen: tuple[ChunkserverId, ...], by: int) -> tuple[ChunkserverId, ...]:
    return chosen[by:] + chosen[:by]


def _choose_one(
    usable: Sequence[Candidate], creations: dict[ChunkserverId, int], replication: int
) -> tuple[ChunkserverId, ...]:
    """One replica set; ``creations`` is brought up to date."""
    left = list(usable)
    hosts: list[str] = []
    racks: list[str] = []
    chosen: list[ChunkserverId] = []
    while left and len(chosen) < replication:
        best = min(left, key=lambda c: _burden(c, hosts, racks, creations[c.chunkserver_id]))
        left.remove(best)
        hosts.append(best.host)
        racks.append(best.rack)
        chosen.append(best.chunkserver_id)
        creations[best.chunkserver_id] += 1
    return tuple(chosen)
