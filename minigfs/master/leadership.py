"""Leads a master's services in and out of leadership, one after the other.

::

    the member leads in term t  -->  lead(t) of each service, in order  -->  the master serves
    it leads no more            -->  lead is cancelled; follow() of each, in reverse order

Leadership may be lost at any moment, also while services are being led in.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from minigfs.errors import ClusterError
from minigfs.replication.host import ReplicatedHost

__all__ = ["Leadership", "LedService"]

logger = logging.getLogger(__name__)

RETRY_S = 0.5


class LedService(Protocol):
    async def lead(self, term: int) -> None:
        """This member leads: its machines show everything that was ever acknowledged.

        May propose. Cancelled if leadership is lost meanwhile. A ``ClusterError`` (a full disk,
        leadership lost) is tried again while the term lasts; any other error ends the process.
        """
        ...

    def follow(self) -> None:
        """It leads no more, or never did: answer nobody, propose nothing. At once."""
        ...


class Leadership:
    """Belongs to a running loop."""

    def __init__(self, host: ReplicatedHost, services: Sequence[LedService]) -> None:
        self.serving = asyncio.Event()
        self._host = host
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.watch_leadership(self._changed)

    async def wait_failed(self) -> None:
        """Raise when a service could not be led in, ever."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        self._changed(None)
        if self._task is not None:
            await asyncio.wait([self._task])
        self._failure.cancel()

    def _changed(self, term: int | None) -> None:
        self.serving.clear()
        before = self._task
        if before is not None:
            before.cancel()
        for service in reversed(self._services):
            service.follow()
        if term is not None:
            self._task = asyncio.create_task(self._lead(term, before), name="lead")

    async def _lead(self, term: int, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            for service in self._services:
                while not await self._lead_service(service, term):
                    await asyncio.sleep(RETRY_S)  # a full disk says nothing when it has room again
        except Exception as error:  # a master that leads and cannot serve helps nobody
            if not self._failure.done():
                self._failure.set_exception(error)
        else:
            self.serving.set()

    async def _lead_service(self, service: LedService, term: int) -> bool:
        try:
            await service.lead(term)
        except ClusterError as error:
            logger.warning("cannot serve in term %d yet: %s", term, error)
            service.follow()
            return False
        return True
