"""How long a client keeps trying: one deadline, and pauses that grow."""

import time

from minigfs.ports import Clock, SystemClock

__all__ = ["TRY_MS_MIN", "Patience"]

_FIRST_PAUSE_MS = 20
_PAUSE_MS_MAX = 500
TRY_MS_MIN = 100  # to be refused or to prove a token takes a few; a busy machine needs more


class Patience:
    """Made when an operation starts; every try and every pause inside it asks this one."""

    def __init__(self, timeout_ms: int, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._deadline_ms = self._clock.monotonic_ms() + timeout_ms
        self._pause_ms = _FIRST_PAUSE_MS

    @property
    def remaining_ms(self) -> int:
        """At least 1, so that it can be handed on as a timeout."""
        return max(1, self._deadline_ms - self._clock.monotonic_ms())

    @property
    def has_time(self) -> bool:
        """Whether there is time for another try."""
        return self._left_ms > 0

    @property
    def _left_ms(self) -> int:
        return self._deadline_ms - self._clock.monotonic_ms() - TRY_MS_MIN

    def pause(self) -> bool:
        """Wait before the next try; False, at once, when there is no time left for one.

        The last try keeps ``TRY_MS_MIN``: one cut short would report lateness instead of why.
        """
        left_ms = self._left_ms
        if left_ms <= 0:
            return False
        # Nothing says when a peer that refuses connections will be back: asking again is the event.
        time.sleep(min(self._pause_ms, left_ms) / 1000)
        self._pause_ms = min(2 * self._pause_ms, _PAUSE_MS_MAX)
        return True
