"""The attempts that run now, as far as this coordinator knows: soft state."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from minimr.coordinator.state import CoordinatorState, JobStage
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import Progress

__all__ = ["RunningAttempt", "RunningAttempts"]

_KeyT = TypeVar("_KeyT")


@dataclass(slots=True, kw_only=True)
class RunningAttempt:
    """``ending``: the command that ends it is on its way through the log. ``reported_ms`` is when
    it last said how far it is, ``moved_ms`` when that was further than before; ``ready_ms`` is when
    its executor had started and it could begin, 0 if that is not known: nobody is slow before.
    ``is_alone``: it was offered alone, so it waited for nothing but that."""

    attempt: AttemptId
    worker_id: WorkerId
    began_ms: int
    reported_ms: int
    moved_ms: int
    ready_ms: int = 0
    took_ms: int = 0  # 0: it has not ended
    is_backup: bool = False
    is_alone: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    steps: int = 0
    ending: bool = False

    def note(self, progress: Progress, now_ms: int) -> None:
        """It says how far it is."""
        before = (self.done_bytes, self.total_bytes, self.steps)
        self.done_bytes, self.total_bytes = progress.done_bytes, progress.total_bytes
        self.steps = progress.steps
        self.reported_ms = now_ms
        self.note_work(progress.worked_ms, now_ms)
        if (self.done_bytes, self.total_bytes, self.steps) != before:
            self.moved_ms = now_ms

    def note_work(self, worked_ms: int, now_ms: int) -> None:
        """It says how long its executor has worked on it (see `Progress`)."""
        if worked_ms > 0:  # what is said later may have been longer on its way
            ready_ms = max(self.began_ms, now_ms - worked_ms)
            self.ready_ms = min(self.ready_ms or ready_ms, ready_ms)
        elif worked_ms < 0 and not self.ready_ms:
            self.ready_ms = self.began_ms

    def note_end(self, worked_ms: int, now_ms: int) -> None:
        """It has succeeded; ``worked_ms`` is as in `Progress`."""
        self.note_work(worked_ms, now_ms)
        since_ms = max(1, now_ms - (self.ready_ms or self.began_ms))
        self.took_ms = min(worked_ms, since_ms) if worked_ms > 0 else since_ms

    @property
    def start_ms(self) -> int:
        """How long its executor took to start; 0 if that is not known."""
        return max(0, self.ready_ms - self.began_ms) if self.is_alone else 0

    def restart(self, now_ms: int) -> None:
        """A reduce that waited for maps begins its own work now: only this tells how fast it is."""
        self.began_ms = self.reported_ms = self.moved_ms = now_ms
        self.ready_ms = now_ms if self.ready_ms else 0


class RunningAttempts:
    """Some dozens per worker at most, so plain scans do. In the order in which they began."""

    def __init__(self) -> None:
        self._attempts: dict[AttemptId, RunningAttempt] = {}
        self._by_task: dict[TaskId, list[AttemptId]] = {}
        self._by_worker: dict[WorkerId, list[AttemptId]] = {}
        self._slots: dict[JobId, Counter[WorkerId]] = {}  # attempts of each job on each worker

    def __iter__(self) -> Iterator[RunningAttempt]:
        return iter(tuple(self._attempts.values()))

    def get(self, attempt: AttemptId) -> RunningAttempt | None:
        return self._attempts.get(attempt)

    def begin(
        self,
        attempt: AttemptId,
        worker_id: WorkerId,
        began_ms: int,
        is_backup: bool = False,
        is_alone: bool = False,
    ) -> RunningAttempt:
        """``attempt`` runs on a worker."""
        assert attempt not in self._attempts
        running = RunningAttempt(
            attempt=attempt,
            worker_id=worker_id,
            began_ms=began_ms,
            reported_ms=began_ms,
            moved_ms=began_ms,
            is_backup=is_backup,
            is_alone=is_alone,
        )
        self._attempts[attempt] = running
        self._by_task.setdefault(attempt.task, []).append(attempt)
        self._by_worker.setdefault(worker_id, []).append(attempt)
        self._slots.setdefault(attempt.task.job_id, Counter())[worker_id] += 1
        return running

    def remove(self, attempt: AttemptId) -> None:
        running = self._attempts.pop(attempt, None)
        if running is None:
            return
        _take_out(self._by_task, attempt.task, attempt)
        _take_out(self._by_worker, running.worker_id, attempt)
        slots = self._slots[attempt.task.job_id]
        slots[running.worker_id] -= 1
        if not slots[running.worker_id]:
            del slots[running.worker_id]
        if not slots:
            del self._slots[attempt.task.job_id]

    def remove_job(self, job_id: JobId) -> None:
        for running in self.of_job(job_id):
            self.remove(running.attempt)

    def slots_of_job(self, job_id: JobId) -> int:
        """Workers that run attempts of a job, however many were offered to each."""
        return len(self._slots.get(job_id, ()))

    def of_job(self, job_id: JobId) -> list[RunningAttempt]:
        if job_id not in self._slots:
            return []
        return [running for running in self if running.attempt.task.job_id == job_id]

    def of_phase(self, job_id: JobId, phase: TaskPhase) -> list[RunningAttempt]:
        return [one for one in self.of_job(job_id) if one.attempt.task.phase is phase]

    def of_worker(self, worker_id: WorkerId) -> list[RunningAttempt]:
        return [self._attempts[one] for one in self._by_worker.get(worker_id, ())]

    def waiting_on(self, worker_id: WorkerId) -> list[AttemptId]:
        """Of the attempts that a worker was offered together, those that have not begun; not the
        one that is at hand, though its executor may still start."""
        open_ones = [one for one in self.of_worker(worker_id) if not one.ending]
        return [one.attempt for one in open_ones[1:] if not one.ready_ms]

    def of_task(self, task: TaskId) -> list[RunningAttempt]:
        """Two with a backup; after a failover there may be more."""
        return [self._attempts[one] for one in self._by_task.get(task, ())]

    def wants(self, attempt: AttemptId, state: CoordinatorState) -> bool:
        """Whether the end of a running attempt still matters to anybody."""
        record = state.jobs.get(attempt.task.job_id)
        return (
            record is not None
            and attempt in self._attempts
            and not record.stopped
            and not record.is_settled(attempt.task)
        )

    def restart_reduces(self, ended_map: TaskId, state: CoordinatorState, now_ms: int) -> None:
        """Reduces that began early were waiting for a map; was it the last?"""
        record = state.jobs.get(ended_map.job_id)
        is_last = record is not None and record.stage is JobStage.REDUCE
        if ended_map.phase is TaskPhase.MAP and is_last:
            for running in self.of_phase(ended_map.job_id, TaskPhase.REDUCE):
                running.restart(now_ms)

    def progress_of(self, job_id: JobId) -> list[Progress]:
        return [
            Progress(
                attempt=running.attempt,
                done_bytes=running.done_bytes,
                total_bytes=running.total_bytes,
            )
            for running in self.of_job(job_id)
        ]


def _take_out(index: dict[_KeyT, list[AttemptId]], key: _KeyT, attempt: AttemptId) -> None:
    index[key].remove(attempt)
    if not index[key]:
        del index[key]
