"""What a coordinator waits for when it takes over from another (DESIGN 6.11).

The log says which workers there were; only they can run attempts, as nobody is given a task before
the log knows it. So nothing is assigned before each of them has said what it runs, or had
``RECOVERY_HOLD_MS`` to do so, and one that stays silent for ``WORKER_DEAD_AFTER_MS`` is given up
like any other.
"""

from collections.abc import Iterable

from minimr.config import RECOVERY_HOLD_MS, WORKER_DEAD_AFTER_MS
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.state import JobRecord
from minimr.ids import AttemptId, WorkerId
from minimr.messages import Progress

__all__ = ["OpenAttempts", "Takeover"]


class Takeover:
    """Begins with a coordinator; a coordinator that finds no workers waits for nobody."""

    def __init__(self, workers: Iterable[WorkerId], now_ms: int) -> None:
        self._awaited = set(workers)
        self._hold_until_ms = now_ms + RECOVERY_HOLD_MS
        self._over_ms = now_ms + WORKER_DEAD_AFTER_MS
        self.is_over = False

    def heard(self, worker_id: WorkerId) -> None:
        """A worker has said what it runs."""
        self._awaited.discard(worker_id)

    def holds(self, now_ms: int) -> bool:
        """Whether somebody may still run what would be assigned now."""
        return bool(self._awaited) and now_ms < self._hold_until_ms

    def end(self, now_ms: int) -> bool:
        """True once, when those that kept silent are to be given up."""
        if self.is_over or now_ms < self._over_ms:
            return False
        self.is_over = True
        self._awaited.clear()
        return True

    def roster(self, alive: Iterable[WorkerId]) -> tuple[WorkerId, ...]:
        """The workers that the next coordinator will have to wait for."""
        return tuple(sorted(self._awaited.union(alive)))


class OpenAttempts:
    """Attempts whose end is not known: those that run, and those that an earlier coordinator than
    that of ``term`` assigned and that may still run."""

    def __init__(self, machine: CoordinatorMachine, running: RunningAttempts, term: int) -> None:
        self._machine = machine
        self._running = running
        self._term = term

    def record_of(self, attempt: AttemptId) -> JobRecord | None:
        """The job of an attempt whose end may be reported now."""
        is_open = self._running.get(attempt) is not None or self._is_adoptable(attempt)
        return self._machine.state.jobs.get(attempt.task.job_id) if is_open else None

    def is_wanted(self, attempt: AttemptId) -> bool:
        """Whether the attempt is to go on."""
        if self._is_adoptable(attempt):
            record = self._machine.state.jobs[attempt.task.job_id]
            return not record.stopped and not record.is_settled(attempt.task)
        return self._running.wants(attempt, self._machine.state)

    def adopt(self, progress: Progress, worker_id: WorkerId, now_ms: int) -> bool:
        """A worker says that this runs; true if it runs for us from now on."""
        attempt = progress.attempt
        if self._running.get(attempt) is not None or not self._is_adoptable(attempt):
            return False
        self._running.begin(attempt, worker_id, now_ms - progress.elapsed_ms)
        return True

    def _is_adoptable(self, attempt: AttemptId) -> bool:
        record = self._machine.state.jobs.get(attempt.task.job_id)
        return (
            record is not None
            and attempt.term < self._term
            and record.has_task(attempt.task)
            and record.task(attempt.task).end_of(attempt) is None
        )
