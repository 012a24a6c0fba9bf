"""One confirmation of leadership serves all reads that wait for one (thesis section 6.4).

::

    reads that arrive ----> wait for the next barrier --\\
    while one is under way                                > one round to the other masters
    a barrier that has begun admits nobody any more -----/

A barrier covers only reads that came before it began: what was acknowledged before they were asked
is then applied here.
"""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["SharedBarrier"]


class SharedBarrier:
    """Belongs to one event loop. ``confirm`` raises if this master does not lead."""

    def __init__(self, confirm: Callable[[], Awaitable[None]]) -> None:
        self._confirm = confirm
        self._begun: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Return when what was acknowledged before this call can be read here."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._begun), name="read-barrier")
            self._next.add_done_callback(_look_at)
        await asyncio.shield(self._next)

    async def _run(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._begun, self._next = self._next, None
        await self._confirm()


def _look_at(barrier: "asyncio.Task[None]") -> None:
    """Its readers may all have hung up; a failure is then nobody's."""
    if not barrier.cancelled():
        barrier.exception()
