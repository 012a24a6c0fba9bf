"""Groups of equal keys: combined on the map side, aggregated or cut whole on the reduce side."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minimr.agg import Aggregation
from minimr.agg_kernels import Kernel
from minimr.column_types import dictionary_of, stored
from minimr.columns import from_numpy
from minimr.pairs import Pairs, concat_pairs, make_pairs, sort_columns, take_rows
from minimr.shuffle.keys import group_starts
from minimr.shuffle.partitioners import Partitioner

__all__ = [
    "PartitionedRun",
    "aggregate_partitioned",
    "aggregate_stream",
    "sort_partitioned",
    "whole_groups",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionedRun:
    """Pairs sorted by (partition, key); partition p is rows ``bounds[p]`` to ``bounds[p + 1]``."""

    pairs: Pairs
    bounds: NDArray[np.int64]

    def partition(self, index: int) -> Pairs:
        start = int(self.bounds[index])
        return self.pairs.slice(start, int(self.bounds[index + 1]) - start)


def sort_partitioned(pairs: Pairs, partitioner: Partitioner) -> PartitionedRun:
    """Every pair, in order; equal keys stay in the order they came in."""
    order, bounds = partitioner.arrange(sort_columns(pairs))
    return PartitionedRun(pairs=take_rows(pairs, order), bounds=bounds)


def aggregate_partitioned(pairs: Pairs, kernel: Kernel, partitioner: Partitioner) -> PartitionedRun:
    """The kernel's results per key, sorted. Keys are hashed first, so only distinct ones are
    sorted: map output repeats its keys many times."""
    distinct, codes = dictionary_of(pairs.column(0))
    order, bounds = partitioner.arrange([distinct])
    rank = np.empty(len(order), np.uint64)
    rank[order] = np.arange(len(order), dtype=np.uint64)
    # Rank above, row below: one sort of words gives a stable order by key.
    packed = np.sort((rank[codes] << np.uint64(32)) | np.arange(len(codes), dtype=np.uint64))
    rows = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    ranks = packed >> np.uint64(32)
    starts = np.flatnonzero(np.concatenate(([True], ranks[1:] != ranks[:-1])))
    values, groups = kernel(pairs.column(1).take(from_numpy(rows)), starts)
    chosen = order if groups is None else order[groups]
    return PartitionedRun(
        pairs=make_pairs(distinct.take(from_numpy(chosen)), values),
        bounds=bounds if groups is None else np.searchsorted(groups, bounds),
    )


def aggregate_stream(
    batches: Iterable[Pairs], aggregation: Aggregation, *, is_partial: bool, finish: bool
) -> Iterator[Pairs]:
    """Aggregate sorted batches in bounded memory, however many values one key has.

    ``is_partial``: the values are a combiner's results already. ``finish``: give final values, not
    partial ones.
    """
    held: Pairs | None = None  # merged, not given yet: its last key may go on
    for batch in batches:
        merged = batch if is_partial else _apply(batch, aggregation.partial)
        if held is not None:
            last = int(group_starts(held.column(0))[-1])
            if last:
                yield _finished(held.slice(0, last), aggregation, finish=finish)
            merged = concat_pairs([held.slice(last), merged])
        held = _apply(merged, aggregation.merge) if is_partial or held is not None else merged
    if held is not None:
        yield _finished(held, aggregation, finish=finish)


def whole_groups(batches: Iterable[Pairs]) -> Iterator[Pairs]:
    """The same rows cut differently: all values of a key are in one batch."""
    held: list[Pairs] = []  # all but the last have one key only, the first of the last
    for batch in batches:
        if held and _goes_on(held[-1], batch):
            last = int(group_starts(held[-1].column(0))[-1])
            if last:
                yield concat_pairs([*held[:-1], held[-1].slice(0, last)])
                held = [held[-1].slice(last)]
            held.append(batch)
        else:
            if held:
                yield concat_pairs(held)
            held = [batch]
    if held:
        yield concat_pairs(held)


def _goes_on(batch: Pairs, following: Pairs) -> bool:
    """Whether the last key of a batch is the first of the next."""
    last, first = stored(batch.column(0)[-1:]), stored(following.column(0)[:1])
    return bool(last.equals(first))


def _apply(pairs: Pairs, kernel: Kernel) -> Pairs:
    starts = group_starts(pairs.column(0))
    values, groups = kernel(pairs.column(1), starts)
    rows = starts if groups is None else starts[groups]
    return make_pairs(pairs.column(0).take(from_numpy(rows)), values)


def _finished(pairs: Pairs, aggregation: Aggregation, *, finish: bool) -> Pairs:
    return _apply(pairs, aggregation.finish) if finish and aggregation.finish else pairs
