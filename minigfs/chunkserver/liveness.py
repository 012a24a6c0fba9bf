"""Telling a chunkserver that hangs from one that is busy: a busy one answers a ping.

A disk may need ten seconds to sync a chunk, and a process that was stopped, or a machine that is
cut off, breaks no connection. Whoever waits for others asks after a moment of silence whether they
are there, so that one that hangs holds a writer up for two seconds and not for ten.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from minigfs.chunkserver.messages import PingChunkserver
from minigfs.errors import MinigfsError
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool

__all__ = ["silent_servers", "watch_server"]

_PING_MS = 1_000  # a process that is there answers in one; a busy machine needs more


def watch_server(pool: ConnectionPool, address: Address) -> Callable[[], bool]:
    """A ``Watch`` of one server."""
    return lambda: _is_there(pool, address)


def silent_servers(pool: ConnectionPool, addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Those that do not answer, all asked at once."""
    if not addresses:
        return ()
    with ThreadPoolExecutor(len(addresses), thread_name_prefix="minigfs-ping") as threads:
        there = threads.map(lambda address: _is_there(pool, address), addresses)
        return tuple(a for a, is_there in zip(addresses, there, strict=True) if not is_there)


def _is_there(pool: ConnectionPool, address: Address) -> bool:
    try:
        pool.call(address, PingChunkserver(), timeout_ms=_PING_MS)
    except MinigfsError:
        return False
    return True
