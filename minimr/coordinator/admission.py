"""What the coordinator refuses to take in: job specifications and results that make no sense.

Each function returns what is wrong, in one line, or None.
"""

from minimr.coordinator.backups import POLICIES
from minimr.coordinator.state import JobRecord
from minimr.ids import AttemptId, TaskPhase
from minimr.messages import (
    AttemptResult,
    JobSpec,
    MapResult,
    PublishResult,
    ReduceResult,
)

__all__ = ["admission_problem", "result_problem"]

_RESULT_TYPE: dict[TaskPhase, type[AttemptResult]] = {
    TaskPhase.MAP: MapResult,
    TaskPhase.REDUCE: ReduceResult,
    TaskPhase.PUBLISH: PublishResult,
}


def admission_problem(spec: JobSpec) -> str | None:
    if not spec.job_id or not spec.name:
        return "a job needs an id and a name"
    if [split.index for split in spec.splits] != list(range(len(spec.splits))):
        return f"job {spec.job_id}: its splits are not numbered 0, 1, 2, ..."
    if spec.partition_count < 0:
        return f"job {spec.job_id}: {spec.partition_count} partitions; use 0 for a map-only job"
    if spec.attempt_limit < 1:
        return f"job {spec.job_id}: an attempt limit of {spec.attempt_limit} allows no attempt"
    if spec.max_bad < 0:
        return f"job {spec.job_id}: {spec.max_bad} bad records; use 0 to allow none"
    if spec.backup_policy not in POLICIES:
        return f"job {spec.job_id}: backup policy {spec.backup_policy!r} is none of " + ", ".join(
            POLICIES
        )
    return None


def result_problem(record: JobRecord, attempt: AttemptId, result: AttemptResult) -> str | None:
    task = attempt.task
    if not record.has_task(task):
        return f"{attempt}: job {record.job_id} has no such task"
    if not isinstance(result, _RESULT_TYPE[task.phase]):
        return f"{attempt}: a {task.phase.value} task cannot end with a {type(result).__name__}"
    if isinstance(result, MapResult):
        has_reduces = record.reduce_count > 0
        if (result.output is not None) != has_reduces or (result.part is None) != has_reduces:
            return f"{attempt}: a map gives one output, or in a map-only job one part"
        if result.output is not None and result.output.attempt != attempt:
            return f"{attempt}: reports the output of {result.output.attempt}"
    if isinstance(result, MapResult | ReduceResult):
        part = result.part
        if part is not None and part.attempt != attempt:
            return f"{attempt}: reports the part of {part.attempt}"
    return None
