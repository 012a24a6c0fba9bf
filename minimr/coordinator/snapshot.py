"""The coordinator's hard state as a sequence of records, and back.

::

    head | ended job ... | running job, its tasks ... | running job, its tasks ... | ...

in the order the state has them; tasks in the order of their phase and index, so that equal states
give equal records though maps that are keyed by text have no order of their own. The records are a
format: fields are added, with a default, and tags never change their meaning.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import assert_never

import msgspec
from immutables import Map

from minimr.coordinator.state import AttemptEnd, CoordinatorState, JobRecord, TaskRecord
from minimr.ids import JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import Failure, JobSpec, JobState, JobStatus

__all__ = ["freeze_state", "restore_state"]

TASKS_PER_RECORD = 256  # a record is made in about a millisecond


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _Head(_Record, frozen=True, tag="head"):
    term: int
    workers: tuple[WorkerId, ...]


class _EndedJob(_Record, frozen=True, tag="ended"):
    status: JobStatus


class _RunningJob(_Record, frozen=True, tag="job"):
    """A ``JobRecord`` but for its tasks."""

    spec: JobSpec
    admitted_ms: int
    version: int
    tally: list[tuple[TaskPhase, AttemptEnd, int]]
    counters: list[tuple[str, int]]
    outputs_lost: int
    input_bytes_done: int
    shuffle_bytes: int
    maps_done_ms: int
    reduces_done_ms: int
    stopped: bool
    failure: Failure | None
    failed_task: TaskId | None
    ended_as: JobState | None
    backups_won: int = 0
    backups_wasted: int = 0
    input_bytes: int = 0


class _Tasks(_Record, frozen=True, tag="tasks"):
    """More tasks of the running job before it."""

    tasks: list[tuple[TaskId, TaskRecord]]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Head | _EndedJob | _RunningJob | _Tasks] = (
    msgspec.msgpack.Decoder(_Head | _EndedJob | _RunningJob | _Tasks)
)


def freeze_state(state: CoordinatorState) -> Iterator[bytes]:
    """The records of a state, each made when it is drawn."""
    return map(_encoder.encode, _records(state))


def restore_state(records: Iterable[bytes]) -> CoordinatorState:
    """The state whose records these are; without any, that of an empty log.

    Raises ``msgspec.DecodeError`` for a record of another format.
    """
    head = _Head(term=0, workers=())
    history: list[JobStatus] = []
    jobs: dict[JobId, JobRecord] = {}
    job: JobRecord | None = None
    for record in map(_decoder.decode, records):
        match record:
            case _Head():
                head = record
            case _EndedJob():
                history.append(record.status)
            case _RunningJob():
                job = _thawed(record)
                jobs[job.job_id] = job
            case _Tasks():
                assert job is not None, "tasks follow their job"
                job = jobs[job.job_id] = replace(job, tasks=job.tasks.update(record.tasks))
            case _:
                assert_never(record)
    return CoordinatorState(term=head.term, jobs=jobs, history=tuple(history), workers=head.workers)


def _records(state: CoordinatorState) -> Iterator[_Record]:
    yield _Head(term=state.term, workers=state.workers)
    for status in state.history:
        yield _EndedJob(status=status)
    for job in state.jobs.values():
        yield _frozen(job)
        tasks = _tasks(job)
        while batch := list(islice(tasks, TASKS_PER_RECORD)):
            yield _Tasks(tasks=batch)


def _tasks(job: JobRecord) -> Iterator[tuple[TaskId, TaskRecord]]:
    counts = (
        (TaskPhase.MAP, job.map_count),
        (TaskPhase.REDUCE, job.reduce_count),
        (TaskPhase.PUBLISH, 1),
    )
    for phase, count in counts:
        for index in range(count):
            task_id = TaskId(job.job_id, phase, index)
            task = job.tasks.get(task_id)
            if task is not None:
                yield task_id, task


def _frozen(job: JobRecord) -> _RunningJob:
    return _RunningJob(
        spec=job.spec,
        admitted_ms=job.admitted_ms,
        version=job.version,
        tally=sorted((phase, end, count) for (phase, end), count in job.tally.items()),
        counters=sorted(job.counters.items()),
        outputs_lost=job.outputs_lost,
        input_bytes_done=job.input_bytes_done,
        shuffle_bytes=job.shuffle_bytes,
        maps_done_ms=job.maps_done_ms,
        reduces_done_ms=job.reduces_done_ms,
        stopped=job.stopped,
        failure=job.failure,
        failed_task=job.failed_task,
        ended_as=job.ended_as,
        backups_won=job.backups_won,
        backups_wasted=job.backups_wasted,
        input_bytes=job.input_bytes,
    )


def _thawed(job: _RunningJob) -> JobRecord:
    return JobRecord(
        spec=job.spec,
        input_bytes=job.input_bytes or sum(split.size_bytes for split in job.spec.splits),
        admitted_ms=job.admitted_ms,
        version=job.version,
        tally=Map({(phase, end): count for phase, end, count in job.tally}),
        counters=Map(job.counters),
        outputs_lost=job.outputs_lost,
        input_bytes_done=job.input_bytes_done,
        shuffle_bytes=job.shuffle_bytes,
        maps_done_ms=job.maps_done_ms,
        reduces_done_ms=job.reduces_done_ms,
        stopped=job.stopped,
        failure=job.failure,
        failed_task=job.failed_task,
        ended_as=job.ended_as,
        backups_won=job.backups_won,
        backups_wasted=job.backups_wasted,
    )
