"""One moment by which a whole call must be done, however many waits it is made of."""

from minigfs.ports import Clock

__all__ = ["Deadline"]


class Deadline:
    """Created once for a call and handed down to every wait inside it."""

    __slots__ = ("_at_ms", "_clock", "timeout_ms")

    def __init__(self, clock: Clock, timeout_ms: int | None) -> None:
        """``None`` waits for ever."""
        self._clock = clock
        self._at_ms = None if timeout_ms is None else clock.monotonic_ms() + timeout_ms
        self.timeout_ms = timeout_ms

    def remaining_ms(self) -> int | None:
        """Milliseconds left, at least 1, or ``None`` for ever; ``TimeoutError`` when past."""
        if self._at_ms is None:
            return None
        left = self._at_ms - self._clock.monotonic_ms()
        if left <= 0:
            raise TimeoutError
        return left
