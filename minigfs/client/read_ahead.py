"""Fetching the next stretch while the caller works on this one, for sequential readers only.

A read that starts where the one before it ended is sequential. From the second such read on, one
background thread at a time fetches the stretch that follows, which doubles in size while the reader
keeps going. Reads that jump about cost nothing extra. A stretch that could not be fetched is
dropped and fetched again by the caller, who then sees the error.
"""

import os
import threading
from collections.abc import Callable

__all__ = ["ReadAhead"]

_FIRST_STRETCH_BYTES = 512 * 1024
_STRETCH_BYTES_MAX = 4 * 1024 * 1024
_SEQUENTIAL_READS_MIN = 2

Fetch = Callable[[int, memoryview], None]
"""``fetch(offset, target)`` fills ``target`` with the bytes from ``offset`` on, or raises."""


class _Stretch:
    """A part of the file that a background thread is fetching, or has fetched."""

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self._done = threading.Event()
        self._content: memoryview | None = None

    def fetch(self, fetch: Fetch) -> None:
        try:
            memory = memoryview(bytearray(self.end - self.offset))
            fetch(self.offset, memory)
            self._content = memory
        except Exception:
            # Whatever it was, the caller fetches again in its own thread and meets it there.
            self._content = None
        finally:
            self._done.set()

    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self) -> bool:
        """Whether it could be fetched."""
        self._done.wait()
        return self._content is not None

    def copy(self, offset: int, target: memoryview) -> int:
        """Put what it has from ``offset`` on into ``target``; how many bytes that was."""
        assert self._content is not None
        count = min(self.end - offset, len(target))
        start = offset - self.offset
        target[:count] = self._content[start : start + count]
        return count


class ReadAhead:
    """Sits between a reader's callers and its ``fetch``. Thread-safe."""

    def __init__(self, fetch: Fetch, size_bytes: int) -> None:
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._stretches: list[_Stretch] = []  # in order, adjacent, at most one of them not done
        self._next_bytes = _FIRST_STRETCH_BYTES
        self._expected_offset = 0
        self._streak = 0

    def fill(self, offset: int, target: memoryview) -> None:
        """Put the bytes from ``offset`` on into ``target``; all of them lie inside the file."""
        self._note(offset, offset + len(target))
        while target:
            stretch = self._stretch_at(offset)
            if stretch is None or not stretch.wait():
                self._forget(stretch)
                self._fetch(offset, target)
                return
            count = stretch.copy(offset, target)
            offset, target = offset + count, target[count:]

    def _note(self, offset: int, end: int) -> None:
        with self._lock:
            if self._process_id != os.getpid():  # a fork left the fetching threads behind
                self._process_id, self._stretches = os.getpid(), []
            if offset != self._expected_offset:
                self._streak, self._next_bytes, self._stretches = 0, _FIRST_STRETCH_BYTES, []
            self._streak += 1
            self._expected_offset = end
            self._stretches = [one for one in self._stretches if one.end > offset]
            if self._streak >= _SEQUENTIAL_READS_MIN:
                self._start_next(end)

    def _start_next(self, end: int) -> None:
        """Start to fetch what comes after ``end`` and after the stretches there are."""
        if self._stretches and not self._stretches[-1].is_done():
            return
        start = max(end, self._stretches[-1].end) if self._stretches else end
        stop = min(start + self._next_bytes, self._size_bytes)
        if stop <= start or start - end > self._next_bytes:
            return
        stretch = _Stretch(start, stop)
        self._stretches.append(stretch)
        self._next_bytes = min(2 * self._next_bytes, _STRETCH_BYTES_MAX)
        threading.Thread(
            target=stretch.fetch, args=(self._fetch,), name="minigfs-read-ahead", daemon=True
        ).start()

    def _stretch_at(self, offset: int) -> _Stretch | None:
        with self._lock:
            return next((one for one in self._stretches if one.offset <= offset < one.end), None)

    def _forget(self, stretch: _Stretch | None) -> None:
        with self._lock:
            self._stretches = [one for one in self._stretches if one is not stretch]
