"""How one chunk stands: which of its replicas are sound, damaged or silent.

Everything that repair decides for a chunk starts from here. A server that this master never heard
of counts as silent since the master began to lead.
"""

from collections.abc import Collection
from dataclasses import dataclass

from minigfs.ids import ChunkserverId
from minigfs.master.membership import ALIVE_MS, Membership, Server
from minigfs.master.state import Chunk

__all__ = ["SILENCE_BORNE_MS", "Standing", "holders_astray", "standing_of"]

# How long a silent server may come back before what it has is copied elsewhere, as long as two
# sound replicas are left: a restart of a process or a machine's short pause should move no data.
SILENCE_BORNE_MS = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    chunk: Chunk
    sound: tuple[Server, ...]  # alive, in the set, and as far as anybody knows right
    leaving: tuple[Server, ...]  # as sound, on servers that are being decommissioned
    lacking: tuple[Server, ...]  # alive and in the set, but damaged or missing
    silent_ms: tuple[int, ...]  # of each server of the set that is not alive

    @property
    def goal(self) -> int:
        return self.chunk.replication

    def wait_ms(self) -> int:
        """How long to wait for silent servers before making up for what they have."""
        if self.lacking:
            return 0
        is_safe = len(self.sound) + len(self.leaving) > 1
        borne_ms = SILENCE_BORNE_MS if is_safe else ALIVE_MS
        left_ms = [borne_ms - silent_ms for silent_ms in self.silent_ms if silent_ms <= borne_ms]
        if len(self.sound) + len(left_ms) < self.goal:
            return 0
        return min(left_ms, default=0)


def standing_of(
    chunk: Chunk,
    membership: Membership,
    draining: Collection[ChunkserverId],
    now_ms: int,
    began_ms: int,
) -> Standing:
    """``began_ms`` is when this master began to lead."""
    sound: list[Server] = []
    leaving: list[Server] = []
    lacking: list[Server] = []
    silent_ms: list[int] = []
    for chunkserver_id in chunk.replicas:
        server = membership.server(chunkserver_id)
        if server is None:
            silent_ms.append(now_ms - began_ms)
        elif not server.is_alive(now_ms):
            silent_ms.append(now_ms - server.last_heard_ms)
        elif server.has(chunk.handle):
            (leaving if chunkserver_id in draining else sound).append(server)
        else:
            lacking.append(server)
    return Standing(
        chunk=chunk,
        sound=tuple(sound),
        leaving=tuple(leaving),
        lacking=tuple(lacking),
        silent_ms=tuple(silent_ms),
    )


def holders_astray(chunk: Chunk, membership: Membership, now_ms: int) -> tuple[Server, ...]:
    """The live servers that are not in the chunk's set and have it all the same."""
    handle = chunk.handle
    return tuple(
        server
        for server in membership.all_servers()
        if handle in server.strays
        and handle not in server.damaged
        and server.chunkserver_id not in chunk.replicas
        and server.is_alive(now_ms)
    )
