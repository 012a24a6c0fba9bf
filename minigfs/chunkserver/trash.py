"""Deleted chunks, kept for a while: a deletion is the one order that cannot be taken back.

::

    chunks/<handle>.chunk  -- deleted -->  trash/<handle>.<milliseconds>.chunk  -- later -->  gone
                           <-- restored --

A file rests for ``REST_MS``. When the disk runs short of space the oldest go first and at once,
so the trash never takes space that new data needs. What belonged to a file that was never
published does not come here at all. Everything is told by the names, so a restart knows what a
crash left; when a rename is lost in a crash, the file stands where it was and the master orders its
deletion again.
"""

import logging
import re
import threading
from dataclasses import dataclass

from minigfs.disk_room import short_at_bytes
from minigfs.ids import ChunkHandle
from minigfs.ports import Clock, Disk

__all__ = ["REST_MS", "TRASH", "Trash", "Trashed"]

logger = logging.getLogger(__name__)

TRASH = "trash"
REST_MS = 3 * 24 * 3_600_000  # GFS section 4.4

_NAME = re.compile(r"([0-9a-f]{16})\.(\d{1,15})\.chunk")


@dataclass(frozen=True, slots=True, order=True)
class Trashed:
    """One file of the trash; they sort by age, the oldest first."""

    since_ms: int
    handle: ChunkHandle

    @property
    def path(self) -> str:
        return f"{TRASH}/{self.handle:016x}.{self.since_ms}.chunk"


class Trash:
    """Thread-safe. Call ``open`` before anything else."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[ChunkHandle, Trashed] = {}  # the oldest first

    def open(self) -> None:
        self._disk.make_dirs(TRASH)
        found = sorted(
            Trashed(int(match[2]), ChunkHandle(int(match[1], 16)))
            for name in self._disk.list(TRASH)
            if (match := _NAME.fullmatch(name))
        )
        for trashed in found:
            older = self._kept.pop(trashed.handle, None)
            if older is not None:  # two of one handle: a crash came between
                self._remove(older)
            self._kept[trashed.handle] = trashed

    def put(self, path: str, handle: ChunkHandle) -> None:
        """Take in the file at ``path``; one of the same handle is replaced."""
        trashed = Trashed(self._clock.now_ms(), handle)
        self._disk.rename(path, trashed.path)
        with self._lock:
            before = self._kept.pop(handle, None)
            self._kept[handle] = trashed
        if before is not None and before != trashed:
            self._remove(before)

    def restore(self, handle: ChunkHandle, path: str) -> bool:
        """Put the newest file of a handle back to ``path``; whether there was one."""
        with self._lock:
            trashed = self._kept.pop(handle, None)
        if trashed is None or not self._disk.exists(trashed.path):
            return False
        self._disk.rename(trashed.path, path)
        return True

    def handles(self) -> tuple[ChunkHandle, ...]:
        with self._lock:
            return tuple(self._kept)

    def purge(self) -> int:
        """Remove what has rested long enough, and the oldest while the disk is nearly full; how
        many files went."""
        removed = 0
        while (oldest := self._take_oldest()) is not None:
            self._remove(oldest)
            removed += 1
        return removed

    def _take_oldest(self) -> Trashed | None:
        """Out of what is kept, if it is to go."""
        with self._lock:
            oldest = next(iter(self._kept.values()), None)
            if oldest is None or not self._is_to_go(oldest):
                return None
            return self._kept.pop(oldest.handle)

    def _is_to_go(self, trashed: Trashed) -> bool:
        has_rested = self._clock.now_ms() - trashed.since_ms >= REST_MS
        return has_rested or self._is_short_of_space()

    def _is_short_of_space(self) -> bool:
        return self._disk.free_bytes() < short_at_bytes(self._disk.capacity_bytes())

    def _remove(self, trashed: Trashed) -> None:
        if self._disk.exists(trashed.path):
            self._disk.remove(trashed.path)
