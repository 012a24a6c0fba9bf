"""What a coordinator waits for when it takes over from another (DESIGN 6.11).

The log says which workers there were; only they can run attempts, as nobody is given a task before
the log knows it. So nothing is assigned before each of them has said what it runs, or had
``RECOVERY_HOLD_MS`` to do so, and one that stays silent for ``WORKER_DEAD_AFTER_MS`` is given up
like any other.
"""

from collections.abc import Iterable

from minimr.config import RECOVERY_HOLD_MS, WORKER_DEAD_AFTER_MS
from minimr.coordinator.state import CoordinatorState
from minimr.ids import AttemptId, WorkerId

__all__ = ["Takeover", "is_adoptable"]


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


def is_adoptable(attempt: AttemptId, state: CoordinatorState, term: int) -> bool:
    """Whether an earlier coordinator than that of ``term`` assigned ``attempt``, and its end is not
    known."""
    record = state.jobs.get(attempt.task.job_id)
    return (
        record is not None
        and attempt.term < term
        and record.has_task(attempt.task)
        and record.task(attempt.task).end_of(attempt) is None
    )
