"""The commands that end attempts, made from what runs and what was reported."""

from collections.abc import Iterable

from minimr.coordinator.commands import (
    Command,
    CommitAttempt,
    EndAttempts,
    FailAttempt,
    LoseAttempts,
)
from minimr.coordinator.losses import attempts_to_blame, hung_failure
from minimr.coordinator.running import RunningAttempt, RunningAttempts
from minimr.coordinator.state import JobRecord
from minimr.ids import AttemptId, JobId
from minimr.messages import AttemptResult, Failure, FailureKind, GetMapOutputs

__all__ = ["commit_of", "failure_of", "ended_by", "hung_of", "losses_of", "missed_by"]


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


def losses_of(
    lost: Iterable[RunningAttempt], now_ms: int, *, is_set_back: bool = False
) -> tuple[LoseAttempts, ...]:
    """Running attempts went with their worker, or were taken from it to begin again later: one
    command for each job."""
    by_job: dict[JobId, list[RunningAttempt]] = {}
    for running in lost:
        by_job.setdefault(running.attempt.task.job_id, []).append(running)
    return tuple(
        LoseAttempts(
            now_ms=now_ms,
            job_id=job_id,
            attempts=tuple(one.attempt for one in of_job),
            backups=tuple(one.attempt for one in of_job if one.is_backup),
            is_set_back=is_set_back,
        )
        for job_id, of_job in by_job.items()
    )


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


def ended_by(command: Command) -> tuple[AttemptId, ...]:
    """The attempts whose ends were reported to make ``command``."""
    match command:
        case CommitAttempt(attempt=attempt) | FailAttempt(attempt=attempt):
            return (attempt,)
        case LoseAttempts(attempts=attempts):
            return attempts
        case EndAttempts(ends=ends):
            return tuple(attempt for end in ends for attempt in ended_by(end))
        case _:
            return ()
