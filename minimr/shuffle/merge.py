"""Merge of sorted runs in bounded memory, a block of rows at a time (never row by row).

Each run has a cursor with some rows read ahead. The least *last* key among the cursors that may
have more rows bounds what is known: every row below it is in memory. Those rows are taken from all
cursors, then rows equal to it, up to the first run that may have more of that key; one stable sort
puts them in order. So equal keys come out in the order of the runs, and each step drains at least
one cursor, even if one key fills many blocks. Runs too many to hold a frame of each are merged in
passes, neighbours together, which keeps that order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minimr.columns import from_numpy
from minimr.pairs import Pairs, check_same_types, concat_pairs, sort_columns
from minimr.shuffle.keys import comparable, rows_below, sort_order, words_of
from minimr.shuffle.segment import FrameRef, SegmentReader, SegmentWriter

__all__ = ["MemoryMeter", "SortedRun", "merge_runs", "run_of"]

_FAN_IN_MAX = 512  # each run may be an open file
_COPIES = 3  # what a step holds of its rows: read ahead, put together, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedRun:
    """A sorted sequence of pairs that is read once, and what it takes in memory: all of it, and
    the largest of its batches."""

    size_bytes: int
    batch_bytes: int
    batches: Iterator[Pairs]


class MemoryMeter:
    """Bytes of pairs that a merge holds, and the most it ever held."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self.peak_bytes = 0

    def hold(self, size_bytes: int) -> None:
        self.held_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)

    def release(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes


def merge_runs(
    runs: Sequence[SortedRun],
    *,
    budget_bytes: int,
    spill_path: Callable[[], Path],
    meter: MemoryMeter,
) -> Iterator[Pairs]:
    """All pairs in order of (key, run, position), as batches that are never empty.

    ``spill_path`` names files for intermediate passes; the caller removes them.
    """
    if sum(run.size_bytes for run in runs) * _COPIES <= budget_bytes:
        yield from _merge_at_once(runs, meter)
        return
    while len(groups := list(_neighbours(runs, budget_bytes))) > 1:
        runs = [
            group[0]
            if len(group) == 1
            else _spilled(_merge_streams(group, budget_bytes, meter), spill_path())
            for group in groups
        ]
    yield from _merge_streams(runs, budget_bytes, meter)


def _neighbours(runs: Sequence[SortedRun], budget_bytes: int) -> Iterator[Sequence[SortedRun]]:
    """Runs that can be merged at once, a batch of each in memory; at least two."""
    start, held_bytes = 0, 0
    for index, run in enumerate(runs):
        batch_bytes = (_COPIES + 1) * run.batch_bytes
        count = index - start
        if count >= 2 and (held_bytes + batch_bytes > budget_bytes or count == _FAN_IN_MAX):
            yield runs[start:index]
            start, held_bytes = index, 0
        held_bytes += batch_bytes
    yield runs[start:]


def _merge_at_once(runs: Iterable[SortedRun], meter: MemoryMeter) -> Iterator[Pairs]:
    batches = [batch for run in runs for batch in run.batches if batch.num_rows]
    if not batches:
        return
    pairs = concat_pairs(batches)
    held_bytes = _COPIES * pairs.nbytes
    meter.hold(held_bytes)
    if len(batches) > 1:
        pairs = pairs.take(from_numpy(sort_order(sort_columns(pairs))))
    del batches
    yield pairs
    meter.release(held_bytes)


def _spilled(batches: Iterable[Pairs], path: Path) -> SortedRun:
    with SegmentWriter(path, 1) as writer:
        for batch in batches:
            writer.append(0, batch)
        writer.close()
    with SegmentReader(path) as reader:
        return run_of(reader.frames_of(0), _read_once(path))


def _read_once(path: Path) -> Iterator[Pairs]:
    with SegmentReader(path) as reader:
        yield from reader.read_pairs(0)
    path.unlink()


def run_of(frames: Sequence[FrameRef], batches: Iterator[Pairs]) -> SortedRun:
    """The run that some frames hold."""
    return SortedRun(
        size_bytes=sum(frame.plain_bytes for frame in frames),
        batch_bytes=max((frame.plain_bytes for frame in frames), default=0),
        batches=batches,
    )


class _Cursor:
    """Rows of one run that are in memory: ``position`` and on of ``pairs``."""

    __slots__ = (
        "_batches",
        "_held_bytes",
        "_meter",
        "_quota_bytes",
        "may_have_more",
        "pairs",
        "words",
    )

    def __init__(self, run: SortedRun, quota_bytes: int, meter: MemoryMeter) -> None:
        self._batches = run.batches
        self._quota_bytes = quota_bytes
        self._meter = meter
        self._held_bytes = 0
        self.may_have_more = True
        self.pairs: Pairs | None = None
        self.words: np.ndarray[Any, np.dtype[np.uint64]] = np.empty(0, np.uint64)

    def fill(self) -> bool:
        """Make rows available; false if the run has ended."""
        if self.pairs is not None:
            return True
        batches: list[Pairs] = []
        read_bytes = 0
        while not batches or read_bytes + batches[-1].nbytes <= self._quota_bytes:
            batch = next(self._batches, None)
            if batch is None:
                self.may_have_more = False
                break
            if batch.num_rows:
                batches.append(batch)
                read_bytes += batch.nbytes
        if not batches:
            return False
        self.pairs = concat_pairs(batches)
        self.words = words_of(self.pairs.column(0))
        self._held_bytes = self.pairs.nbytes
        self._meter.hold(self._held_bytes)
        return True

    def held(self) -> Pairs:
        assert self.pairs is not None
        return self.pairs

    def last_key(self) -> Any:
        assert self.pairs is not None
        return comparable(sort_columns(self.pairs), self.pairs.num_rows - 1)

    def take_below(self, bound: Sequence[pa.Array], *, with_equal: bool) -> Pairs:
        """Take rows less than the one in ``bound``, or up to it."""
        assert self.pairs is not None
        columns = sort_columns(self.pairs)
        return self.take_rows(rows_below(columns, self.words, bound, with_equal=with_equal))

    def take_rows(self, count: int) -> Pairs:
        assert self.pairs is not None
        taken = self.pairs.slice(0, count)
        self.words = self.words[count:]
        if self.words.size:
            self.pairs = self.pairs.slice(count)  # keeps all of the memory
        else:
            self.pairs = None
            self._meter.release(self._held_bytes)
        return taken


def _merge_streams(
    runs: Sequence[SortedRun], budget_bytes: int, meter: MemoryMeter
) -> Iterator[Pairs]:
    quota_bytes = max(1, budget_bytes // ((_COPIES + 1) * max(1, len(runs))))
    cursors = [_Cursor(run, quota_bytes, meter) for run in runs]
    while True:
        cursors = [cursor for cursor in cursors if cursor.fill()]
        if not cursors:
            return
        for cursor in cursors[1:]:
            check_same_types(cursors[0].held(), cursor.held())
        pieces = [piece for piece in _take_known(cursors) if piece.num_rows]
        pairs = concat_pairs(pieces)
        held_bytes = _COPIES * pairs.nbytes
        meter.hold(held_bytes)
        if len(pieces) > 1:
            pairs = pairs.take(from_numpy(sort_order(sort_columns(pairs))))
        del pieces
        yield pairs
        meter.release(held_bytes)


def _take_known(cursors: Sequence[_Cursor]) -> list[Pairs]:
    """The rows that no row still unread can come before."""
    open_ended = [(c.last_key(), i) for i, c in enumerate(cursors) if c.may_have_more]
    if not open_ended:
        return [cursor.take_rows(len(cursor.words)) for cursor in cursors]
    _, first_open = min(open_ended)  # the least key, and the first run among those that end in it
    pairs = cursors[first_open].pairs
    assert pairs is not None
    bound = [column[-1:] for column in sort_columns(pairs)]
    return [
        cursor.take_below(bound, with_equal=index <= first_open)
        for index, cursor in enumerate(cursors)
    ]
