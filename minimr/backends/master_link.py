"""Requests to whichever master serves: a worker's line to the coordinator."""

from minigfs.errors import MinigfsError, OutcomeUnknown, Unreachable
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import ReplyT, Request
from minigfs.transport.security import Security

__all__ = ["MasterLink"]


class MasterLink:
    """Thread-safe. Every request that goes through it may be sent twice without harm."""

    def __init__(self, masters: tuple[str, ...], security: Security) -> None:
        assert masters
        self._masters = masters
        self._pool = ConnectionPool(security)

    def call(self, request: Request[ReplyT], *, timeout_ms: int = 10_000) -> ReplyT:
        """The first answer of a master; if none can be reached, the last one's error."""
        trouble: MinigfsError | None = None
        for master in self._masters:
            try:
                return self._pool.call(master, request, timeout_ms=timeout_ms)
            except (Unreachable, OutcomeUnknown) as error:
                trouble = error
        assert trouble is not None
        raise trouble

    def close(self) -> None:
        self._pool.close()
