"""When a second server is asked because the first one is slow ("The Tail at Scale", CACM 2013).

A server that hangs, or whose disk does, costs its readers a deadline; one that is merely busy costs
each of them a little. So a reader waits for the first bytes only a few times as long as such waits
lately took, and then asks another replica as well; whoever answers first is read from, the other
call is dropped. When all servers are slow, asking twice would make it worse: hedges are paid from
a budget that a small part of all reads fills. Pure: the waits come in as arguments.
"""

from bisect import insort
from collections import deque

__all__ = ["HedgePolicy"]

_WAITS_KEPT_COUNT = 64
_WAITS_NEEDED_COUNT = 8  # with fewer, nobody knows what is slow
_DELAY_MS_MIN = 20  # below this a scheduler's whim is no sign of anything
_DELAY_MS_MAX = 500
_DELAY_OF_SLOW_WAIT = 3  # times what one of ten waits takes
_SLOW_PERCENT = 90
_READS_PER_HEDGE = 10
_HEDGES_SAVED_MAX = 5


class HedgePolicy:
    """Shared by all readers of a client. Racing threads may lose a wait or count one twice, which
    changes no outcome but the moment of a hedge."""

    def __init__(self) -> None:
        self._waits_ms: deque[int] = deque()
        self._sorted_ms: list[int] = []
        self._credit = _HEDGES_SAVED_MAX * _READS_PER_HEDGE

    def delay_ms(self) -> int | None:
        """How long the first server may take now before a second is asked; None: ask no second."""
        if self._credit < _READS_PER_HEDGE:
            return None
        if len(self._sorted_ms) < _WAITS_NEEDED_COUNT:
            return _DELAY_MS_MAX
        slow_ms = self._sorted_ms[len(self._sorted_ms) * _SLOW_PERCENT // 100]
        return max(_DELAY_MS_MIN, min(_DELAY_OF_SLOW_WAIT * slow_ms, _DELAY_MS_MAX))

    def hedged(self) -> None:
        """A second server was asked."""
        self._credit -= _READS_PER_HEDGE

    def answered(self, wait_ms: int) -> None:
        """The first bytes of a read came after so long."""
        self._credit = min(self._credit + 1, _HEDGES_SAVED_MAX * _READS_PER_HEDGE)
        waits, ordered = self._waits_ms, list(self._sorted_ms)
        waits.append(wait_ms)
        insort(ordered, wait_ms)
        if len(waits) > _WAITS_KEPT_COUNT:
            oldest_ms = waits.popleft()
            if oldest_ms in ordered:
                ordered.remove(oldest_ms)
        self._sorted_ms = ordered
