"""The coordinator's hard state: what a new leader must know (DESIGN 2), as frozen values.

Only ``transitions.transition`` makes a new state. Maps are persistent (``immutables.Map``), so an
old state stays valid, and free, for a snapshot or for a change that is thrown away. They are looked
up, never iterated where order shows: their order differs from process to process.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from immutables import Map

from minimr.config import SAME_RECORD_COUNT_MAX
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import (
    AttemptResult,
    Failure,
    JobSpec,
    JobState,
    JobStatus,
    MapOutput,
    MapResult,
    Part,
    PublishResult,
    ReduceResult,
)

__all__ = [
    "AttemptEnd",
    "CoordinatorState",
    "JobRecord",
    "JobStage",
    "TaskCommit",
    "TaskRecord",
]


class AttemptEnd(StrEnum):
    """How an attempt ended. Before its end the hard state does not know it."""

    COMMITTED = "committed"  # and no other attempt has taken its place
    FAILED = "failed"  # counts towards the job's attempt limit
    EXCUSED = "excused"  # failed, by no fault of its own
    LOST = "lost"  # with its worker, with its output, or because another attempt was faster
    SET_BACK = "set-back"  # by choice, to begin elsewhere or later: it only waited there


class JobStage(StrEnum):
    """What a job that has not ended is waiting for."""

    MAP = "map"
    REDUCE = "reduce"  # every map output is there
    PUBLISH = "publish"  # every part is there
    STOPPING = "stopping"  # failed or cancelled; the last attempts are on their way out


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCommit:
    attempt: AttemptId
    result: AttemptResult


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """``output_lost``: the commit's map output is gone and needed. The commit still counts until
    another attempt takes its place: some reduces may have used it. ``user_error`` is what the
    user's function last failed with, if the failure names its record."""

    commit: TaskCommit | None = None
    output_lost: bool = False
    ended: tuple[tuple[AttemptId, AttemptEnd], ...] = ()  # every other attempt, in order
    marks: tuple[str, ...] = ()  # of records at which executors died, one for each time
    user_error: str = ""

    def end_of(self, attempt: AttemptId) -> AttemptEnd | None:
        """How ``attempt`` ended; None while it runs, or if it never existed."""
        if self.commit is not None and self.commit.attempt == attempt:
            return AttemptEnd.COMMITTED
        return next((end for ended, end in self.ended if ended == attempt), None)

    def count(self, *ends: AttemptEnd) -> int:
        return sum(end in ends for _, end in self.ended)


_UNTOUCHED = TaskRecord()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job that has not ended."""

    spec: JobSpec
    admitted_ms: int
    version: int = 1  # grows with every change
    tasks: Map[TaskId, TaskRecord] = field(default_factory=Map)  # tasks with any ended attempt
    tally: Map[tuple[TaskPhase, AttemptEnd], int] = field(default_factory=Map)
    counters: Map[str, int] = field(default_factory=Map)  # sums over commits
    outputs_lost: int = 0  # tasks whose record says so
    input_bytes_done: int = 0  # of commits
    shuffle_bytes: int = 0  # of committed map outputs
    maps_done_ms: int = 0  # when the last map committed for the first time; 0: not yet
    reduces_done_ms: int = 0
    stopped: bool = False
    failure: Failure | None = None  # why it was stopped; None: cancelled
    failed_task: TaskId | None = None
    ended_as: JobState | None = None  # set by the change that ends the job
    backups_won: int = 0  # backup attempts that were the first to commit
    backups_wasted: int = 0  # that ended in any other way
    input_bytes: int = 0  # of all splits: kept, because there may be very many

    @property
    def job_id(self) -> JobId:
        return self.spec.job_id

    @property
    def map_count(self) -> int:
        return len(self.spec.splits)

    @property
    def reduce_count(self) -> int:
        return self.spec.partition_count

    @property
    def maps_done(self) -> int:
        """Maps whose result is there, or is needed no more."""
        committed = self.tally.get((TaskPhase.MAP, AttemptEnd.COMMITTED), 0)
        return committed - self.outputs_lost if self.needs_map_outputs else committed

    @property
    def reduces_done(self) -> int:
        return self.tally.get((TaskPhase.REDUCE, AttemptEnd.COMMITTED), 0)

    @property
    def needs_map_outputs(self) -> bool:
        return self.reduces_done < self.reduce_count

    @property
    def stage(self) -> JobStage:
        """Computed, so that it can never contradict the counts."""
        if self.stopped:
            return JobStage.STOPPING
        if self.maps_done < self.map_count:
            return JobStage.MAP
        return JobStage.REDUCE if self.needs_map_outputs else JobStage.PUBLISH

    @property
    def publish_task(self) -> TaskId:
        return TaskId(self.job_id, TaskPhase.PUBLISH, 0)

    def map_task(self, index: int) -> TaskId:
        assert 0 <= index < self.map_count
        return TaskId(self.job_id, TaskPhase.MAP, index)

    def reduce_task(self, partition: int) -> TaskId:
        assert 0 <= partition < self.reduce_count
        return TaskId(self.job_id, TaskPhase.REDUCE, partition)

    def has_task(self, task: TaskId) -> bool:
        count = {
            TaskPhase.MAP: self.map_count,
            TaskPhase.REDUCE: self.reduce_count,
            TaskPhase.PUBLISH: 1,
        }
        return task.job_id == self.job_id and 0 <= task.index < count[task.phase]

    def task(self, task: TaskId) -> TaskRecord:
        return self.tasks.get(task, _UNTOUCHED)

    def is_settled(self, task: TaskId) -> bool:
        """Whether ``task`` need not run (again)."""
        record = self.task(task)
        return record.commit is not None and not (record.output_lost and self.needs_map_outputs)

    def map_outputs(self) -> Iterator[MapOutput]:
        """Outputs that are there, in order of their map's index; a map-only job has none."""
        for index in range(self.map_count):
            output = self.map_output(index)
            if output is not None:
                yield output

    def map_output(self, index: int) -> MapOutput | None:
        """The output of a map, if it is there."""
        task = self.task(self.map_task(index))
        if task.commit is None or task.output_lost:
            return None
        assert isinstance(task.commit.result, MapResult)
        return task.commit.result.output

    def suspects(self, task: TaskId) -> tuple[str, ...]:
        """Marks of records at which an attempt of ``task`` has died."""
        return tuple(dict.fromkeys(self.task(task).marks))

    def skips(self, task: TaskId) -> tuple[str, ...]:
        """Those that attempts of ``task`` are to set aside from now on."""
        if not self.spec.max_bad:
            return ()
        marks = self.task(task).marks
        return tuple(m for m in dict.fromkeys(marks) if marks.count(m) >= SAME_RECORD_COUNT_MAX)

    def sides(self) -> Iterator[Part]:
        """Side outputs of the committed tasks, maps before reduces, in order of their index."""
        for phase, count in (
            (TaskPhase.MAP, self.map_count),
            (TaskPhase.REDUCE, self.reduce_count),
        ):
            for index in range(count):
                commit = self.task(TaskId(self.job_id, phase, index)).commit
                if commit is not None and isinstance(commit.result, MapResult | ReduceResult):
                    yield from commit.result.sides

    def parts(self) -> Iterator[Part]:
        """Parts of the committed tasks that write output, in order of their index."""
        phase, count = (
            (TaskPhase.REDUCE, self.reduce_count)
            if self.reduce_count > 0
            else (TaskPhase.MAP, self.map_count)
        )
        for index in range(count):
            commit = self.task(TaskId(self.job_id, phase, index)).commit
            if commit is not None and isinstance(commit.result, MapResult | ReduceResult):
                assert commit.result.part is not None
                yield commit.result.part

    def published_parts(self) -> Iterator[Part]:
        """Those of a job that is done, as they stand in its output."""
        commit = self.task(self.publish_task).commit
        anew = commit.result.parts if commit and isinstance(commit.result, PublishResult) else ()
        changed = {part.name: part for part in anew}
        return (changed.get(part.name, part) for part in self.parts())


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorState:
    """``jobs`` in the order of their admission; ``history`` oldest first."""

    term: int = 0  # the last one opened
    jobs: dict[JobId, JobRecord] = field(default_factory=dict)  # never changed in place
    history: tuple[JobStatus, ...] = ()
    workers: tuple[WorkerId, ...] = ()  # that may run attempts; sorted

    def ended(self, job_id: JobId) -> JobStatus | None:
        return next((status for status in self.history if status.job_id == job_id), None)
