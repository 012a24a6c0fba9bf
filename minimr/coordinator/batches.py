"""How many short tasks a slot is offered at a time: a poll and a report cost more than they do.

Never so many that others would have nothing to do (half of an even share of what is idle, so that
the last ones are offered one by one), nor more than ``BATCH_MS`` of work by what attempts of their
phase took so far. If one of them takes long all the same, its worker gives back those behind it.
"""

from minimr.coordinator.pace import Pace

__all__ = ["Batch"]

BATCH_MS = 200  # twenty times what an offer costs; nobody waits long for what is at hand


class Batch:
    """One offer in the making, for a worker that takes ``slowness_permille / 1000`` times as long
    as usual (0: not known)."""

    def __init__(
        self, pace: Pace, *, most: int, idle_count: int, slot_count: int, slowness_permille: int
    ) -> None:
        self._pace = pace
        self._left_count = min(most, 1 + idle_count // (2 * max(1, slot_count)))
        self._left_us = BATCH_MS * 1_000_000 // max(1000, slowness_permille)

    @property
    def is_full(self) -> bool:
        return self._left_count <= 0 or self._left_us <= 0

    def takes(self, size_bytes: int) -> bool:
        """Add a task of ``size_bytes`` (0: not known); False if there was no room for it."""
        expected_ms = max(self._pace.mean_ms, self._pace.expected_ms(size_bytes))
        self._left_count -= 1
        self._left_us -= expected_ms * 1000
        return self._left_count >= 0 and self._left_us >= 0
