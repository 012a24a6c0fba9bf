"""What happened, line by line: a hash of all of it, and the last lines to read.

Two runs are the same run if their hashes are equal. Lines are made of what every process computes
alike; nothing with an address or an order of hashes in it may get here.
"""

import hashlib
from collections import deque
from typing import IO

from tests.sim.scheduler import Scheduler

__all__ = ["Trace"]

LINES_KEPT = 60


class Trace:
    """``detail`` may be any object: it is formatted only where a person reads it."""

    def __init__(self, scheduler: Scheduler, file: IO[str] | None = None) -> None:
        self._scheduler = scheduler
        self._file = file
        self._hash = hashlib.blake2b(digest_size=8)
        self._last: deque[tuple[str, object]] = deque(maxlen=LINES_KEPT)

    def note(self, line: str, detail: object = None) -> None:
        line = f"{self._scheduler.now_us} {line}"
        self._hash.update(line.encode())
        self._last.append((line, detail))
        if self._file is not None:
            self._file.write(readable(line, detail) + "\n")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def last_lines(self, count: int = 40) -> list[str]:
        return [readable(line, detail) for line, detail in list(self._last)[-count:]]


def readable(line: str, detail: object) -> str:
    moment, _, rest = line.partition(" ")
    text = f"{int(moment) / 1000:12.3f} ms  {rest}"
    return text if detail is None else f"{text}  {detail!r}"[:600]
