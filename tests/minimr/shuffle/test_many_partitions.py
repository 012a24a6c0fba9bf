"""2,000 maps x 2,000 reducers multiply neither files nor memory: measured on some of them."""

import os
import tracemalloc
from itertools import count
from pathlib import Path

from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import MapOutput
from minimr.pairs import from_python
from minimr.shuffle.buffer import MapOutputBuffer
from minimr.shuffle.fetch import SegmentFetcher
from minimr.shuffle.merge import MemoryMeter, merge_runs
from minimr.shuffle.partitioners import hashed_partitions
from minimr.shuffle.places import segment_path
from minimr.shuffle.segment import SegmentReader

PARTITION_COUNT = 2_000
MAP_COUNT = 400


def output_of(directory: Path, index: int) -> MapOutput:
    """The same segment under the name of each map."""
    attempt = AttemptId(TaskId(JobId("job-1"), TaskPhase.MAP, index), 1, index)
    path = segment_path(directory, attempt)
    first = segment_path(directory, AttemptId(TaskId(JobId("job-1"), TaskPhase.MAP, 0), 1, 0))
    if index:
        os.link(first, path)
    else:
        buffer = MapOutputBuffer(
            path,
            partitioner=hashed_partitions(PARTITION_COUNT),
            combine=None,
            budget_bytes=1 << 27,
        )
        keys = [b"key-%d" % number for number in range(10 * PARTITION_COUNT)]
        buffer.add(from_python(keys, [1] * len(keys)))
        buffer.finish()
        assert path.stat().st_size < 800 * PARTITION_COUNT
    with SegmentReader(path) as reader:
        return MapOutput(
            map_index=index, attempt=attempt, worker_id=WorkerId("w"), address="", host="h",
            path=str(path), size_bytes=path.stat().st_size, record_count=0, digest=reader.digest,
        )  # fmt: skip


def _open_file_count() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_reduce_of_many_maps_holds_little_for_each_and_no_file_for_any(tmp_path: Path) -> None:
    outputs = [output_of(tmp_path, index) for index in range(MAP_COUNT)]
    files = count()
    open_before = _open_file_count()
    tracemalloc.start()
    try:
        fetched = SegmentFetcher("h", None).fetch(
            outputs, 7, tmp_path, memory_bytes=1 << 20, map_count=len(outputs)
        )
        assert _open_file_count() == open_before
        merged = merge_runs(
            [each.as_run(lambda _: None) for each in fetched if each.frames],
            budget_bytes=4 << 20,
            spill_path=lambda: tmp_path / f"spill-{next(files)}",
            meter=MemoryMeter(),
        )
        rows = sum(pairs.num_rows for pairs in merged)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows % MAP_COUNT == 0
    assert rows > 0
    assert peak_bytes < 4_000 * MAP_COUNT
    assert next(files) == 0, "tiny runs are merged at once"
