"""A map attempt (MapReduce section 3.1, steps 3 and 4): a split in, one segment out.

A job without a reduce writes its part of the output directly, in the order of the input.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from minigfs.errors import MinigfsError
from minimr.agg import Aggregation
from minimr.counters import Counters, collecting, increment
from minimr.errors import TaskError, UnsupportedType
from minimr.formats.readers import reader_of
from minimr.formats.records import OnMalformed, Records, refuse
from minimr.formats.storage import is_local
from minimr.inputs import CustomReader
from minimr.messages import MapAssignment, MapOutput, MapResult, Nearness
from minimr.pairs import Pairs
from minimr.shuffle.buffer import MapOutputBuffer
from minimr.shuffle.places import segment_path
from minimr.shuffle.segment import SegmentSummary
from minimr.tasks.bad_records import RecordMapper
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import InputFailed, UserCodeFailed
from minimr.tasks.part_output import part_output
from minimr.tasks.partitioning import partitioner_of
from minimr.tasks.side_files import AttemptSides, attempt_sides
from minimr.tasks.user_code import blame, call_batches, combine_by, order_of_values

__all__ = ["map_split", "run_map"]


def run_map(context: AttemptContext, assignment: MapAssignment) -> MapResult:
    with collecting() as counters:
        if assignment.partition_count == 0:
            with (
                part_output(context, assignment.split.index) as output,
                attempt_sides(context) as sides,
            ):
                map_split(context, assignment, output.write, sides)
            assert output.part is not None
            increment("output.records", output.part.record_count)
            return MapResult(
                counters=dict(counters), output=None, part=output.part, sides=sides.parts
            )
        with attempt_sides(context) as sides:
            summary = _write_segment(context, assignment, sides)
        return MapResult(
            counters=_sorted(counters),
            output=_output(context, assignment, summary),
            part=None,
            sides=sides.parts,
        )


def _write_segment(
    context: AttemptContext, assignment: MapAssignment, sides: AttemptSides
) -> SegmentSummary:
    combine = context.job.combine
    buffer = MapOutputBuffer(
        segment_path(context.scratch, assignment.attempt),
        partitioner=partitioner_of(context.job.partition, context.spec, assignment.split.index),
        combine=combine
        if combine is None or isinstance(combine, Aggregation)
        else combine_by(combine, context.memory),
        budget_bytes=context.memory.buffer_bytes,
        compression=context.shuffle_compression,
        pack=context.pack,
    )
    try:
        sort_values, memory = context.job.sort_values, context.memory

        def add(pairs: Pairs) -> None:
            buffer.add(order_of_values(pairs, sort_values, memory))

        map_split(context, assignment, add if sort_values else buffer.add, sides)
        return buffer.finish()
    finally:
        buffer.discard()


def _output(
    context: AttemptContext, assignment: MapAssignment, summary: SegmentSummary
) -> MapOutput:
    return MapOutput(
        map_index=assignment.split.index,
        attempt=assignment.attempt,
        worker_id=context.worker_id,
        address=context.address,
        host=context.host,
        path=str(summary.path),
        size_bytes=summary.size_bytes,
        record_count=summary.record_count,
        digest=summary.digest,
        frame_bytes=summary.frame_bytes,
        frame_sum=summary.frame_sum,
        start=summary.start,
        shared=stem if (stem := summary.path.stem) != assignment.attempt.file_stem else "",
    )


def map_split(
    context: AttemptContext,
    assignment: MapAssignment,
    add: Callable[[Pairs], None],
    sides: AttemptSides | None = None,
) -> None:
    """Map every record of the split and hand the pairs on, in order; bad records that are allowed
    go to the quarantine of ``sides``."""
    split = assignment.split
    mapper = RecordMapper(context, assignment, sides) if context.job.map is not None else None
    done_bytes = record_count = 0
    on_malformed = mapper.malformed if mapper else refuse
    with closing(_records(context, assignment, on_malformed)) as read:
        for found in read:
            context.check_cancelled()
            count = found.record_count
            increment("map.input_records", count)
            context.page.begin_block(
                record_count, record_count=count, size_bytes=found.stored_bytes
            )
            mapped = mapper.map(found, record_count) if mapper else _map_batch(context, found)
            for pairs in mapped:
                _add(add, pairs, found)
            record_count += count
            done_bytes += found.stored_bytes
            context.report_progress(min(done_bytes, split.size_bytes), split.size_bytes)
    for pairs in context.last_pairs():
        add(pairs)
    for each in split.ranges:
        near = Nearness.LOCAL if is_local(each.url) else assignment.nearness
        increment(f"input.bytes.{near.value}", each.length)


def _records(
    context: AttemptContext, assignment: MapAssignment, on_malformed: OnMalformed
) -> Generator[Records, None, None]:
    ranges = assignment.split.ranges
    plan = context.memory
    block_bytes = plan.record_block_bytes if context.job.map is not None else plan.batch_block_bytes
    chosen = context.input_format
    reader = reader_of(chosen)
    try:
        yield from reader.read(
            ranges, context.storage, block_bytes=block_bytes, on_malformed=on_malformed
        )
    except TaskError:
        raise
    except (MinigfsError, OSError) as error:
        url = ranges[0].url if len(ranges) == 1 else ""
        where = url or f"one of {len(ranges)} files"
        raise InputFailed(f"cannot read {where}: {error}", url) from error
    except Exception as error:
        if isinstance(chosen, CustomReader):
            blame(f"input_format {type(chosen).__name__}", error)
        raise


def _map_batch(context: AttemptContext, found: Records) -> Iterator[Pairs]:
    assert context.job.map_batches is not None
    try:
        yield from call_batches(context.job.map_batches, found.batch(), "map_batches")
    except (UserCodeFailed, UnsupportedType) as error:
        raise _in_batch(error, found) from (error.__cause__ or error)


def _add(add: Callable[[Pairs], None], pairs: Pairs, found: Records) -> None:
    try:
        add(pairs)
    except UnsupportedType as error:
        raise _in_batch(error, found) from error


def _in_batch(error: UserCodeFailed | UnsupportedType, found: Records) -> UserCodeFailed:
    url, offset = found.place_of(0)
    return _at(error, record="", url=url, offset=offset, where=found.extent())


def _at(
    error: UserCodeFailed | UnsupportedType, *, record: str, url: str, offset: int, where: str
) -> UserCodeFailed:
    return UserCodeFailed(error.message, record=record, url=url, offset=offset, where=where)


def _sorted(counters: Counters) -> Counters:
    return dict(sorted(counters.items()))
