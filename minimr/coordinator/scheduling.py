"""Which task a free worker gets (MapReduce section 3.4; DESIGN 6.11).

Workers pull: a worker that asks gets a task of the oldest job that has one for it. Among map tasks
one whose input lies on the worker's host comes first, else the lowest index; a free worker never
waits for a better task. A task that comes back (failed, lost) keeps its index, so it is tried
again early, and a job that must fail fails soon.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence

from minimr.coordinator.state import JobRecord, JobStage
from minimr.coordinator.status import attempt_counters
from minimr.ids import AttemptId, TaskId, TaskPhase
from minimr.messages import (
    Assignment,
    MapAssignment,
    MapOutput,
    PublishAssignment,
    ReduceAssignment,
)

__all__ = ["JobQueue", "TaskQueue", "assignment_of"]


class TaskQueue:
    """Idle tasks of one phase: ``put`` and ``take`` cost O(log n) however many there are.

    Heaps may hold tasks that were taken by another way; ``_idle`` knows the truth.
    """

    def __init__(self, hosts_of: Sequence[tuple[str, ...]], idle: Iterable[int]) -> None:
        self._hosts_of = hosts_of
        self._idle: set[int] = set()
        self._by_index: list[int] = []
        self._by_host: dict[str, list[int]] = {}
        for index in idle:
            self.put(index)

    def __len__(self) -> int:
        return len(self._idle)

    def put(self, index: int) -> None:
        assert 0 <= index < len(self._hosts_of)
        if index in self._idle:
            return
        self._idle.add(index)
        heapq.heappush(self._by_index, index)
        for host in self._hosts_of[index]:
            heapq.heappush(self._by_host.setdefault(host, []), index)

    def take(self, host: str) -> int | None:
        """Remove and return the best idle task for a worker on ``host``; None if there is none."""
        index = self._first(self._by_host.get(host, []))
        if index is None:
            index = self._first(self._by_index)
        if index is not None:
            self._idle.remove(index)
        return index

    def discard(self, index: int) -> None:
        self._idle.discard(index)

    def _first(self, heap: list[int]) -> int | None:
        while heap:
            index = heapq.heappop(heap)
            if index in self._idle:
                return index
        return None


_PHASE_OF_STAGE = {
    JobStage.MAP: TaskPhase.MAP,
    JobStage.REDUCE: TaskPhase.REDUCE,
    JobStage.PUBLISH: TaskPhase.PUBLISH,
}


class JobQueue:
    """The idle tasks of one job; reduces wait for all maps, the publish task for all parts."""

    def __init__(self, record: JobRecord) -> None:
        hosts_of: dict[TaskPhase, list[tuple[str, ...]]] = {
            TaskPhase.MAP: [split.hosts for split in record.spec.splits],
            TaskPhase.REDUCE: [()] * record.reduce_count,
            TaskPhase.PUBLISH: [()],
        }
        self._queues = {
            phase: TaskQueue(
                hosts,
                idle=(
                    index
                    for index in range(len(hosts))
                    if not record.is_settled(TaskId(record.job_id, phase, index))
                ),
            )
            for phase, hosts in hosts_of.items()
        }

    def take(self, record: JobRecord, host: str) -> TaskId | None:
        """A task of ``record`` that can run now, for a worker on ``host``."""
        phase = _PHASE_OF_STAGE.get(record.stage)
        if phase is None:
            return None
        index = self._queues[phase].take(host)
        return None if index is None else TaskId(record.job_id, phase, index)

    def put(self, task: TaskId) -> None:
        self._queues[task.phase].put(task.index)

    def discard(self, task: TaskId) -> None:
        """``task`` runs or is done by other means: an adopted attempt, a late commit."""
        self._queues[task.phase].discard(task.index)


def assignment_of(
    record: JobRecord, attempt: AttemptId, current: Callable[[MapOutput], MapOutput]
) -> Assignment:
    """What the worker that runs ``attempt`` needs to know.

    ``current`` corrects the address of a map output whose worker has restarted since.
    """
    task = attempt.task
    if task.phase is TaskPhase.MAP:
        split = record.spec.splits[task.index]
        return MapAssignment(attempt=attempt, split=split, partition_count=record.reduce_count)
    if task.phase is TaskPhase.REDUCE:
        assert record.stage is JobStage.REDUCE
        outputs = tuple(current(output) for output in record.map_outputs())
        assert len(outputs) == record.map_count
        return ReduceAssignment(attempt=attempt, partition=task.index, map_outputs=outputs)
    assert record.stage is JobStage.PUBLISH
    return PublishAssignment(
        attempt=attempt, parts=tuple(record.parts()), counters=attempt_counters(record)
    )
