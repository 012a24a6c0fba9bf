"""The attempts that run now, as far as this coordinator knows: soft state."""

from collections.abc import Iterator
from dataclasses import dataclass

from minimr.coordinator.state import CoordinatorState
from minimr.ids import AttemptId, JobId, TaskId, WorkerId
from minimr.messages import Assignment, Progress

__all__ = ["RunningAttempt", "RunningAttempts"]


@dataclass(slots=True, kw_only=True)
class RunningAttempt:
    """``assignment`` is None for an attempt adopted from an earlier coordinator. ``ending``: the
    command that ends it is on its way through the log."""

    attempt: AttemptId
    worker_id: WorkerId
    assignment: Assignment | None
    done_bytes: int = 0
    total_bytes: int = 0
    ending: bool = False


class RunningAttempts:
    """At most a few per worker, so plain scans do. In the order in which they began."""

    def __init__(self) -> None:
        self._attempts: dict[AttemptId, RunningAttempt] = {}

    def __iter__(self) -> Iterator[RunningAttempt]:
        return iter(tuple(self._attempts.values()))

    def get(self, attempt: AttemptId) -> RunningAttempt | None:
        return self._attempts.get(attempt)

    def add(self, running: RunningAttempt) -> None:
        assert running.attempt not in self._attempts
        self._attempts[running.attempt] = running

    def remove(self, attempt: AttemptId) -> None:
        self._attempts.pop(attempt, None)

    def remove_job(self, job_id: JobId) -> None:
        for running in self.of_job(job_id):
            self.remove(running.attempt)

    def of_job(self, job_id: JobId) -> list[RunningAttempt]:
        return [running for running in self if running.attempt.task.job_id == job_id]

    def of_worker(self, worker_id: WorkerId) -> list[RunningAttempt]:
        return [running for running in self if running.worker_id == worker_id]

    def first_of(self, task: TaskId) -> AttemptId | None:
        """The attempt of ``task`` that is to go on; after a failover there may be more of them."""
        return next((running.attempt for running in self if running.attempt.task == task), None)

    def wants(self, attempt: AttemptId, state: CoordinatorState) -> bool:
        """Whether the end of a running attempt still matters to anybody."""
        record = state.jobs.get(attempt.task.job_id)
        return (
            record is not None
            and not record.stopped
            and not record.is_settled(attempt.task)
            and self.first_of(attempt.task) == attempt
        )

    def progress_of(self, job_id: JobId) -> list[Progress]:
        return [
            Progress(
                attempt=running.attempt,
                done_bytes=running.done_bytes,
                total_bytes=running.total_bytes,
            )
            for running in self.of_job(job_id)
        ]
