"""Temporary files that the master gave ahead (``PrepareWrite``), until a writer needs one.

A writer that stores nothing leaves its spare to the next one. What is left over is not given back:
the master discards by itself what no writer claims.
"""

import os
from collections import deque
from dataclasses import dataclass

from minigfs.master.messages import SPARE_USE_MS, Created
from minigfs.ports import Clock, SystemClock

__all__ = ["SpareFile", "SpareFiles"]


class SpareFiles:
    """Of one cluster. Thread-safe, and safe in a finaliser: all steps are atomic."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._unused: deque[SpareFile] = deque()
        self._wanted_until_ms = 0

    def now_ms(self) -> int:
        """To be asked before the master is: a spare's time begins no later than there."""
        return self._clock.monotonic_ms()

    def take(self) -> "SpareFile | None":
        """One that may still be used; it is the caller's alone."""
        while True:
            try:
                spare = self._unused.pop()
            except IndexError:
                return None
            if spare.is_usable():
                return spare

    def put_back(self, spare: "SpareFile") -> None:
        self._unused.append(spare)

    def forget(self) -> None:
        """None of them may be used any more."""
        self._unused.clear()

    def given(self, created: Created, asked_ms: int) -> "SpareFile":
        """What the master gave just now; the caller's alone."""
        until_ms = self._wanted_until_ms = asked_ms + SPARE_USE_MS
        return SpareFile(created, until_ms, os.getpid(), self)

    def are_wanted(self) -> bool:
        """Whether one was given so lately that a writer who asks now could use it still."""
        return self.now_ms() < self._wanted_until_ms


@dataclass(frozen=True, slots=True)
class SpareFile:
    created: Created
    until_ms: int
    process_id: int  # a child of a fork must not write what its parent may write
    _home: SpareFiles

    def is_usable(self) -> bool:
        return self.process_id == os.getpid() and self._home.now_ms() < self.until_ms

    def put_back(self) -> None:
        """Nothing was stored in it: the next writer may have it."""
        self._home.put_back(self)
