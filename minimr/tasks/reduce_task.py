"""A reduce attempt (MapReduce section 3.1, steps 5 and 6): a partition of all map outputs in, one
part file out, keys in increasing order."""

import copy
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from minimr import agg
from minimr.agg import Aggregation
from minimr.counters import collecting, increment
from minimr.messages import Amount, HotKey, ReduceAssignment, ReduceResult
from minimr.pairs import Pairs, without_order
from minimr.shuffle.combine import aggregate_stream, whole_groups
from minimr.shuffle.fetch import FetchedPartition
from minimr.shuffle.hot_keys import HotKeys
from minimr.shuffle.merge import MemoryMeter, merge_runs
from minimr.shuffle.places import job_directory
from minimr.shuffle.segment import decode_schema
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import shown
from minimr.tasks.part_output import part_output
from minimr.tasks.side_files import attempt_sides
from minimr.tasks.user_code import call_batches, reduce_records

__all__ = ["run_reduce"]


_HOT_KEY_COUNT = 5  # of a partition; `jobs show` has the most frequent of all
_KEY_CHARACTERS_MAX = 80


def run_reduce(context: AttemptContext, assignment: ReduceAssignment) -> ReduceResult:
    with collecting() as counters, _temporary_directory(context) as directory:
        fetched: list[FetchedPartition] = []
        hot_keys = HotKeys(_HOT_KEY_COUNT)

        def noted(pairs: Pairs) -> Pairs:
            hot_keys.note(pairs)
            return without_order(pairs)

        with (
            part_output(context, assignment.partition) as output,
            attempt_sides(context) as sides,
            closing(_merged(context, assignment, directory, fetched)) as merged,
        ):
            for pairs in _reduced(context, map(noted, merged)):
                output.write(pairs)
            for pairs in context.last_pairs():
                output.write(pairs)
            if output.is_empty:
                for pairs in _types_only(context, fetched):
                    output.write(pairs)
        assert output.part is not None
        increment("output.records", output.part.record_count)
        return ReduceResult(
            counters=dict(sorted(counters.items())),
            part=output.part,
            sides=sides.parts,
            received=_amount_of(fetched),
            hot_keys=tuple(
                HotKey(shown(key)[:_KEY_CHARACTERS_MAX], count) for key, count in hot_keys.best()
            ),
        )


def _merged(
    context: AttemptContext,
    assignment: ReduceAssignment,
    directory: Path,
    fetched: list[FetchedPartition],
) -> Generator[Pairs, None, None]:
    """The partition's pairs in order of (key, map index, position); ``fetched`` is filled with the
    map outputs they come from."""
    outputs = context.map_outputs
    fetched += context.fetcher.fetch(
        outputs.known(assignment) if outputs is not None else assignment.map_outputs,
        assignment.partition,
        directory,
        memory_bytes=context.memory.fetch_bytes,
        map_count=assignment.map_count,
        more=partial(outputs.more, assignment, context.worker_id) if outputs is not None else None,
    )
    total_bytes = sum(each.size_bytes for each in fetched)
    increment("shuffle.bytes", total_bytes)
    done_bytes = 0

    def on_read(size_bytes: int) -> None:
        nonlocal done_bytes
        context.check_cancelled()
        done_bytes += size_bytes
        context.report_progress(done_bytes, total_bytes)

    numbers = count()
    yield from merge_runs(
        [each.as_run(on_read) for each in fetched if each.frames],
        budget_bytes=context.memory.merge_bytes,
        spill_path=lambda: directory / f"merge-{next(numbers)}",
        meter=MemoryMeter(),
    )


def _types_only(context: AttemptContext, fetched: Sequence[FetchedPartition]) -> Iterator[Pairs]:
    """No pairs, of the types that the reduce's would have, where those can be known."""
    known = next((each for each in fetched if each.header.schema), None)
    if known is None or not isinstance(context.job.reduce, Aggregation):
        return
    schema = decode_schema(known.header.schema, known.output.path)
    columns = [pa.nulls(0, type=each.type) for each in schema]  # empty_table() imports pandas
    yield from _reduced(context, iter([without_order(Pairs.from_arrays(columns, schema=schema))]))


def _amount_of(fetched: Sequence[FetchedPartition]) -> Amount:
    """Every frame is verified against its sum when it is read, so the sums stand for the frames."""
    frames = [frame for each in fetched for frame in each.frames]
    return Amount(
        records=sum(frame.row_count for frame in frames),
        bytes=sum(frame.length for frame in frames),
        sum=sum(frame.xxh3 for frame in frames) & (2**64 - 1),
    )


def _reduced(context: AttemptContext, merged: Iterator[Pairs]) -> Iterator[Pairs]:
    job = context.job
    if job.reduce == agg.keep:
        return merged  # nothing of a key is held, however many values it has
    if isinstance(job.reduce, Aggregation):
        return aggregate_stream(
            merged, job.reduce, is_partial=job.combine == job.reduce, finish=True
        )
    if job.reduce is not None:
        return reduce_records(job.reduce, merged, context.memory)
    assert job.reduce_batches is not None, "a map-only job has no reduce task"
    return _reduce_batches(job.reduce_batches, merged)


def _reduce_batches(function: Any, merged: Iterator[Pairs]) -> Iterator[Pairs]:
    import pyarrow as pa

    if hasattr(function, "close"):
        function = copy.deepcopy(function)  # its state is this partition's, not the job's
    for pairs in whole_groups(merged):
        yield from call_batches(function, pa.Table.from_batches([pairs]), "reduce_batches")
    if hasattr(function, "close"):
        yield from call_batches(lambda _: function.close(), None, "reduce_batches.close")


@contextmanager
def _temporary_directory(context: AttemptContext) -> Iterator[Path]:
    attempt = context.assignment.attempt
    directory = job_directory(context.scratch, attempt.task.job_id) / f"{attempt.file_stem}.tmp"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
