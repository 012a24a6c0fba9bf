"""Waiting on the loop for something that only changes now and then, as a condition."""

import asyncio
from collections.abc import Callable

__all__ = ["Pulse"]


class Pulse:
    """Whoever changes things calls ``beat``; whoever waits looks again at each beat."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def beat(self) -> None:
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

    def next(self) -> "asyncio.Future[None]":
        """Done at the next beat; cancelling it disturbs nobody else."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._next)

    async def until(self, holds: Callable[[], bool], *, timeout_ms: int | None) -> bool:
        """Whether it held within the time."""
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_ms is None else loop.time() + timeout_ms / 1000
        while not holds():
            left_s = None if deadline_s is None else deadline_s - loop.time()
            if left_s is not None and left_s <= 0:
                return False
            await asyncio.wait([self.next()], timeout=left_s)
        return True
