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
from collections.abc import Collection, Iterator
from itertools import chain, islice

from minigfs.ids import ChunkHandle
from minigfs.master.handle_set import HandleSet

__all__ = ["RepairQueue"]

_RANK_COUNT = 16
_LATER_STEP_MS = 500
_TAKEN_AT_ONCE = 100  # of those that were to be looked at together


class RepairQueue:
    """A handle is in at most one rank, or stuck; an inbox may name it as often as it likes."""

    def __init__(self) -> None:
        self._inbox: deque[Iterator[ChunkHandle]] = deque()
        self._later: dict[int, HandleSet] = {}
        self._ranks = tuple(_Row() for _ in range(_RANK_COUNT))
        self._stuck = HandleSet()
        self._waiting = HandleSet()  # in a rank, or stuck: most chunks are neither, at one look

    @property
    def has_unseen(self) -> bool:
        return bool(self._inbox)

    @property
    def waiting_count(self) -> int:
        """Chunks that need a replica: those in the queue and those that are stuck."""
        return len(self._waiting)

    def look_at(self, handles: Collection[ChunkHandle]) -> None:
        """What is given here is walked as the turns come: it may be a set that goes on changing."""
        if handles:
            self._inbox.append(iter(handles))

    def look_first(self, handle: ChunkHandle) -> None:
        """Before all others."""
        self._inbox.appendleft(iter((handle,)))

    def look_at_stuck(self) -> None:
        self.look_at(self._stuck)

    def look_later(self, handle: ChunkHandle, due_ms: int) -> None:
        self.forget(handle)
        self._later.setdefault(due_ms // _LATER_STEP_MS + 1, HandleSet()).add(handle)

    def draw(self, count: int, now_ms: int) -> list[ChunkHandle]:
        """The next handles to look at, at most ``count``; none of them twice."""
        for step in [step for step in self._later if step * _LATER_STEP_MS <= now_ms]:
            self.look_at(self._later.pop(step))
        drawn: dict[ChunkHandle, None] = {}
        while self._inbox and len(drawn) < count:
            handles = self._inbox.popleft()
            asked = min(_TAKEN_AT_ONCE, count - len(drawn))
            part = list(islice(handles, asked))
            drawn.update(dict.fromkeys(part))
            if len(part) == asked:
                self._inbox.append(handles)  # the last now: a few do not wait for a million
        return list(drawn)

    def put(self, handle: ChunkHandle, rank: int) -> None:
        """Into the queue; the lowest rank comes first, within one who has not just come back."""
        if handle not in self._ranks[rank]:
            self._put(handle, self._ranks[rank])

    def put_stuck(self, handle: ChunkHandle) -> None:
        self._put(handle, self._stuck)

    def _put(self, handle: ChunkHandle, place: "HandleSet | _Row") -> None:
        self.forget(handle)
        place.add(handle)
        self._waiting.add(handle)

    def forget(self, handle: ChunkHandle) -> None:
        if handle in self._waiting:
            self._waiting.discard(handle)
            self._stuck.discard(handle)
            for rank in self._ranks:
                rank.discard(handle)

    def first(self, count: int) -> list[ChunkHandle]:
        """The most urgent ones, at most ``count``."""
        return list(islice(chain.from_iterable(self._ranks), count))


class _Row:
    """What waits in one rank: those that came while others waited are behind all of these. Else a
    few whose copies fail, and that come back, would keep all others from their turn for ever."""

    def __init__(self) -> None:
        self._first, self._next = HandleSet(), HandleSet()

    def __contains__(self, handle: ChunkHandle) -> bool:
        return handle in self._first or handle in self._next

    def __iter__(self) -> Iterator[ChunkHandle]:
        if not self._first:
            self._first, self._next = self._next, self._first
        return chain(self._first, self._next)

    def add(self, handle: ChunkHandle) -> None:
        self._next.add(handle)

    def discard(self, handle: ChunkHandle) -> None:
        self._first.discard(handle)
        self._next.discard(handle)
