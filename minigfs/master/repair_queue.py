"""Which chunks repair has to look at, and which of them comes first.

::

    inbox --> (looked at) --> whole: forgotten
                          --> later: a silent server may yet come back
                          --> queue by rank --> (a copy is ordered) --> inbox, when it has ended
                          --> stuck: no server could take it --> inbox, when servers have changed

Whatever may have changed a chunk's standing puts its handle into the inbox, once or several times;
what is there is looked at in slices. So no step walks all chunks, however many there are.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from minigfs.ids import ChunkHandle

__all__ = ["RepairQueue"]

_RANK_COUNT = 16
_LATER_STEP_MS = 500


class RepairQueue:
    """A handle is in at most one rank, or stuck; an inbox may name it as often as it likes."""

    def __init__(self) -> None:
        self._inbox: deque[Iterator[ChunkHandle]] = deque()
        self._later: dict[int, list[ChunkHandle]] = {}
        self._ranks: tuple[dict[ChunkHandle, None], ...] = tuple({} for _ in range(_RANK_COUNT))
        self._rank_of: dict[ChunkHandle, int] = {}
        self._stuck: dict[ChunkHandle, None] = {}

    @property
    def has_unseen(self) -> bool:
        return bool(self._inbox)

    @property
    def waiting_count(self) -> int:
        """Chunks that need a replica: those in the queue and those that are stuck."""
        return len(self._rank_of) + len(self._stuck)

    def look_at(self, handles: Sequence[ChunkHandle]) -> None:
        if handles:
            self._inbox.append(iter(handles))

    def look_at_stuck(self) -> None:
        self.look_at(tuple(self._stuck))

    def look_later(self, handle: ChunkHandle, due_ms: int) -> None:
        self.forget(handle)
        self._later.setdefault(due_ms // _LATER_STEP_MS + 1, []).append(handle)

    def draw(self, count: int, now_ms: int) -> list[ChunkHandle]:
        """The next handles to look at, at most ``count``; none of them twice."""
        for step in [step for step in self._later if step * _LATER_STEP_MS <= now_ms]:
            self.look_at(self._later.pop(step))
        drawn: dict[ChunkHandle, None] = {}
        while self._inbox and len(drawn) < count:
            part = list(islice(self._inbox[0], count - len(drawn)))
            if not part:
                self._inbox.popleft()
            drawn.update(dict.fromkeys(part))
        return list(drawn)

    def put(self, handle: ChunkHandle, rank: int) -> None:
        """Into the queue; the lowest rank comes first, within one the oldest."""
        known = self._rank_of.get(handle)
        if known == rank:
            return
        self.forget(handle)
        self._rank_of[handle] = rank
        self._ranks[rank][handle] = None

    def put_stuck(self, handle: ChunkHandle) -> None:
        self.forget(handle)
        self._stuck[handle] = None

    def forget(self, handle: ChunkHandle) -> None:
        rank = self._rank_of.pop(handle, None)
        if rank is not None:
            del self._ranks[rank][handle]
        self._stuck.pop(handle, None)

    def first(self, count: int) -> list[ChunkHandle]:
        """The most urgent ones, at most ``count``."""
        return list(islice(_chained(self._ranks), count))


def _chained(ranks: Iterable[Iterable[ChunkHandle]]) -> Iterator[ChunkHandle]:
    for rank in ranks:
        yield from rank
