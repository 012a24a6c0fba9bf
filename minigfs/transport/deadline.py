"""One moment by which a whole call must be done, however many waits it is made of.

A peer may need long and yet be well, or be silent because it hangs. Who can tell the two apart
gives a *watch*: it is asked after every ``WATCH_MS`` in which a wait saw nothing happen, and ends
the wait when it says that nobody is there.
"""

from collections.abc import Callable
from typing import TypeAlias

from minigfs.ports import Clock

__all__ = ["WATCH_MS", "Deadline", "Watch"]

WATCH_MS = 800

Watch: TypeAlias = Callable[[], bool]  # whether the peer is there; takes its time to find out


class Deadline:
    """Created once for a call and handed down to every wait inside it."""

    __slots__ = ("_at_ms", "_clock", "_watch", "timeout_ms")

    def __init__(self, clock: Clock, timeout_ms: int | None, watch: Watch | None = None) -> None:
        """``None`` waits for ever."""
        self._clock = clock
        self._at_ms = None if timeout_ms is None else clock.monotonic_ms() + timeout_ms
        self._watch = watch
        self.timeout_ms = timeout_ms

    @property
    def is_over(self) -> bool:
        return self._at_ms is not None and self._clock.monotonic_ms() >= self._at_ms

    def wait_ms(self) -> int | None:
        """How long to wait before ``waited`` is to be told; as ``remaining_ms``."""
        left = self.remaining_ms()
        return left if self._watch is None else min(left or WATCH_MS, WATCH_MS)

    def waited(self) -> None:
        """Nothing happened in ``wait_ms``; ``TimeoutError`` when there is nothing to wait for."""
        self.remaining_ms()
        if self._watch is None or not self._watch():
            raise TimeoutError

    def remaining_ms(self) -> int | None:
        """Milliseconds left, at least 1, or ``None`` for ever; ``TimeoutError`` when past."""
        if self._at_ms is None:
            return None
        left = self._at_ms - self._clock.monotonic_ms()
        if left <= 0:
            raise TimeoutError
        return left
