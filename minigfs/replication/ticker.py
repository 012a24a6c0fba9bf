"""Turns time into ticks, and does not make up for a pause.

A process that was stopped, or a loop that was busy, finds that much time has passed. To count all
of it would mean to blame the others for a silence that was its own: only a few ticks are given.
"""

import asyncio
from collections.abc import Callable

__all__ = ["Ticker"]


class Ticker:
    """``tick(count)`` is called on the running loop, ``count`` being 1 unless some were late."""

    def __init__(self, tick: Callable[[int], None], *, tick_ms: int, catch_up_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick = tick
        self._tick_s = tick_ms / 1000
        self._catch_up_max = catch_up_max
        self._ticked_at_s = self._loop.time()
        self._timer = self._loop.call_later(self._tick_s, self._on_timer)

    def stop(self) -> None:
        self._timer.cancel()

    def _on_timer(self) -> None:
        now_s = self._loop.time()
        due = int((now_s - self._ticked_at_s) / self._tick_s)
        given = min(due, self._catch_up_max)
        self._ticked_at_s = now_s if given < due else self._ticked_at_s + given * self._tick_s
        self._timer = self._loop.call_at(self._ticked_at_s + self._tick_s, self._on_timer)
        if given:
            self._tick(given)
