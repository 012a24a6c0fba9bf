"""What went through a job, counted at each end: nothing is lost or doubled between them.

Pairs are counted and summed where maps write them (after the combiner) and again where reduces read
them. The sum is that of the frames' xxh3, modulo 2^64: it does not depend on any order, and it is
the same on both sides only if every frame of every committed map was read exactly once.
"""

from collections.abc import Iterable

from minimr.coordinator.state import JobRecord
from minimr.ids import TaskId, TaskPhase
from minimr.messages import Amount, MapOutput, MapResult, Receipt, ReduceResult

__all__ = ["receipt_of"]

_MODULUS = 1 << 64


def receipt_of(record: JobRecord) -> Receipt:
    """Of a job all of whose parts are there."""
    outputs = tuple(_committed(record))
    parts = tuple(record.parts())
    return Receipt(
        input=Amount(
            records=record.counters.get("map.input_records", 0), bytes=record.input_bytes_done
        ),
        map_output=_total(
            Amount(records=one.record_count, bytes=one.frame_bytes, sum=one.frame_sum)
            for one in outputs
        ),
        reduce_input=_total(_received(record)),
        output=_total(
            Amount(records=part.record_count, bytes=part.size_bytes, sum=int(part.xxh3, 16))
            for part in parts
        ),
    )


def _committed(record: JobRecord) -> Iterable[MapOutput]:
    """Also those that were lost after all reduces had fetched them: the commit still stands."""
    for index in range(record.map_count):
        commit = record.task(record.map_task(index)).commit
        result = commit.result if commit is not None else None
        if isinstance(result, MapResult) and result.output is not None:
            yield result.output


def _received(record: JobRecord) -> Iterable[Amount]:
    for partition in range(record.reduce_count):
        commit = record.task(TaskId(record.job_id, TaskPhase.REDUCE, partition)).commit
        if commit is not None and isinstance(commit.result, ReduceResult):
            yield commit.result.received


def _total(amounts: Iterable[Amount]) -> Amount:
    records = size_bytes = frame_sum = 0
    for amount in amounts:
        records += amount.records
        size_bytes += amount.bytes
        frame_sum += amount.sum
    return Amount(records=records, bytes=size_bytes, sum=frame_sum % _MODULUS)
