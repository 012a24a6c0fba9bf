"""A clock that stands still until a test moves it.

Threads of simulated ports wait on it for something to happen or for a moment to come; the test
advances it, after making sure that somebody waits. No real time is spent waiting.
"""

import threading
from collections.abc import Callable

__all__ = ["SimClock", "SimRng"]

GUARD_S = 30.0  # real seconds after which a wait inside a simulation is a bug of the test


class SimClock:
    """Virtual milliseconds. ``changed`` guards all state of the ports that share the clock."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._epoch_ms = now_ms
        self._elapsed_ms = 0
        self._waiting: dict[int, int] = {}  # thread -> when its wait ends
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return self._epoch_ms + self._elapsed_ms

    def monotonic_ms(self) -> int:
        return self._elapsed_ms

    def advance(self, duration_ms: int) -> None:
        """Let time pass; whoever waited for a moment now past goes on."""
        with self.changed:
            self._elapsed_ms += duration_ms
            self.notify()

    def advance_when_awaited(self, duration_ms: int) -> None:
        """Let time pass once some thread waits for a moment no later than then."""
        with self.changed:
            latest = self._elapsed_ms + duration_ms
            awaited = self.changed.wait_for(
                lambda: any(until <= latest for until in self._waiting.values()), GUARD_S
            )
            assert awaited, "nobody waits for the clock"
            self._elapsed_ms = latest
            self.notify()

    def notify(self) -> None:
        """Something changed: look again."""
        with self.changed:
            self.changed.notify_all()
            for listener in self._listeners:
                listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        with self.changed:
            self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        with self.changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def wait_for(self, happened: Callable[[], bool], remaining_ms: int | None) -> None:
        """Return once ``happened``; ``TimeoutError`` when the time is over first."""
        with self.changed:
            me = threading.get_ident()
            until = None if remaining_ms is None else self._elapsed_ms + remaining_ms
            while not happened():
                if until is not None:
                    if self._elapsed_ms >= until:
                        raise TimeoutError
                    if self._waiting.get(me) != until:
                        self._waiting[me] = until
                        self.changed.notify_all()
                woken = self.changed.wait(None if until is None else GUARD_S)
                self._waiting.pop(me, None)
                assert woken, "the test never advanced the clock"


class SimRng:
    """Chance that repeats: SplitMix64 from a seed."""

    def __init__(self, seed: int) -> None:
        self._state = seed & MASK

    def random_u64(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return mixed ^ (mixed >> 31)

    def uniform_ms(self, low: int, high: int) -> int:
        return low + self.random_u64() % (high - low + 1)


MASK = 2**64 - 1
