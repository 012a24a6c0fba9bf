"""Temporary files made ahead, so that a small file waits for one change of the log and not for two.

Each has one chunk, with its servers. They are made many by one change, as fast as they are taken:
twice as many as the last time if those did not last a second, none as long as nobody writes, and
what is left over is given up after a while. To the log they are temporary files like all others:
whoever leads next knows no spares, and discards what no writer claims. Pure.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from minigfs.ids import ChunkHandle, FileId
from minigfs.master.messages import SPARE_USE_MS

__all__ = ["SpareFile", "SpareFiles"]

FIRST_BATCH_COUNT = 4
BATCH_COUNT_MAX = 64
FAST_MS = 1_000
UNWANTED_MS = 5_000  # since one was asked for


@dataclass(frozen=True, slots=True)
class SpareFile:
    file_id: FileId
    handle: ChunkHandle
    made_ms: int


@dataclass(slots=True)
class _Shelf:
    """The spares of one replication goal, oldest first."""

    files: deque[SpareFile] = field(default_factory=deque)
    batch_count: int = FIRST_BATCH_COUNT
    ordered_ms: int | None = None
    wanted_ms: int = 0
    is_awaited: bool = False


class SpareFiles:
    """All times are milliseconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._shelves: dict[int, _Shelf] = {}

    def take(
        self, goal: int, now_ms: int, is_usable: Callable[[SpareFile], bool]
    ) -> SpareFile | None:
        """The oldest that can be used, if there is any; the others stay for ``unwanted``."""
        shelf = self._shelves.setdefault(goal, _Shelf())
        shelf.wanted_ms = now_ms
        for _ in range(len(shelf.files)):
            file = shelf.files.popleft()
            if now_ms - file.made_ms <= SPARE_USE_MS and is_usable(file):
                return file
            shelf.files.append(file)
        return None

    def to_make(self, goal: int, now_ms: int) -> int:
        """After ``take``: how many to make now, 0 if there are enough. ``made`` is to follow."""
        shelf = self._shelves[goal]
        if shelf.is_awaited or 2 * len(shelf.files) > shelf.batch_count:
            return 0
        if shelf.ordered_ms is not None and now_ms - shelf.ordered_ms < FAST_MS:
            shelf.batch_count = min(2 * shelf.batch_count, BATCH_COUNT_MAX)
        shelf.ordered_ms, shelf.is_awaited = now_ms, True
        return shelf.batch_count

    def made(self, goal: int, files: Iterable[SpareFile]) -> None:
        """What came of an order: nothing, if it failed."""
        shelf = self._shelves[goal]
        shelf.is_awaited = False
        shelf.files.extend(files)

    def unwanted(self, now_ms: int) -> tuple[FileId, ...]:
        """Those to be discarded, since they are too old or nobody asks any more; forgotten here."""
        given_up: list[FileId] = []
        for goal, shelf in list(self._shelves.items()):
            is_wanted = now_ms - shelf.wanted_ms < UNWANTED_MS
            kept = [f for f in shelf.files if is_wanted and now_ms - f.made_ms <= SPARE_USE_MS]
            given_up += [f.file_id for f in shelf.files if f not in kept]
            shelf.files = deque(kept)
            if not is_wanted and not shelf.is_awaited:
                del self._shelves[goal]
        return tuple(given_up)
