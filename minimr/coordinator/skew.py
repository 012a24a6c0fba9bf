"""How unevenly a job's pairs are spread over its partitions and keys: what `jobs show` tells."""

from heapq import nlargest

from minimr.coordinator.state import JobRecord
from minimr.ids import TaskId, TaskPhase
from minimr.messages import HotKey, ReduceResult, Skew

__all__ = ["HOT_KEY_COUNT", "skew_of"]

HOT_KEY_COUNT = 5


def skew_of(record: JobRecord) -> Skew | None:
    """Of the reduces that have committed; None if there are none, or nothing came to them."""
    results = []
    for partition in range(record.reduce_count):
        commit = record.task(TaskId(record.job_id, TaskPhase.REDUCE, partition)).commit
        if commit is not None and isinstance(commit.result, ReduceResult):
            results.append((partition, commit.result))
    record_count = sum(result.received.records for _, result in results)
    if not record_count:
        return None
    partition, largest = max(results, key=lambda each: each[1].received.records)
    hot: list[HotKey] = [key for _, result in results for key in result.hot_keys]
    return Skew(
        hot_keys=tuple(nlargest(HOT_KEY_COUNT, hot, key=lambda key: key.record_count)),
        record_count=record_count,
        partition_count=len(results),
        largest_partition=partition,
        largest_record_count=largest.received.records,
    )
