"""The most frequent keys of a partition, counted while its sorted pairs pass by.

The pairs of a key are neighbours, so the counts are exact and only the best are held.
"""

from heapq import nlargest
from typing import Any

import numpy as np

from minimr.column_types import stored, to_objects
from minimr.pairs import Pairs
from minimr.shuffle.keys import group_starts

__all__ = ["HotKeys"]


class HotKeys:
    """Hears all batches of a sorted stream, in order; ``best`` are the most frequent keys."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[tuple[int, Any]] = []
        self._last: Pairs | None = None  # one row: the key that may go on in the next batch
        self._last_count = 0

    def note(self, pairs: Pairs) -> None:
        keys = pairs.column(0)
        starts = group_starts(keys)
        counts = np.diff(starts, append=len(keys))
        if self._last is not None:
            if stored(self._last.column(0)).equals(stored(keys[:1])):
                counts[0] += self._last_count
            else:
                self._take(self._last.column(0), self._last_count)
        self._last_count = int(counts[-1])
        self._last = pairs.slice(pairs.num_rows - 1)
        whole = counts[:-1]
        if whole.size > self._count:
            chosen = np.argpartition(whole, -self._count)[-self._count :]
        else:
            chosen = np.arange(whole.size)
        for group in chosen[whole[chosen] > self._least()]:
            row = int(starts[group])
            self._take(keys[row : row + 1], int(whole[group]))

    def best(self) -> list[tuple[Any, int]]:
        """Keys and how many pairs they have, most first; at the end of the stream."""
        if self._last is not None:
            self._take(self._last.column(0), self._last_count)
            self._last = None
        return [(key, count) for count, key in self._found]

    def _least(self) -> int:
        """What a key must have more of to be among the best."""
        return max(1, self._found[-1][0]) if len(self._found) == self._count else 1

    def _take(self, key: Any, count: int) -> None:
        if count > self._least():
            found = [*self._found, (count, to_objects(key)[0])]
            self._found = nlargest(self._count, found, key=lambda each: each[0])
