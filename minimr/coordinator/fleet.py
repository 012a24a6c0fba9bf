"""The workers as the coordinator knows them: soft state, learnt from what they say.

A worker is known from its first hello (or poll) until it has been silent for
``WORKER_DEAD_AFTER_MS``; a dead one stays listed for a while but gets no work. One whose attempts
of several tasks failed in a row is set aside for a while that doubles each time; a success clears
it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from minimr.config import (
    ASIDE_MS,
    ASIDE_MS_MAX,
    FAULTS_BEFORE_ASIDE,
    WORKER_DEAD_AFTER_MS,
    WORKER_FORGOTTEN_AFTER_MS,
)
from minimr.coordinator.running import RunningAttempts
from minimr.ids import JobId, TaskId, WorkerId
from minimr.messages import FailureKind, MapOutput, WorkerInfo, WorkerList, WorkerReport

__all__ = ["Fleet", "Poll", "Worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A worker waits for a task, or for up to ``most`` short ones; ``token`` answers it."""

    token: int
    deadline_ms: int
    most: int = 1


_SLOWNESS_KEPT_MS = 60_000  # then it is tried again: what made it slow may be over
_WORKERS_FAULT = frozenset(
    {FailureKind.DIED, FailureKind.HUNG, FailureKind.INPUT, FailureKind.OUTPUT}
    | {FailureKind.INTERNAL, FailureKind.NO_SPACE}
)


@dataclass(slots=True, kw_only=True)
class Worker:
    info: WorkerInfo
    executor_pid: int
    heard_ms: int
    alive: bool = True
    poll: Poll | None = None
    idle_since_ms: int = 0  # 0: it is busy
    faults: list[TaskId] = field(default_factory=list)
    aside_until_ms: int = 0
    aside_for_ms: int = ASIDE_MS
    aside_reason: str = ""
    _slowness_permille: int = 0
    _slowness_until_ms: int = 0

    def note_slowness(self, permille: int, duration_ms: int, now_ms: int) -> None:
        """Its last attempt took ``permille / 1000`` times as long as usual: ``duration_ms``."""
        self._slowness_permille = permille
        self._slowness_until_ms = now_ms + max(duration_ms, _SLOWNESS_KEPT_MS)

    def slowness_permille(self, now_ms: int) -> int:
        """0 if nothing is known."""
        return self._slowness_permille if now_ms < self._slowness_until_ms else 0

    def note_success(self) -> None:
        self.faults.clear()
        self.aside_for_ms = ASIDE_MS

    def note_failure(self, task: TaskId, kind: FailureKind, now_ms: int) -> None:
        """An attempt failed here in a way that may be the worker's fault."""
        if kind not in _WORKERS_FAULT:
            return
        self.faults.append(task)
        is_full = kind is FailureKind.NO_SPACE
        if is_full or (len(self.faults) >= FAULTS_BEFORE_ASIDE and len(set(self.faults)) > 1):
            why = "its disk was full" if is_full else f"{len(self.faults)} attempts failed in a row"
            self.aside_reason = f"{why}, the last of them one of {task}"
            self.aside_until_ms = now_ms + self.aside_for_ms
            self.aside_for_ms = min(2 * self.aside_for_ms, ASIDE_MS_MAX)
            self.faults.clear()

    def aside(self, now_ms: int) -> str:
        """Why it gets no tasks at the moment; "" if it does."""
        return self.info.unfit or (self.aside_reason if now_ms < self.aside_until_ms else "")


class Fleet:
    """Workers in the order in which they were first heard of."""

    def __init__(self) -> None:
        self._workers: dict[WorkerId, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers.values()))

    def alive(self, worker_id: WorkerId) -> Worker | None:
        worker = self._workers.get(worker_id)
        return worker if worker is not None and worker.alive else None

    def knows(self, worker_id: WorkerId, incarnation: str) -> bool:
        worker = self.alive(worker_id)
        return worker is not None and worker.info.incarnation == incarnation

    def enrol(self, info: WorkerInfo, now_ms: int) -> Worker:
        """(Re)place a worker by what it says of itself; the poll of its past life is dropped."""
        worker = Worker(info=info, executor_pid=info.executor_pid, heard_ms=now_ms)
        before = self._workers.get(info.worker_id)
        if before is not None:  # a restart heals neither a bad disk nor a slow host
            worker.faults, worker.aside_for_ms = before.faults, before.aside_for_ms
            worker.aside_until_ms = before.aside_until_ms
            worker.aside_reason = before.aside_reason
        self._workers[info.worker_id] = worker
        return worker

    def host_of(self, worker_id: WorkerId) -> str:
        """ "" if it is not known any more."""
        worker = self._workers.get(worker_id)
        return worker.info.host if worker is not None else ""

    def hosts_in_rack(self, rack: str) -> set[str]:
        """The hosts of a rack, as far as they have workers."""
        return {worker.info.host for worker in self if worker.info.rack == rack}

    def fit(self, now_ms: int) -> list[Worker]:
        """Workers that may get tasks. If all that could are set aside, they are tried again: a job
        that fails tells more than one that waits."""
        able = [worker for worker in self if worker.alive and not worker.info.unfit]
        return [worker for worker in able if not worker.aside(now_ms)] or able

    def why_idle(self, now_ms: int) -> str:
        """Why no job can get on; "" if one can."""
        alive = [worker for worker in self if worker.alive]
        if not alive:
            return "no worker is alive: see `minimr status`"
        return "" if self.fit(now_ms) else f"no worker takes tasks: {alive[0].info.unfit}"

    def forgive(self, job_id: JobId) -> None:
        """The job has ended: what failed of it may have been its own fault."""
        for worker in self:
            worker.faults = [task for task in worker.faults if task.job_id != job_id]

    def silent(self, now_ms: int) -> list[Worker]:
        """Workers to be given up now."""
        return [
            worker for worker in self if worker.alive and now_ms - worker.heard_ms
            > WORKER_DEAD_AFTER_MS
        ]  # fmt: skip

    def forget(self, now_ms: int) -> None:
        """Drop the workers that have been dead for long."""
        for worker in self:
            if now_ms - worker.heard_ms > WORKER_FORGOTTEN_AFTER_MS:
                del self._workers[worker.info.worker_id]

    def waiting(self) -> list[Worker]:
        """Workers with an open poll, those that wait longest first."""
        waiting = [worker for worker in self if worker.poll is not None]
        return sorted(waiting, key=lambda worker: worker.poll.token if worker.poll else 0)

    def current(self, output: MapOutput) -> MapOutput:
        """``output`` with its worker's address of today: a restart may have changed it."""
        worker = self.alive(output.worker_id)
        if worker is None or worker.info.address == output.address:
            return output
        return msgspec.structs.replace(output, address=worker.info.address)

    def worker_list(self, running: RunningAttempts, now_ms: int) -> WorkerList:
        """Every worker that is not forgotten, and what it is busy with."""
        return WorkerList(workers=tuple(_report(worker, running, now_ms) for worker in self))


def _report(worker: Worker, running: RunningAttempts, now_ms: int) -> WorkerReport:
    info = worker.info
    busy = running.of_worker(info.worker_id) if worker.alive else []
    return WorkerReport(
        id=info.worker_id,
        pid=info.pid,
        executor_pid=worker.executor_pid,
        host=info.host,
        dir=info.directory,
        alive=worker.alive,
        task=str(busy[0].attempt) if busy else "",
        rack=info.rack,
        address=info.address,
        aside=worker.aside(now_ms) if worker.alive else "",
    )
