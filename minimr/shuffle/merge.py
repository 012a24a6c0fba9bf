"""Merge of sorted runs in bounded memory, a block of rows at a time (never row by row).

Each run has a cursor with some rows read ahead. The least *last* key among the cursors that may
have more rows bounds what is known: every row below it is in memory. Those rows are taken from all
cursors, then rows equal to it, up to the first run that may have more of that key; one stable sort
puts them in order. So equal keys come out in the order of the runs, and each step drains at least
one cursor, even if one key fills many blocks. Cursors are filled up before they are empty: then
each step gets on by about a block of every run. Runs too many to hold a frame of each are merged in
passes, neighbours together, which keeps that order.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimr.columns import from_numpy
from minimr.pairs import Pairs, check_same_types, concat_pairs, sort_columns, take_rows
from minimr.shuffle.keys import RowBound, bound_of, rows_below, sort_order, words_of
from minimr.shuffle.segment import FrameRef, SegmentReader, SegmentWriter

__all__ = ["MemoryMeter", "SortedRun", "merge_runs", "run_of"]

_FAN_IN_MAX = 512  # each run may be an open file
_COPIES = 3  # what a step holds of its rows: read ahead, put together, in order
_COPIED_SHARE = 4  # a rest of a batch, at most one part in as many, is copied to free the batch

_Taken: TypeAlias = tuple[NDArray[np.uint64], Pairs]
"""Rows of one run, and the words of their keys."""


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
    """Runs that can be merged at once, a batch of each in memory and a rest of the one before; at
    least two."""
    start, held_bytes = 0, 0
    for index, run in enumerate(runs):
        batch_bytes = (_COPIES + 1) * (run.batch_bytes + run.batch_bytes // _COPIED_SHARE)
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
        pairs = take_rows(pairs, sort_order(sort_columns(pairs), in_runs=True))
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


class _Held:
    """A batch of a run, and how many of its rows have been taken."""

    __slots__ = ("last", "pairs", "size_bytes", "words")

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.words = words_of(pairs.column(0))
        self.last = bound_of(sort_columns(pairs), pairs.num_rows - 1)
        self.size_bytes: int = pairs.nbytes  # in memory, until all rows are taken

    def take(self, count: int) -> Pairs:
        taken = self.pairs.slice(0, count)
        self.pairs = self.pairs.slice(count)  # keeps all of the memory
        self.words = self.words[count:]
        return taken


class _Cursor:
    """Rows of one run that are in memory."""

    __slots__ = ("_batches", "_held_bytes", "_meter", "_quota_bytes", "held", "may_have_more")

    def __init__(self, run: SortedRun, quota_bytes: int, meter: MemoryMeter) -> None:
        self._batches = run.batches
        self._quota_bytes = quota_bytes
        self._meter = meter
        self._held_bytes = 0
        self.may_have_more = True
        self.held: deque[_Held] = deque()

    def fill(self) -> bool:
        """Read ahead; false if the run has ended.

        A run that waits for its last rows to be taken keeps the others waiting too: each step would
        take a few rows of every run. So the next batch is read while there are some left.
        """
        while self.may_have_more and self._has_room():
            batch = next(self._batches, None)
            if batch is None:
                self.may_have_more = False
            elif batch.num_rows:
                self._hold(_Held(batch))
        return bool(self.held)

    def _has_room(self) -> bool:
        if not self.held:
            return True
        last = self.held[-1]
        if self._held_bytes + last.size_bytes > self._quota_bytes:
            self._let_go_of_taken()
        return self._held_bytes + last.size_bytes <= self._quota_bytes

    def _let_go_of_taken(self) -> None:
        """Few rows of a batch keep all of its memory: copy them."""
        first = self.held[0]
        rest_bytes = first.pairs.nbytes
        if rest_bytes * _COPIED_SHARE <= first.size_bytes:
            first.pairs = first.pairs.take(from_numpy(np.arange(first.pairs.num_rows)))
            self._release(first.size_bytes - rest_bytes)
            first.size_bytes = rest_bytes

    def _hold(self, batch: _Held) -> None:
        self.held.append(batch)
        self._held_bytes += batch.size_bytes
        self._meter.hold(batch.size_bytes)

    def _release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._meter.release(size_bytes)

    def last(self) -> RowBound:
        """The last row that is in memory."""
        return self.held[-1].last

    def take_below(self, bound: RowBound, *, with_equal: bool) -> Iterator[_Taken]:
        """Take rows less than ``bound``, or up to it."""
        while self.held:
            first = self.held[0]
            if first.last.word < bound.word:
                yield self._take(len(first.words))
                continue
            if first.words[0] > bound.word:
                return
            columns = sort_columns(first.pairs)
            count = rows_below(columns, first.words, bound, with_equal=with_equal)
            if count:
                yield self._take(count)
            if not self.held or first is self.held[0]:
                return

    def take_rest(self, bound: RowBound) -> Iterator[Pairs]:
        """Take what follows in batches that have nothing but rows equal to ``bound``; all rows up
        to it have been taken."""
        while self.fill() and self.last().row == bound.row:
            yield from (pairs for _, pairs in self.take_all())

    def take_all(self) -> Iterator[_Taken]:
        while self.held:
            yield self._take(len(self.held[0].words))

    def _take(self, count: int) -> _Taken:
        first = self.held[0]
        taken = first.words[:count], first.take(count)
        if not len(first.words):
            self.held.popleft()
            self._release(first.size_bytes)
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
            check_same_types(cursors[0].held[0].pairs, cursor.held[0].pairs)
        open_ended = [(c.last().row, i) for i, c in enumerate(cursors) if c.may_have_more]
        # The least of the last keys, and the first run among those that end in it.
        first_open = cursors[min(open_ended)[1]] if open_ended else None
        bound = first_open.last() if first_open is not None else None
        taken = list(_take_known(cursors, first_open))
        pairs = concat_pairs([piece for _, piece in taken])
        words = np.concatenate([words for words, _ in taken])
        held_bytes = _COPIES * pairs.nbytes
        meter.hold(held_bytes)
        if len(taken) > 1:
            pairs = take_rows(pairs, sort_order(sort_columns(pairs), words, in_runs=True))
        del taken
        yield pairs
        meter.release(held_bytes)
        if first_open is not None and bound is not None:
            del pairs
            yield from first_open.take_rest(bound)


def _take_known(cursors: Sequence[_Cursor], first_open: _Cursor | None) -> Iterator[_Taken]:
    """The rows that no row still unread can come before, run after run: those below the last one of
    ``first_open``, and those equal to it of that run and the runs before."""
    if first_open is None:
        for cursor in cursors:
            yield from cursor.take_all()
        return
    bound, is_before = first_open.last(), True
    for cursor in cursors:
        yield from cursor.take_below(bound, with_equal=is_before)
        is_before = is_before and cursor is not first_open
