"""Which attempts hang, and which committed map outputs went with a worker or could not be fetched:
decisions only."""

from collections.abc import Iterator

from minimr.coordinator.fleet import Fleet
from minimr.coordinator.running import RunningAttempt, RunningAttempts
from minimr.coordinator.state import AttemptEnd, CoordinatorState, JobRecord, JobStage
from minimr.ids import AttemptId, JobId, TaskPhase, WorkerId
from minimr.messages import Failure, FailureKind

__all__ = [
    "attempts_to_blame",
    "hung_attempts",
    "hung_failure",
    "outputs_lost_with",
    "owners_never_heard_of",
]


def hung_attempts(
    running: RunningAttempts, state: CoordinatorState, now_ms: int
) -> list[tuple[RunningAttempt, JobRecord]]:
    """Attempts without any progress for as long as their job allows; a reduce may wait for maps,
    and any for the one that its worker runs before it."""
    return [
        (one, record)
        for one in running
        if not one.ending
        and (record := state.jobs.get(one.attempt.task.job_id)) is not None
        and now_ms - one.moved_ms > record.spec.progress_deadline_ms > 0
        and not (record.stage is JobStage.MAP and one.attempt.task.phase is TaskPhase.REDUCE)
        and one.attempt not in running.waiting_on(one.worker_id)
    ]


def hung_failure(running: RunningAttempt, record: JobRecord) -> Failure:
    deadline_ms = record.spec.progress_deadline_ms
    return Failure(
        kind=FailureKind.HUNG,
        error=f"{running.attempt} made no progress for {deadline_ms / 1000:g} s on worker "
        f"{running.worker_id}: it was given up; if its records take that long, allow more with "
        "--task-timeout",
    )


def outputs_lost_with(
    state: CoordinatorState, worker_id: WorkerId, stored: frozenset[str]
) -> Iterator[tuple[JobId, tuple[AttemptId, ...]]]:
    """Per job that still needs them, the outputs on a worker except those it has ``stored``."""
    for record in state.jobs.values():
        if record.stage in (JobStage.MAP, JobStage.REDUCE):
            lost = tuple(
                output.attempt
                for output in record.map_outputs()
                if output.worker_id == worker_id and output.file_stem not in stored
            )
            if lost:
                yield record.job_id, lost


def owners_never_heard_of(state: CoordinatorState, fleet: Fleet) -> list[WorkerId]:
    """Workers that hold outputs but have not said hello to this coordinator, in a fixed order."""
    owners = {
        output.worker_id: None for record in state.jobs.values() for output in record.map_outputs()
    }
    return [worker_id for worker_id in owners if fleet.alive(worker_id) is None]


def attempts_to_blame(record: JobRecord, missed: tuple[AttemptId, ...]) -> tuple[AttemptId, ...]:
    """The committed map attempts among those whose outputs a reduce could not fetch: a map that has
    run again since is not to blame."""
    return tuple(
        attempt
        for attempt in missed
        if attempt.task.phase is TaskPhase.MAP
        and record.has_task(attempt.task)
        and record.task(attempt.task).end_of(attempt) is AttemptEnd.COMMITTED
    )
