"""The rules of the hard state: which command changes what (MapReduce sections 3.2 and 3.3).

::

    job       MAP <-> REDUCE -> PUBLISH -> done
               `--------`----------`-----> STOPPING -> failed | cancelled
    attempt   runs -> committed -> lost (when another takes its place)
               `----> failed | excused | lost | set back

Two tables decide which commands a job heeds at each stage and how a failure ends its attempt; the
functions below them only compute. An attempt ends once. A command that is late or a duplicate
returns the very same state, so applying any command twice equals applying it once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from immutables import Map

from minimr.config import JOB_HISTORY_COUNT_MAX, TASK_END_COUNT_MAX
from minimr.coordinator.commands import (
    AdmitJob,
    Command,
    CommitAttempt,
    EndAttempts,
    EndJob,
    FailAttempt,
    JobCommand,
    LoseAttempts,
    NoteWorkers,
    OpenTerm,
    PublishJob,
    StopJob,
)
from minimr.coordinator.state import (
    AttemptEnd,
    CoordinatorState,
    JobRecord,
    JobStage,
    TaskCommit,
    TaskRecord,
)
from minimr.coordinator.status import job_status
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase
from minimr.messages import (
    AttemptResult,
    Failure,
    FailureKind,
    JobState,
    MapResult,
    PublishResult,
)

__all__ = ["ACCEPTED", "BAD_FRAMES", "BAD_RECORDS", "END_OF_FAILURE", "transition"]

BAD_FRAMES = "shuffle.bad_frames"
"""The counter of map outputs that were there, with a wrong sum."""

BAD_RECORDS = "map.bad_records"
"""The counter of records that were set aside."""

_WORKING: frozenset[type[Any]] = frozenset({CommitAttempt, FailAttempt, LoseAttempts, StopJob})

ACCEPTED: Mapping[JobStage, frozenset[type[Any]]] = {
    JobStage.MAP: _WORKING,
    JobStage.REDUCE: _WORKING,
    JobStage.PUBLISH: _WORKING | {PublishJob},
    JobStage.STOPPING: frozenset({EndJob}),
}
"""The commands that may change a job at each stage."""

END_OF_FAILURE: Mapping[FailureKind, AttemptEnd] = {
    FailureKind.USER: AttemptEnd.FAILED,
    FailureKind.INPUT: AttemptEnd.FAILED,
    FailureKind.OUTPUT: AttemptEnd.FAILED,
    FailureKind.DIED: AttemptEnd.FAILED,
    FailureKind.INTERNAL: AttemptEnd.FAILED,
    FailureKind.FETCH: AttemptEnd.EXCUSED,
    FailureKind.CANCELLED: AttemptEnd.LOST,
    FailureKind.HUNG: AttemptEnd.FAILED,
    FailureKind.NO_SPACE: AttemptEnd.FAILED,
}


def transition(state: CoordinatorState, command: Command) -> CoordinatorState:
    """The state after ``command``; the same object if the command changes nothing."""
    if isinstance(command, OpenTerm):
        return replace(state, term=command.term) if command.term > state.term else state
    if isinstance(command, NoteWorkers):
        is_news = command.workers != state.workers
        return replace(state, workers=command.workers) if is_news else state
    if isinstance(command, AdmitJob):
        return _admit(state, command)
    if isinstance(command, EndAttempts):
        for job_id, ends in groupby(command.ends, key=lambda end: end.job_id):
            state = _change(state, job_id, ends, command.now_ms)
        return state
    return _change(state, command.job_id, (command,), command.now_ms)


def _change(
    state: CoordinatorState, job_id: JobId, commands: Iterable[JobCommand], now_ms: int
) -> CoordinatorState:
    """One job after commands, which it heeds one after the other."""
    before = state.jobs.get(job_id)
    if before is None:
        return state
    after = before
    for command in commands:
        if after.ended_as is None and type(command) in ACCEPTED[after.stage]:
            after = _APPLY[type(command)](after, command)
    if after is before:
        return state
    after = _note_phases(replace(after, version=before.version + 1), now_ms)
    return _put(state, after, now_ms)


def _admit(state: CoordinatorState, command: AdmitJob) -> CoordinatorState:
    job_id = command.spec.job_id
    if job_id in state.jobs or state.ended(job_id) is not None:
        return state
    input_bytes = sum(split.size_bytes for split in command.spec.splits)
    record = JobRecord(spec=command.spec, admitted_ms=command.now_ms, input_bytes=input_bytes)
    return _put(state, _note_phases(record, command.now_ms), command.now_ms)


def _put(state: CoordinatorState, record: JobRecord, now_ms: int) -> CoordinatorState:
    """Store a changed record: among the jobs, or once ended, as its last status in the history."""
    if record.ended_as is None:
        return replace(state, jobs={**state.jobs, record.job_id: record})
    last = job_status(record, now_ms)
    others = {job_id: job for job_id, job in state.jobs.items() if job_id != record.job_id}
    return replace(state, jobs=others, history=(*state.history, last)[-JOB_HISTORY_COUNT_MAX:])


def _note_phases(record: JobRecord, now_ms: int) -> JobRecord:
    """Note when each phase was first complete."""
    if record.maps_done_ms == 0 and record.maps_done == record.map_count:
        record = replace(record, maps_done_ms=now_ms)
    if record.reduces_done_ms == 0 and record.stage is JobStage.PUBLISH:
        record = replace(record, reduces_done_ms=now_ms)
    return record


# --- one function per command: the record after it, or the same record ---------------------------


def _commit(record: JobRecord, command: CommitAttempt) -> JobRecord:
    task = command.attempt.task
    is_early_publish = task.phase is TaskPhase.PUBLISH and record.stage is not JobStage.PUBLISH
    if not record.has_task(task) or is_early_publish:
        return record
    if record.is_settled(task):  # somebody was faster: this attempt's work is thrown away
        after = _end(record, command.attempt, AttemptEnd.LOST)
        return _count_backup(record, after, wasted=command.attempt in command.backups)
    after = _end(record, command.attempt, AttemptEnd.COMMITTED, command.result)
    if after is record:
        return record
    after = _count_backup(record, after, won=command.attempt in command.backups)
    for rival in command.rivals:
        before, after = after, _end(after, rival, AttemptEnd.LOST)
        after = _count_backup(before, after, wasted=rival in command.backups)
    if task.phase is TaskPhase.PUBLISH and not record.spec.published_by_master:
        return replace(after, ended_as=JobState.DONE)
    bad_count = after.counters.get(BAD_RECORDS, 0)
    if bad_count > record.spec.max_bad and not after.stopped:
        failure = Failure(
            kind=FailureKind.USER,
            error=f"{bad_count} bad records were set aside by now, which is more than the "
            f"{record.spec.max_bad} of --max-bad: allow more, or mend the input or the function",
        )
        return replace(after, stopped=True, failure=failure, failed_task=task)
    return after


def _fail(record: JobRecord, command: FailAttempt) -> JobRecord:
    task = command.attempt.task
    if not record.has_task(task):
        return record
    after = _end(record, command.attempt, _end_of_failure(record, command.failure))
    if after is record:
        return record
    after = _note_place(after, task, command.failure)
    after = _count_damaged(after, command.failure.damaged_count)
    after = _count_backup(record, after, wasted=command.attempt in command.backups)
    for lost in command.lost:
        after = _lose_attempt(after, lost, AttemptEnd.LOST)
    is_same_bug = _user_error(command.failure) == record.task(task).user_error != ""
    return _judge(after, task, command.failure, is_certain=is_same_bug)


def _end_of_failure(record: JobRecord, failure: Failure) -> AttemptEnd:
    """A record that ends its process is not the task's fault if such records may be set aside."""
    is_bad_record = failure.kind is FailureKind.DIED and failure.mark and record.spec.max_bad
    return AttemptEnd.EXCUSED if is_bad_record else END_OF_FAILURE[failure.kind]


def _note_place(record: JobRecord, task: TaskId, failure: Failure) -> JobRecord:
    """Remember the record at which an attempt's process died, or its function failed."""
    before = record.task(task)
    if failure.kind is FailureKind.DIED and failure.mark:
        after = replace(before, marks=(*before.marks, failure.mark))
    elif failure.kind is FailureKind.USER:
        after = replace(before, user_error=_user_error(failure))
    else:
        return record
    return replace(record, tasks=record.tasks.set(task, after))


def _user_error(failure: Failure) -> str:
    """What tells one bug in a user's function from another: the message names the record and its
    place; "" if it names none."""
    is_placed = failure.kind is FailureKind.USER and (failure.record or failure.url)
    return failure.error if is_placed else ""


def _lose(record: JobRecord, command: LoseAttempts) -> JobRecord:
    after = record
    end = AttemptEnd.SET_BACK if command.is_set_back else AttemptEnd.LOST
    for attempt in command.attempts:
        before = after
        after = _lose_attempt(before, attempt, end)
        after = _count_backup(before, after, wasted=attempt in command.backups)
    return after if after is record else _count_damaged(after, command.damaged_count)


def _count_damaged(record: JobRecord, damaged_count: int) -> JobRecord:
    if not damaged_count:
        return record
    damaged = {BAD_FRAMES: damaged_count}
    return replace(record, counters=_added(record.counters, damaged))


def _count_backup(
    before: JobRecord, after: JobRecord, *, won: bool = False, wasted: bool = False
) -> JobRecord:
    """Count the end of a backup attempt, if ``after`` is the record with that end."""
    if after is before or not (won or wasted):
        return after
    return replace(
        after,
        backups_won=after.backups_won + won,
        backups_wasted=after.backups_wasted + wasted,
    )


def _lose_attempt(record: JobRecord, attempt: AttemptId, end: AttemptEnd) -> JobRecord:
    """A running attempt is gone, or a committed map's output, if that is still needed."""
    task = attempt.task
    if not record.has_task(task):
        return record
    if record.task(task).end_of(attempt) is AttemptEnd.COMMITTED:
        after = _lose_output(record, task)
    else:
        after = _end(record, attempt, end)
    failure = Failure(
        kind=FailureKind.INTERNAL,
        error=f"task {task} was lost with its worker or its output {TASK_END_COUNT_MAX} times; "
        "see `minimr status` for the workers and their logs",
    )
    return record if after is record else _judge(after, task, failure)


def _lose_output(record: JobRecord, task: TaskId) -> JobRecord:
    before = record.task(task)
    if task.phase is not TaskPhase.MAP or not record.needs_map_outputs or before.output_lost:
        return record
    after = replace(before, output_lost=True)
    return replace(
        record, tasks=record.tasks.set(task, after), outputs_lost=record.outputs_lost + 1
    )


def _stop(record: JobRecord, command: StopJob) -> JobRecord:
    """Cancelling has no effect once a publish task may have moved the output to its place."""
    is_cancel = command.failure is None
    if is_cancel and record.stage is JobStage.PUBLISH and not record.spec.published_by_master:
        return record
    return replace(record, stopped=True, failure=command.failure)


def _end_job(record: JobRecord, _command: EndJob) -> JobRecord:
    ended_as = JobState.CANCELLED if record.failure is None else JobState.FAILED
    return replace(record, ended_as=ended_as)


def _publish(record: JobRecord, _command: PublishJob) -> JobRecord:
    if not record.spec.published_by_master or not record.is_settled(record.publish_task):
        return record
    return replace(record, ended_as=JobState.DONE)


_APPLY: Mapping[type[JobCommand], Callable[[JobRecord, Any], JobRecord]] = {
    CommitAttempt: _commit,
    FailAttempt: _fail,
    LoseAttempts: _lose,
    StopJob: _stop,
    EndJob: _end_job,
    PublishJob: _publish,
}


# --- the end of one attempt ----------------------------------------------------------------------


def _end(
    record: JobRecord,
    attempt: AttemptId,
    end: AttemptEnd,
    result: AttemptResult | None = None,
) -> JobRecord:
    """The record with ``attempt`` at ``end``; the same record if it has ended before."""
    assert (result is not None) == (end is AttemptEnd.COMMITTED)
    before = record.task(attempt.task)
    if before.end_of(attempt) is not None:
        return record
    sums: dict[str, Any] = {}
    if result is not None:
        record = _make_room(record, before)
        sums = _sums_with(record, attempt, result, sign=+1)
        after = replace(
            record.task(attempt.task), commit=TaskCommit(attempt=attempt, result=result)
        )
    else:
        after = replace(before, ended=(*before.ended, (attempt, end)))
    tally = _added(record.tally, {(attempt.task.phase, end): 1})
    return replace(record, tasks=record.tasks.set(attempt.task, after), tally=tally, **sums)


def _make_room(record: JobRecord, before: TaskRecord) -> JobRecord:
    """Take out the commit of a map whose output was lost: another attempt takes its place."""
    if before.commit is None:
        return record
    assert before.output_lost
    attempt = before.commit.attempt
    sums = _sums_with(record, attempt, before.commit.result, sign=-1)
    after = replace(
        before,
        commit=None,
        output_lost=False,
        ended=(*before.ended, (attempt, AttemptEnd.LOST)),
    )
    phase = attempt.task.phase
    moved = {(phase, AttemptEnd.COMMITTED): -1, (phase, AttemptEnd.LOST): 1}
    return replace(
        record,
        tasks=record.tasks.set(attempt.task, after),
        tally=_added(record.tally, moved),
        outputs_lost=record.outputs_lost - 1,
        **sums,
    )


def _sums_with(
    record: JobRecord, attempt: AttemptId, result: AttemptResult, *, sign: int
) -> dict[str, Any]:
    """The job's sums, as fields of its record, with a commit (``sign=+1``), or without (``-1``)."""
    if isinstance(result, PublishResult):
        return {}
    counters = {name: sign * count for name, count in result.counters.items()}
    input_bytes = shuffle_bytes = 0
    if isinstance(result, MapResult):
        input_bytes = record.spec.splits[attempt.task.index].size_bytes
        shuffle_bytes = result.output.size_bytes if result.output is not None else 0
    return {
        "counters": _added(record.counters, counters),
        "input_bytes_done": record.input_bytes_done + sign * input_bytes,
        "shuffle_bytes": record.shuffle_bytes + sign * shuffle_bytes,
    }


def _added(sums: Map[Any, int], more: Mapping[Any, int]) -> Map[Any, int]:
    changed = sums.mutate()
    for key, count in more.items():
        changed[key] = changed.get(key, 0) + count
    return changed.finish()


def _judge(
    record: JobRecord, task: TaskId, failure: Failure, *, is_certain: bool = False
) -> JobRecord:
    """Stop the job when one of its open tasks has failed or been lost too often; ``is_certain``:
    it would fail in the same way again."""
    ends = record.task(task)
    too_many = (
        is_certain
        or failure.is_final
        or ends.count(AttemptEnd.FAILED) >= record.spec.attempt_limit
        or ends.count(AttemptEnd.EXCUSED, AttemptEnd.LOST) >= TASK_END_COUNT_MAX
    )
    if record.is_settled(task) or record.stopped or not too_many:
        return record
    return replace(record, stopped=True, failure=failure, failed_task=task)
