"""The idle tasks of a job, and what a worker is told that gets one (MapReduce section 3.4).

Workers pull. Which job's turn it is, and how long a job waits for a better slot, is decided in
``assigning``; a queue only finds the best task for a place. A task that comes back (failed, lost)
keeps its index, so it is tried again early, and a job that must fail fails soon.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence

from minimr.coordinator.receipt import receipt_of
from minimr.coordinator.state import JobRecord, JobStage
from minimr.coordinator.status import attempt_counters
from minimr.ids import AttemptId, TaskId, TaskPhase
from minimr.messages import (
    Assignment,
    MapAssignment,
    MapOutput,
    Nearness,
    PublishAssignment,
    ReduceAssignment,
)

__all__ = ["JobQueue", "TaskQueue", "assignment_of", "phase_to_run"]

Avoid = Callable[[int], bool]

_MAP_OUTPUTS_TOLD_MAX = 64  # with the assignment: 14 KB; more are told of once a worker, not a task


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

    def take(self, hosts: Iterable[str] | None, avoid: Avoid) -> int | None:
        """Remove and return the first idle task that is stored on one of ``hosts`` (None: any task)
        and not to be avoided; None if there is none."""
        heaps = (
            [self._by_index]
            if hosts is None
            else [self._by_host[host] for host in hosts if host in self._by_host]
        )
        found = [index for heap in heaps if (index := self._first(heap, avoid)) is not None]
        if not found:
            return None
        best = min(found)
        self._idle.remove(best)
        return best

    def is_stored_on(self, hosts: Iterable[str]) -> bool:
        """Whether any idle task is stored on one of ``hosts``."""
        return any(
            self._first(self._by_host[host], lambda _: False) is not None
            for host in hosts
            if host in self._by_host
        )

    def discard(self, index: int) -> None:
        self._idle.discard(index)

    def _first(self, heap: list[int], avoid: Avoid) -> int | None:
        """The best entry of a heap, which stays there."""
        avoided: list[int] = []
        while heap and (heap[0] not in self._idle or avoid(heap[0])):
            index = heapq.heappop(heap)
            if index in self._idle:
                avoided.append(index)
        found = heap[0] if heap else None
        for index in avoided:
            heapq.heappush(heap, index)
        return found


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

    def of(self, phase: TaskPhase) -> TaskQueue:
        return self._queues[phase]

    def put(self, task: TaskId) -> None:
        self._queues[task.phase].put(task.index)

    def discard(self, task: TaskId) -> None:
        """``task`` runs or is done by other means: an adopted attempt, a late commit."""
        self._queues[task.phase].discard(task.index)


def phase_to_run(record: JobRecord) -> TaskPhase | None:
    """Which of a job's tasks can run now."""
    return _PHASE_OF_STAGE.get(record.stage)


def assignment_of(
    record: JobRecord,
    attempt: AttemptId,
    current: Callable[[MapOutput], MapOutput],
    nearness: Nearness = Nearness.REMOTE,
) -> Assignment:
    """What the worker that runs ``attempt`` needs to know.

    ``current`` corrects the address of a map output whose worker has restarted since;
    ``nearness`` is that of a map's input.
    """
    task = attempt.task
    if task.phase is TaskPhase.MAP:
        split = record.spec.splits[task.index]
        return MapAssignment(
            attempt=attempt,
            split=split,
            partition_count=record.reduce_count,
            nearness=nearness,
            suspects=record.suspects(task),
            skips=record.skips(task),
        )
    if task.phase is TaskPhase.REDUCE:
        is_few = record.map_count <= _MAP_OUTPUTS_TOLD_MAX
        outputs = tuple(current(output) for output in record.map_outputs()) if is_few else ()
        return ReduceAssignment(
            attempt=attempt,
            partition=task.index,
            map_count=record.map_count,
            map_outputs=outputs,
        )
    assert record.stage is JobStage.PUBLISH
    return PublishAssignment(
        attempt=attempt,
        parts=tuple(record.parts()),
        counters=attempt_counters(record),
        sides=tuple(record.sides()),
        receipt=receipt_of(record),
    )
