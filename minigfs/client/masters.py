"""Calls to the masters, tried again when that is safe.

A request that provably never left (``Unreachable``) is tried again, at the next master, until the
deadline. One that may have been executed (``OutcomeUnknown``) is tried again only if it is
*repeatable*: it changes nothing, or its docstring in ``minigfs.master.messages`` promises that a
repetition changes nothing more.
"""

from minigfs.client.config import ClientConfig
from minigfs.client.patience import Patience
from minigfs.errors import InvalidConfig, OutcomeUnknown, Unreachable
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import ReplyT, Request

__all__ = ["MasterCaller"]


class MasterCaller:
    """Thread-safe. Remembers which master answered last and asks it first."""

    def __init__(self, config: ClientConfig, pool: ConnectionPool) -> None:
        if not config.masters:
            raise InvalidConfig("no master is named: give the address of at least one")
        self._config = config
        self._pool = pool
        self._preferred = 0

    def call(self, request: Request[ReplyT], *, repeatable: bool) -> ReplyT:
        """The reply, or the error the master answered with, or ``Unreachable``,
        ``OutcomeUnknown``, ``DeadlineExceeded`` when there was none in time."""
        patience = Patience(self._config.timeout_ms)
        masters = self._config.masters
        while True:
            failure: OutcomeUnknown | Unreachable | None = None
            for step in range(len(masters)):
                place = (self._preferred + step) % len(masters)
                try:
                    reply = self._pool.call(
                        masters[place], request, timeout_ms=patience.remaining_ms
                    )
                except Unreachable as error:
                    failure = error
                except OutcomeUnknown as error:
                    if not repeatable:
                        raise
                    failure = error
                else:
                    self._preferred = place
                    return reply
            assert failure is not None
            if not patience.pause():
                raise failure
