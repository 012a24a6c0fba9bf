"""When the replicas of a file were last read whole by their servers, and found sound."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from minigfs.chunkserver.messages import GetScrubTimes
from minigfs.errors import MinigfsError, SecurityError
from minigfs.ids import ChunkHandle
from minigfs.master.messages import LocatedChunk
from minigfs.transport.client import ConnectionPool

__all__ = ["ScrubTimes", "scrub_times"]

ScrubTimes = Mapping[tuple[ChunkHandle, str], int | None]
"""Milliseconds since the epoch by chunk and server's address; 0: never; None: it did not answer."""

_TIMEOUT_MS = 3_000
_HANDLES_PER_CALL = 10_000


def scrub_times(pool: ConnectionPool, chunks: Iterable[LocatedChunk]) -> ScrubTimes:
    """One call or few of each server that has some of the chunks."""
    asked: dict[str, list[ChunkHandle]] = defaultdict(list)
    for chunk in chunks:
        for replica in chunk.replicas:
            asked[replica.address].append(chunk.handle)
    found: dict[tuple[ChunkHandle, str], int | None] = {}
    for address, handles in asked.items():
        for start in range(0, len(handles), _HANDLES_PER_CALL):
            some = tuple(handles[start : start + _HANDLES_PER_CALL])
            times = _ask(pool, address, some)
            found.update(((handle, address), at) for handle, at in zip(some, times, strict=True))
    return found


def _ask(
    pool: ConnectionPool, address: str, handles: tuple[ChunkHandle, ...]
) -> tuple[int | None, ...]:
    try:
        return pool.call(address, GetScrubTimes(handles=handles), timeout_ms=_TIMEOUT_MS).times_ms
    except SecurityError:
        raise
    except MinigfsError:
        return (None,) * len(handles)
