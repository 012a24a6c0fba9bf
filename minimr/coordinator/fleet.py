"""The workers as the coordinator knows them: soft state, learnt from what they say.

A worker is known from its first hello (or poll) until it has been silent for
``WORKER_DEAD_AFTER_MS``; a dead one stays listed for a while but gets no work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from minimr.config import WORKER_DEAD_AFTER_MS, WORKER_FORGOTTEN_AFTER_MS
from minimr.coordinator.running import RunningAttempts
from minimr.ids import WorkerId
from minimr.messages import MapOutput, WorkerInfo, WorkerList, WorkerReport

__all__ = ["Fleet", "Poll", "Worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A worker waits for a task; ``token`` answers it."""

    token: int
    deadline_ms: int


@dataclass(slots=True, kw_only=True)
class Worker:
    info: WorkerInfo
    executor_pid: int
    heard_ms: int
    alive: bool = True
    poll: Poll | None = None


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
        self._workers[info.worker_id] = worker
        return worker

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

    def worker_list(self, running: RunningAttempts) -> WorkerList:
        """Every worker that is not forgotten, and what it is busy with."""
        return WorkerList(workers=tuple(_report(worker, running) for worker in self))


def _report(worker: Worker, running: RunningAttempts) -> WorkerReport:
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
    )
