"""A sample of a job's keys before the job starts, for range partitions (MapReduce section 5.3).

The job's own map function runs here, in the client, on the records at a bounded number of places
of the input: one in each of as many equal pieces, at a place drawn with a fixed seed. Whatever goes
wrong at a place leaves it out of the sample: the job itself will meet it, and report it in full.
"""

import random
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np

from minimr.column_types import to_objects
from minimr.columns import from_numpy
from minimr.formats.storage import Storage
from minimr.ids import AttemptId, TaskId, TaskPhase, WorkerId
from minimr.inputs import InputFormat, chosen_format, cuts_files
from minimr.job import Job
from minimr.messages import FileRange, JobSpec, MapAssignment, Split, SplitPoint
from minimr.ordered_bytes import encode
from minimr.pairs import Pairs
from minimr.partition import RangePartition
from minimr.plan.range_partition import split_points
from minimr.shuffle.fetch import SegmentFetcher
from minimr.side_outputs import writing_sides
from minimr.tasks.context import AttemptContext
from minimr.tasks.functions import with_functions
from minimr.tasks.map_task import map_split

__all__ = ["sampled_split_points"]

PLACES_PER_PARTITION = 16  # so that input that is sorted already gets parts that differ little
PLACE_COUNT_MIN = 64
PLACE_COUNT_MAX = 1024  # each costs a seek, on a cluster a request
PLACE_BYTES = 64 << 10
KEY_COUNT_MAX = 50_000  # of all places together; 30 a partition and more are needed
WHOLE_SPLIT_COUNT_MAX = 16  # looked into if small ranges of the input have no records


def sampled_split_points(job: Job, spec: JobSpec, storage: Storage) -> tuple[SplitPoint, ...]:
    """The points of a job with a `RangePartition`; none for other jobs."""
    partition = job.partition
    if not isinstance(partition, RangePartition) or spec.partition_count < 2:
        return ()
    ranges = [each for split in spec.splits for each in split.ranges if each.length]
    read = chosen_format(job.input_format, dict(spec.settings))
    places = _places(ranges, spec.partition_count, read)
    with tempfile.TemporaryDirectory(prefix="minimr-") as name:  # for the job's files
        scratch = Path(name)
        keys = list(_keys_at(places, job, spec, storage, scratch))
        if len(keys) < PLACES_PER_PARTITION * spec.partition_count and places != ranges:
            step = -(-len(ranges) // WHOLE_SPLIT_COUNT_MAX)
            keys += _keys_at(ranges[::step], job, spec, storage, scratch)
    return split_points(keys, spec.partition_count, splits_keys=partition.split_keys)


def _places(
    ranges: Sequence[FileRange], partition_count: int, input_format: InputFormat
) -> list[FileRange]:
    """Small ranges all over the input, or the input if it is small."""
    wanted = min(max(PLACES_PER_PARTITION * partition_count, PLACE_COUNT_MIN), PLACE_COUNT_MAX)
    ends = list(accumulate(each.length for each in ranges))
    if not ends or ends[-1] <= wanted * PLACE_BYTES:
        return list(ranges)
    draw = random.Random(ends[-1])  # the same places each time
    found: dict[tuple[str, int], FileRange] = {}
    for piece in range(wanted):
        at = (ends[-1] * piece + draw.randrange(ends[-1])) // wanted
        index = bisect_right(ends, at)
        offset = at - (ends[index] - ranges[index].length)
        is_cut = cuts_files(input_format, ranges[index].url)
        place = _place(ranges[index], offset) if is_cut else ranges[index]
        found[place.url, place.start] = place
    return list(found.values())


def _place(within: FileRange, offset: int) -> FileRange:
    if within.compression or within.length <= PLACE_BYTES:
        return within
    start = within.start + min(offset, within.length - PLACE_BYTES)
    return msgspec.structs.replace(within, start=start, length=PLACE_BYTES)


def _keys_at(
    places: Sequence[FileRange], job: Job, spec: JobSpec, storage: Storage, scratch: Path
) -> Iterator[bytes]:
    """Keys in their ordered form, equally many of each place at most."""
    wanted = max(KEY_COUNT_MAX // max(len(places), 1), 1)
    for index, place in enumerate(places):
        taker = _Taker(wanted)
        assignment = MapAssignment(
            attempt=AttemptId(TaskId(spec.job_id, TaskPhase.MAP, index), 0, 0),
            split=Split(index=index, ranges=(place,), size_bytes=place.length),
            partition_count=spec.partition_count,
        )
        try:
            context = _context(job, spec, assignment, storage, scratch)
            with with_functions(context, "map") as ready, writing_sides(_NoSides()):
                map_split(ready, assignment, taker.add)
        except _EnoughKeys:
            pass
        except Exception:  # the job's own task will meet it, and tell it with its place
            continue
        yield from taker.keys


class _NoSides:
    """What map functions write beside their pairs is for the job itself."""

    def file(self, name: str) -> "_NoSides":
        return self

    def write(self, content: bytes) -> None:
        """Nothing is kept."""


class _EnoughKeys(Exception):
    """The place has given its share."""


class _Taker:
    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.keys: list[bytes] = []

    def add(self, pairs: Pairs) -> None:
        left = self._wanted - len(self.keys)
        step = max(1, pairs.num_rows // max(left, 1))  # a batch may be sorted
        rows = np.arange(0, pairs.num_rows, step)[:left]
        self.keys += map(encode, to_objects(pairs.column(0).take(from_numpy(rows))))
        if len(self.keys) >= self._wanted:
            raise _EnoughKeys


def _context(
    job: Job, spec: JobSpec, assignment: MapAssignment, storage: Storage, scratch: Path
) -> AttemptContext:
    return AttemptContext(
        job=job,
        spec=spec,
        assignment=assignment,
        scratch=scratch,
        worker_id=WorkerId("client"),
        address="",
        host="",
        fetcher=SegmentFetcher("", None),
        report_progress=lambda _done, _total: None,
        is_cancelled=lambda: False,
        storage=storage,
    )
