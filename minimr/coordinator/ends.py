"""The commands that end attempts, made from what runs and what was reported."""

from minimr.coordinator.commands import CommitAttempt, FailAttempt, LoseAttempts
from minimr.coordinator.losses import attempts_to_blame
from minimr.coordinator.running import RunningAttempt, RunningAttempts
from minimr.coordinator.state import JobRecord
from minimr.ids import AttemptId
from minimr.messages import AttemptResult, Failure, FailureKind

__all__ = ["commit_of", "failure_of", "loss_of"]


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
    lost: tuple[AttemptId, ...] = ()
    if failure.kind is FailureKind.FETCH:
        lost = attempts_to_blame(known, record, failure.lost_map_indexes)
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
