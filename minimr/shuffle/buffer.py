"""Map output on its way to disk, under a budget of memory (MapReduce section 3.1, step 4).

Pairs gather in memory. Over the budget they are sorted and combined; if that shrinks them well they
stay, else they are spilled as a sorted run. At the end everything becomes one segment file, sorted
by (partition, key), equal keys in the order in which they were added.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from minimr.agg import Aggregation
from minimr.agg_kernels import Kernel
from minimr.columns import from_numpy
from minimr.pairs import Pairs, check_same_types, concat_pairs, example_of
from minimr.shuffle.combine import (
    PartitionedRun,
    aggregate_partitioned,
    aggregate_stream,
    sort_partitioned,
)
from minimr.shuffle.merge import MemoryMeter, merge_runs, run_of
from minimr.shuffle.pack import PACKED_BYTES_MAX, SegmentPack
from minimr.shuffle.partitioners import Partitioner
from minimr.shuffle.segment import (
    SegmentEncoder,
    SegmentReader,
    SegmentSummary,
    SegmentWriter,
)

__all__ = ["CombineSorted", "MapOutputBuffer"]

_KEPT_BYTES = 64 << 10  # memory beyond its rows that a batch may keep alive
_SORTED_ROW_BYTES = 64  # what sorting or combining a row takes beside its content: words, places

CombineSorted: TypeAlias = Callable[[Pairs], Pairs]
"""A user's combine function over the sorted pairs of one partition; keeps keys and their order."""


class MapOutputBuffer:
    """Collects the pairs of one map attempt and writes its segment file.

    ``budget_bytes`` bounds all that it holds at a time, while pairs are sorted or merged too. A
    small segment goes into the file of ``pack``, if there is one, all others to ``path``.
    """

    def __init__(
        self,
        path: Path,
        *,
        partitioner: Partitioner,
        combine: "Aggregation | CombineSorted | None",
        budget_bytes: int,
        compression: str = "",
        pack: SegmentPack | None = None,
    ) -> None:
        self._path = path
        self._pack = pack
        self._partitioner = partitioner
        self._partition_count = partitioner.partition_count
        self._combine = combine
        self._budget_bytes = budget_bytes
        self._compression = compression  # of the segment; spills are read once, here
        self._added: list[Pairs] = []
        self._example: Pairs | None = None  # the first pair: the others have its types
        self._held_bytes = 0
        self._combined: Pairs | None = None  # earlier pairs, combined; they precede the added ones
        self._spills: list[Path] = []
        self._spill_count = 0
        self.meter = MemoryMeter()

    @property
    def spill_count(self) -> int:
        return self._spill_count

    def add(self, pairs: Pairs) -> None:
        if not pairs.num_rows:
            return
        if self._example is None:
            self._example = example_of(pairs)
        check_same_types(self._example, pairs)
        if pairs.get_total_buffer_size() > 2 * pairs.nbytes + _KEPT_BYTES:
            pairs = pairs.take(from_numpy(np.arange(pairs.num_rows)))  # a few rows of a large batch
        self._added.append(pairs)
        cost_bytes = _sorting_bytes(pairs)
        self._held_bytes += cost_bytes
        self.meter.hold(cost_bytes)
        if self._held_bytes > self._budget_bytes:
            self._shrink()

    def finish(self) -> SegmentSummary:
        """Write the segment; the buffer is used up."""
        try:
            if not self._spills:
                return self._write_all(self._sorted())
            self._spill(self._sorted())
            return self._merge_spills()
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop everything, also what was spilled."""
        self._added, self._combined = [], None
        for spill in self._spills:
            spill.unlink(missing_ok=True)
        self._spills = []

    def _shrink(self) -> None:
        run = self._sorted()
        assert run is not None
        if self._combine is None or _sorting_bytes(run.pairs) > self._budget_bytes // 2:
            self._spill(run)
            return
        self._combined = run.pairs
        self._held_bytes = _sorting_bytes(run.pairs)
        self.meter.hold(self._held_bytes)

    def _sorted(self) -> PartitionedRun | None:
        """Everything in memory, in order and combined; the buffer is empty then.

        What was added is let go of as soon as it is put together: it stands there twice at most.
        """
        if isinstance(self._combine, Aggregation):
            return self._aggregated(self._combine)
        parts = self._take()
        if not parts:
            return None
        run = sort_partitioned(_put_together(parts), self._partitioner)
        return run if self._combine is None else self._combined_run(run, self._combine)

    def _aggregated(self, aggregation: Aggregation) -> PartitionedRun | None:
        combined, self._combined = self._combined, None
        added = self._take()
        if not added:
            return None if combined is None else self._group(combined, aggregation.merge)
        run = self._group(_put_together(added), aggregation.partial)
        if combined is None:
            return run
        return self._group(concat_pairs([combined, run.pairs]), aggregation.merge)

    def _take(self) -> list[Pairs]:
        parts = self._added if self._combined is None else [self._combined, *self._added]
        self._added, self._combined = [], None
        self.meter.release(self._held_bytes)
        self._held_bytes = 0
        return parts

    def _group(self, pairs: Pairs, kernel: Kernel) -> PartitionedRun:
        return aggregate_partitioned(pairs, kernel, self._partitioner)

    def _combined_run(self, run: PartitionedRun, combine: CombineSorted) -> PartitionedRun:
        bounds, parts = [0], []
        for partition in range(self._partition_count):
            pairs = run.partition(partition)
            if pairs.num_rows:
                parts.append(combine(pairs))
                bounds.append(bounds[-1] + parts[-1].num_rows)
            else:
                bounds.append(bounds[-1])
        return PartitionedRun(pairs=concat_pairs(parts), bounds=np.array(bounds))

    def _spill(self, run: PartitionedRun | None) -> None:
        path = self._next_spill_path()
        self._write(path, run)
        self._spills.append(path)

    def _next_spill_path(self) -> Path:
        self._spill_count += 1
        return self._path.with_name(f"{self._path.stem}.spill-{self._spill_count}")

    def _write_all(self, run: PartitionedRun | None) -> SegmentSummary:
        is_small = run is None or run.pairs.nbytes <= PACKED_BYTES_MAX
        if self._pack is None or not is_small:
            return self._write(self._path, run, self._compression)
        return self._pack.put(
            self._path, partial(self._fill, run), self._partition_count, self._compression
        )

    def _write(
        self, path: Path, run: PartitionedRun | None, compression: str = ""
    ) -> SegmentSummary:
        with SegmentWriter(path, self._partition_count, compression=compression) as writer:
            self._fill(run, writer)
            return writer.close()

    def _fill(self, run: PartitionedRun | None, writer: SegmentEncoder | SegmentWriter) -> None:
        if run is not None:
            for partition in range(self._partition_count):
                writer.append(partition, run.partition(partition))

    def _merge_spills(self) -> SegmentSummary:
        readers = [SegmentReader(spill) for spill in self._spills]
        try:
            with SegmentWriter(
                self._path, self._partition_count, compression=self._compression
            ) as writer:
                for partition in range(self._partition_count):
                    self._merge_partition(readers, partition, writer)
                return writer.close()
        finally:
            for reader in readers:
                reader.close()

    def _merge_partition(
        self, readers: list[SegmentReader], partition: int, writer: SegmentWriter
    ) -> None:
        merged = merge_runs(
            [
                run_of(reader.frames_of(partition), reader.read_pairs(partition))
                for reader in readers
            ],
            budget_bytes=self._budget_bytes,
            spill_path=self._next_spill_path,
            meter=self.meter,
        )
        if isinstance(self._combine, Aggregation):
            merged = aggregate_stream(merged, self._combine, is_partial=True, finish=False)
        elif self._combine is not None:
            merged = map(self._combine, merged)
        for pairs in merged:
            writer.append(partition, pairs)


def _sorting_bytes(pairs: Pairs) -> int:
    """What pairs take while they are sorted: they stand there twice, and a little waste."""
    size_bytes: int = pairs.nbytes * 5 // 2 + pairs.num_rows * _SORTED_ROW_BYTES
    return size_bytes


def _put_together(parts: list[Pairs]) -> Pairs:
    """One batch; the list is empty then, so that nobody keeps the parts."""
    pairs = concat_pairs(parts)
    parts.clear()
    return pairs
