"""The commands that end attempts, made from what runs and what was reported."""

import msgspec

from minimr.coordinator.commands import CommitAttempt, FailAttempt, LoseAttempts
from minimr.coordinator.losses import attempts_to_blame, hung_failure
from minimr.coordinator.running import RunningAttempt, RunningAttempts
from minimr.coordinator.state import JobRecord
from minimr.ids import AttemptId
from minimr.messages import AttemptResult, Failure, FailureKind, GetMapOutputs

__all__ = ["commit_of", "failure_of", "hung_of", "loss_of", "missed_by", "set_back_of"]


def commit_of(
    attempt: AttemptId, result: AttemptResult, running: RunningAttempts, now_ms: int
) -> CommitAttempt:
    """``attempt`` succeeded; the task's other attempts end with it."""
    of_task = running.of_task(attempt.task)
    return CommitAttempt(
        now_ms=now_ms,
        attempt=attempt,
        result=result,
        rivals=tuple(one.attempt for one in of_task if one.attempt != attempt),
        backups=tuple(one.attempt for one in of_task if one.is_backup),
    )


def failure_of(
    attempt: AttemptId, failure: Failure, running: RunningAttempts, record: JobRecord, now_ms: int
) -> FailAttempt:
    """``attempt`` failed; if it could not fetch map outputs, those go with it."""
    known = running.get(attempt)
    is_fetch = failure.kind is FailureKind.FETCH
    lost = attempts_to_blame(record, failure.lost_outputs) if is_fetch else ()
    return FailAttempt(
        now_ms=now_ms,
        attempt=attempt,
        failure=failure,
        lost=lost,
        backups=(attempt,) if known is not None and known.is_backup else (),
    )


def loss_of(running: RunningAttempt, now_ms: int) -> LoseAttempts:
    """A running attempt went with its worker."""
    attempts = (running.attempt,)
    return LoseAttempts(
        now_ms=now_ms,
        job_id=running.attempt.task.job_id,
        attempts=attempts,
        backups=attempts if running.is_backup else (),
    )


def set_back_of(running: RunningAttempt, now_ms: int) -> LoseAttempts:
    """A reduce that waits for maps gives them its slot; it begins again later."""
    return msgspec.structs.replace(loss_of(running, now_ms), is_set_back=True)


def hung_of(
    running: RunningAttempt, attempts: RunningAttempts, record: JobRecord, now_ms: int
) -> FailAttempt:
    """An attempt made no progress for as long as its job allows."""
    failure = hung_failure(running, record)
    return failure_of(running.attempt, failure, attempts, record, now_ms)


def missed_by(request: GetMapOutputs, record: JobRecord, now_ms: int) -> LoseAttempts | None:
    """What a reduce could not fetch is lost; None if it has missed nothing that stands."""
    missed = attempts_to_blame(record, request.missed)
    if not missed:
        return None
    return LoseAttempts(
        now_ms=now_ms,
        job_id=record.job_id,
        attempts=missed,
        damaged_count=request.damaged_count,
    )
