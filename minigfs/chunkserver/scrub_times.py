"""When each chunk here was last read whole and found sound; kept over restarts.

It is told to people and decides nothing, so it is written seldom: what a crash loses makes a chunk
look as if it was read longer ago than it was, never later.
"""

import logging
import threading
from collections.abc import Iterable

import msgspec

from minigfs.ids import ChunkHandle
from minigfs.ports import Clock, Disk

__all__ = ["ScrubTimes"]

logger = logging.getLogger(__name__)

_FILE = "scrubbed.msgpack"


class ScrubTimes:
    """Milliseconds since the epoch, by chunk. Thread-safe."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._lock = threading.Lock()
        self._times = _read(disk)
        self._is_saved = True

    def note(self, handle: ChunkHandle) -> None:
        """All of the chunk was read just now."""
        with self._lock:
            self._times[handle] = self._clock.now_ms()
            self._is_saved = False

    def of(self, handle: ChunkHandle) -> int:
        """0 for never."""
        return self._times.get(handle, 0)

    def save(self, known: Iterable[ChunkHandle]) -> None:
        """Write the times of the chunks that are here, and forget the others."""
        with self._lock:
            if self._is_saved:
                return
            self._times = {handle: self._times[handle] for handle in known if handle in self._times}
            content = msgspec.msgpack.encode(self._times)
            self._is_saved = True
        part = f"{_FILE}.part"
        with self._disk.open(part, create=True) as file:
            file.truncate(0)
            file.write_at(0, content)
            file.sync()
        self._disk.rename(part, _FILE)


def _read(disk: Disk) -> dict[ChunkHandle, int]:
    if not disk.exists(_FILE):
        return {}
    with disk.open(_FILE) as file:
        content = file.read_at(0, file.size_bytes())
    try:
        return msgspec.msgpack.decode(content, type=dict[ChunkHandle, int])
    except msgspec.DecodeError as error:
        logger.warning("%s cannot be read (%s): nothing is known of earlier scrubs", _FILE, error)
        return {}
