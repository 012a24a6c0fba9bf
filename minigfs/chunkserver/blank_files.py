"""Files made ahead for small chunks, so that none waits for a file to be made.

::

    blank/<number>.blank     a page or two of zeros, synced, and its name as well
             |               a chunk is written over the zeros: its sync has nothing but its bytes
             +-------------> chunks/<handle>.chunk, a second name; now it may be acknowledged
             x               the first name goes when the second is durable

So at every moment a durable name leads to a chunk that was acknowledged, and a small chunk waits
for one sync of a file whose place on the disk is settled. What a start finds here is either such a
chunk, which then gets its second name, or was never acknowledged.

A thread makes blanks, as fast as they are taken: twice as many as the last time if those did not
last a second. Who finds none makes a file as for any other chunk.
"""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from minigfs.ports import Clock, Disk, DiskFile, SystemClock

__all__ = ["BLANKS", "BLANK_BYTES", "BLANK_SUFFIX", "BlankFile", "BlankFiles"]

logger = logging.getLogger(__name__)

BLANKS = "blank"
BLANK_SUFFIX = ".blank"
BLANK_BYTES = 8192  # header and table take one page, and most of what is small fits in another

_FIRST_COUNT = 4
_COUNT_MAX = 64
_FAST_MS = 1_000
_TIDY_S = 1.0  # after a blank was used
_STOP_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class BlankFile:
    path: str
    file: DiskFile


class BlankFiles:
    """Thread-safe; the thread runs from ``start`` to ``stop``, and who has none calls ``work``."""

    def __init__(
        self,
        disk: Disk,
        *,
        has_room: Callable[[], bool],
        sync_names: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        """``has_room``: whether the disk may be given more files. ``sync_names`` makes the second
        names durable."""
        self._disk = disk
        self._has_room = has_room
        self._sync_names = sync_names
        self._clock: Clock = clock or SystemClock()
        self._ready: deque[BlankFile] = deque()
        self._count = _FIRST_COUNT
        self._made_ms: int | None = None
        self._wanted = False
        self._used: deque[str] = deque()  # first names of what has a second one
        self._is_untidy = False
        self._numbers = itertools.count(1)
        self._woken = threading.Event()
        self._stopping = False
        self._failed: Callable[[OSError], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="minigfs-blanks", daemon=True)

    def start(self, failed: Callable[[OSError], None]) -> None:
        """``failed`` is told what the disk raised."""
        self._failed = failed
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)
        while self._ready:
            self._ready.popleft().file.close()

    def take(self) -> BlankFile | None:
        """One that is the caller's alone, to be ``used`` or removed. None if there is none."""
        try:
            blank = self._ready.popleft()
        except IndexError:
            blank = None
        if 2 * len(self._ready) <= self._count and not self._wanted:
            self._wanted = True
            self._woken.set()
        return blank

    def used(self, blank: BlankFile) -> None:
        """It has its second name."""
        self._used.append(blank.path)
        if not self._is_untidy:
            self._is_untidy = True
            self._woken.set()

    def work(self) -> None:
        """Make what is wanted, and take away the first names of what was used."""
        try:
            self._take_first_names_away()
        finally:
            if self._wanted:
                self._wanted = False
                if self._has_room():
                    self._make()

    def _take_first_names_away(self) -> None:
        """Those of which it fails stay for the next time."""
        self._is_untidy = False
        count = len(self._used)
        if count:
            self._sync_names()
        for _ in range(count):
            with suppress(FileNotFoundError):
                self._disk.remove(self._used[0])
            self._used.popleft()

    def _make(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if self._made_ms is not None and now_ms - self._made_ms < _FAST_MS:
            self._count = min(2 * self._count, _COUNT_MAX)
        self._made_ms = now_ms
        blanks: list[BlankFile] = []
        try:
            while len(blanks) + len(self._ready) < self._count:
                path = f"{BLANKS}/{next(self._numbers)}{BLANK_SUFFIX}"
                blanks.append(BlankFile(path, self._disk.open(path, create=True, exclusive=True)))
                blanks[-1].file.write_at(0, bytes(BLANK_BYTES))
            for blank in blanks:
                blank.file.sync()
            self._disk.sync_dir(BLANKS)
        except OSError:
            for blank in blanks:
                blank.file.close()
                self._disk.remove(blank.path)
            raise
        self._ready.extend(blanks)

    def _run(self) -> None:
        while not self._stopping:
            self._woken.wait()
            self._woken.clear()
            if not (self._wanted or self._stopping):
                self._woken.wait(_TIDY_S)  # more of them will be used meanwhile
            try:
                self.work()
            except OSError as error:  # whoever needs a file meets it again
                logger.warning("files made ahead: %s", error)
                self._failed(error)
                if self._used:  # some first names are still there
                    self._woken.set()
