"""The thread that looks, every few seconds, whether each chunk file still is what it was.

It reads only what a file says of itself: that it is there, and whole, the right chunk at the right
version with the sums it was sealed with. A file that was removed, cut, swapped or put back from an
old copy is found by it; damage inside is the scrubber's to find. What is found goes into the
store's ledger, and with the next heartbeat to the master.

A look at thousands of files takes a second of a processor, which others would miss. So it is spread
out, a few files at a time with rest between, and many files are looked at less often than few.
"""

import logging
import threading
from contextlib import suppress

from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import CorruptChunk
from minigfs.ports import Clock, SystemClock

__all__ = ["Inspector"]

logger = logging.getLogger(__name__)

_INTERVAL_MS = 10_000
_BATCH_COUNT = 16  # a few milliseconds
_SHARE = 100  # it may take this part of the time
_STOP_TIMEOUT_S = 3.0


class Inspector:
    """Runs from ``start`` to ``stop``."""

    def __init__(self, store: ChunkStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock: Clock = clock or SystemClock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="minigfs-inspector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            due_ms = self._clock.monotonic_ms() + _INTERVAL_MS
            try:
                self.inspect()
            except OSError as error:  # a full disk, no descriptors left: both pass
                logger.warning("looking at the chunk files is put off: %s", error)
            self._stopping.wait(max(due_ms - self._clock.monotonic_ms(), 0) / 1000)

    def inspect(self) -> None:
        """Look at what every file says of itself, and at what is set aside."""
        self._store.quarantine.look()
        began_ms = self._clock.monotonic_ms()
        for count, chunk in enumerate(self._store.known_chunks()):
            if count and count % _BATCH_COUNT == 0:
                took_ms = max(self._clock.monotonic_ms() - began_ms, 1)
                if self._stopping.wait(_SHARE * took_ms / 1000):
                    return
                began_ms = self._clock.monotonic_ms()
            with suppress(CorruptChunk):  # which the store has noted
                self._store.open_chunk(chunk.handle, chunk.version).close()
