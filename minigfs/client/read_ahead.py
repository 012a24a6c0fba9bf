"""Fetching the next piece while the caller works on this one, for sequential readers only.

A read that starts where the one before it ended is sequential. From the second such read on, one
background thread at a time fetches the piece that follows, which doubles in size while the reader
keeps going. Reads that jump about cost nothing extra. A piece that could not be fetched is dropped
and fetched again by the caller, who then sees the error.
"""

import os
import threading
from collections.abc import Callable

__all__ = ["ReadAhead"]

_FIRST_PIECE_BYTES = 512 * 1024
_PIECE_BYTES_MAX = 4 * 1024 * 1024
_SEQUENTIAL_READS_MIN = 2

Fetch = Callable[[int, int], bytes]


class _Piece:
    """A stretch of the file that a background thread is fetching, or has fetched."""

    def __init__(self, offset: int, length: int) -> None:
        self.offset = offset
        self.end = offset + length
        self._done = threading.Event()
        self._bytes: bytes | None = None

    def fetch(self, fetch: Fetch) -> None:
        try:
            self._bytes = fetch(self.offset, self.end - self.offset)
        except Exception:
            self._bytes = None
        finally:
            self._done.set()

    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self) -> bytes | None:
        """The bytes, or None if they could not be fetched."""
        self._done.wait()
        return self._bytes


class ReadAhead:
    """Sits between a reader's callers and its ``fetch``. Thread-safe."""

    def __init__(self, fetch: Fetch, size_bytes: int) -> None:
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._pieces: list[_Piece] = []  # in order, adjacent, at most one of them not done
        self._next_bytes = _FIRST_PIECE_BYTES
        self._expected_offset = 0
        self._streak = 0

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, both inside the file."""
        end = offset + length
        self._note(offset, end)
        parts: list[bytes | memoryview] = []
        while offset < end:
            ready = self._from_piece(offset, end)
            part = ready if ready is not None else self._fetch(offset, end - offset)
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)

    def _note(self, offset: int, end: int) -> None:
        with self._lock:
            if self._process_id != os.getpid():  # a fork left the fetching threads behind
                self._process_id, self._pieces = os.getpid(), []
            if offset != self._expected_offset:
                self._streak, self._next_bytes, self._pieces = 0, _FIRST_PIECE_BYTES, []
            self._streak += 1
            self._expected_offset = end
            self._pieces = [piece for piece in self._pieces if piece.end > offset]
            if self._streak >= _SEQUENTIAL_READS_MIN:
                self._start_next(end)

    def _start_next(self, end: int) -> None:
        """Start to fetch what comes after ``end`` and after the pieces there are."""
        if self._pieces and not self._pieces[-1].is_done():
            return
        start = max(end, self._pieces[-1].end) if self._pieces else end
        length = min(self._next_bytes, self._size_bytes - start)
        if length <= 0 or start - end > self._next_bytes:
            return
        piece = _Piece(start, length)
        self._pieces.append(piece)
        self._next_bytes = min(2 * self._next_bytes, _PIECE_BYTES_MAX)
        threading.Thread(
            target=piece.fetch, args=(self._fetch,), name="minigfs-read-ahead", daemon=True
        ).start()

    def _from_piece(self, offset: int, end: int) -> memoryview | None:
        with self._lock:
            piece = next((p for p in self._pieces if p.offset <= offset < p.end), None)
        if piece is None:
            return None
        fetched = piece.wait()
        if fetched is None:
            with self._lock:
                self._pieces = [other for other in self._pieces if other is not piece]
            return None
        return memoryview(fetched)[offset - piece.offset : end - piece.offset]
