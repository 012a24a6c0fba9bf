"""Virtual time: what happens next, and nothing else happens.

A heap of (moment, number, action). The number makes the order of equal moments that of their
planning, so a run depends on its seed alone. Time is microseconds since the world began.
"""

import heapq
from collections.abc import Callable
from typing import Any

__all__ = ["MS", "SECOND", "Scheduler"]

MS = 1_000
SECOND = 1_000_000


class Scheduler:
    """One thread of events. An action that is out of date finds that out itself."""

    def __init__(self) -> None:
        self.now_us = 0
        self._planned: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action(*arguments)`` when ``delay_us`` have passed; 0 is as soon as possible."""
        self._count += 1
        heapq.heappush(
            self._planned, (self.now_us + max(0, delay_us), self._count, action, arguments)
        )

    def step(self) -> bool:
        """Let the next event happen; False if nothing is planned."""
        if not self._planned:
            return False
        self.now_us, _, action, arguments = heapq.heappop(self._planned)
        action(*arguments)
        return True
