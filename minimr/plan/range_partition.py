"""Where the ranges of a `minimr.RangePartition` begin, from a sample of the job's keys.

A point cuts the sequence of all pairs in order of key. Most points lie before or behind all values
of their key: a frequent key stands alone between two of them. If the job allows it, a point may lie
inside a key: values of map tasks up to some share of all map tasks are before it.

The heaviest partition is made as light as the sample allows; what is left of the points then halves
the heaviest partitions that have more than one key. Constant keys make one full partition, and
the others empty.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import accumulate, groupby, pairwise

from minimr.messages import SplitPoint

__all__ = ["WHOLE", "place_of", "split_points"]

WHOLE = 1 << 16  # all values of a key, as a share
_PIECES_PER_PARTITION = 4  # into which a key may be cut: parts differ by less than a third


def place_of(split_index: int, split_count: int) -> int:
    """Where the values of one map task lie among all values of a key, below `WHOLE`.

    A point inside the key with a share of at most this has them behind it.
    """
    return split_index * WHOLE // split_count


@dataclass(frozen=True, slots=True)
class _Item:
    """What a partition can begin with: a key, or some of the values of a frequent one."""

    key: bytes
    share: int
    weight: int
    is_last: bool  # of its key


def split_points(
    sample: Iterable[bytes], partition_count: int, *, splits_keys: bool
) -> tuple[SplitPoint, ...]:
    """At most ``partition_count - 1`` points, in increasing order.

    Parameters
    ----------
    sample : iterable of bytes
        Whole keys, each in the form that orders as the keys do (`minimr.ordered_bytes`); a key
        stands in it as often as it was drawn.
    """
    drawn = sorted(sample)
    if not drawn or partition_count < 2:
        return ()
    items = _items(drawn, partition_count, splits_keys=splits_keys)
    return tuple(_point(items, cut) for cut in _cuts([i.weight for i in items], partition_count))


def _items(drawn: Sequence[bytes], partition_count: int, *, splits_keys: bool) -> list[_Item]:
    items: list[_Item] = []
    for key, group in groupby(drawn):
        weight = sum(1 for _ in group)
        pieces = 1
        if splits_keys:
            wanted = _PIECES_PER_PARTITION * weight * partition_count // len(drawn)
            pieces = min(weight, max(1, wanted))
        items.extend(
            _Item(
                key,
                WHOLE * piece // pieces,
                weight * (piece + 1) // pieces - weight * piece // pieces,
                piece == pieces - 1,
            )
            for piece in range(pieces)
        )
    return items


def _point(items: Sequence[_Item], cut: int) -> SplitPoint:
    """The point between item ``cut - 1`` and item ``cut``.

    Behind the key before, not before the key behind, if that is the more frequent: keys between the
    two, which the sample missed, then leave the frequent one alone.
    """
    before, behind = items[cut - 1], items[cut]
    if before.is_last and before.weight > behind.weight:
        return SplitPoint(key=before.key, share=WHOLE)
    return SplitPoint(key=behind.key, share=behind.share)


def _cuts(weights: Sequence[int], partition_count: int) -> list[int]:
    """Where to cut a sequence of weights so that the heaviest of the pieces is lightest."""
    before = [0, *accumulate(weights)]
    low, high = max(weights), before[-1]
    while low < high:
        middle = (low + high) // 2
        if len(_packed(before, middle)) < partition_count:
            high = middle
        else:
            low = middle + 1
    cuts = _packed(before, low)
    edges = [0, *cuts, len(weights)]
    pieces = [(before[a] - before[b], a, b) for a, b in pairwise(edges)]
    heapify(pieces)  # heaviest first
    while pieces and len(cuts) < partition_count - 1:
        _, start, end = heappop(pieces)
        if end - start > 1:
            cut = _middle(before, start, end)
            cuts.append(cut)
            heappush(pieces, (before[start] - before[cut], start, cut))
            heappush(pieces, (before[cut] - before[end], cut, end))
    return sorted(cuts)


def _packed(before: Sequence[int], capacity: int) -> list[int]:
    """Cuts that let no piece be heavier than ``capacity``, as few as possible."""
    cuts = []
    cut = bisect_right(before, capacity) - 1
    while cut < len(before) - 1:
        cuts.append(cut)
        cut = bisect_right(before, before[cut] + capacity) - 1
    return cuts


def _middle(before: Sequence[int], start: int, end: int) -> int:
    """The cut inside a piece that leaves the lighter maximum of the two halves."""
    half = bisect_left(before, (before[start] + before[end]) / 2, start + 1, end - 1)
    return min(
        (max(half - 1, start + 1), half),
        key=lambda cut: max(before[cut] - before[start], before[end] - before[cut]),
    )
