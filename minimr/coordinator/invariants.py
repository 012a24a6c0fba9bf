"""What must hold of every state the log can lead to (DESIGN 7, "Jobs").

A coordinator checks the state it takes over; tests check after every event.
"""

from collections import Counter

from minimr.config import JOB_HISTORY_COUNT_MAX
from minimr.coordinator.state import AttemptEnd, CoordinatorState, JobRecord, TaskRecord
from minimr.coordinator.transitions import BAD_FRAMES
from minimr.ids import JobId, TaskId, TaskPhase
from minimr.messages import FailureKind, JobState, MapResult, PublishResult

__all__ = ["check_invariants"]


def check_invariants(state: CoordinatorState) -> None:
    """``AssertionError`` that names the job (and task) if a rule is broken."""
    names = [status.job_id for status in state.history]
    assert len(names) == len(set(names)), "a job ended twice"
    assert not set(names) & set(state.jobs), "a job is both running and ended"
    assert len(names) <= JOB_HISTORY_COUNT_MAX, "the history outgrew its bound"
    assert all(status.state.is_final for status in state.history), "unfinished job in the history"
    assert list(state.workers) == sorted(set(state.workers)), "a worker is noted twice"
    for job_id, record in state.jobs.items():
        assert record.job_id == job_id, f"{job_id}: stored under another name"
        _check_job(job_id, record)
        for task in record.tasks:
            assert record.has_task(task), f"{task}: no such task"
            _check_task(task, record.task(task), record)
    for status in state.history:
        if status.state is JobState.DONE:
            assert len(status.parts) == (status.reduce_count or status.map_count), (
                f"{status.job_id}: published without one part per task"
            )


def _check_job(job_id: JobId, record: JobRecord) -> None:
    assert record.ended_as is None, f"{job_id}: ended, yet among the running jobs"
    tally: Counter[tuple[TaskPhase, AttemptEnd]] = Counter()
    counters: Counter[str] = Counter()
    outputs_lost = input_bytes_done = shuffle_bytes = 0
    for task, ends in record.tasks.items():
        tally.update((task.phase, end) for _, end in ends.ended)
        if ends.commit is None:
            continue
        tally[task.phase, AttemptEnd.COMMITTED] += 1
        outputs_lost += ends.output_lost
        if not isinstance(ends.commit.result, PublishResult):
            counters.update(ends.commit.result.counters)
        if isinstance(ends.commit.result, MapResult):
            input_bytes_done += record.spec.splits[task.index].size_bytes
            output = ends.commit.result.output
            shuffle_bytes += output.size_bytes if output is not None else 0
    assert Counter(record.tally) == tally, f"{job_id}: attempts miscounted"
    found = Counter(record.counters)
    del found[BAD_FRAMES]  # counted when it is told, whatever becomes of the attempt that found it
    assert found == counters, f"{job_id}: counters of uncommitted attempts"
    assert record.outputs_lost == outputs_lost, f"{job_id}: lost outputs miscounted"
    assert record.input_bytes_done == input_bytes_done, f"{job_id}: input bytes miscounted"
    assert record.shuffle_bytes == shuffle_bytes, f"{job_id}: shuffle bytes miscounted"
    if record.failed_task is not None:
        assert record.stopped, f"{job_id}: has a failed task, yet goes on"
        assert record.failure is not None, f"{job_id}: failed without a reason"
        assert record.failure.kind is not FailureKind.CANCELLED, f"{job_id}: failed by a cancel"


def _check_task(task: TaskId, ends: TaskRecord, record: JobRecord) -> None:
    attempts = [attempt for attempt, _ in ends.ended]
    if ends.commit is not None:
        attempts.append(ends.commit.attempt)
    assert len(attempts) == len(set(attempts)), f"{task}: an attempt ended twice"
    assert all(attempt.task == task for attempt in attempts), f"{task}: holds a stranger's attempt"
    assert AttemptEnd.COMMITTED not in {end for _, end in ends.ended}, f"{task}: two commits"
    assert ends.commit is not None or not ends.output_lost, f"{task}: lost what it never had"
    if not record.is_settled(task) and not record.stopped:
        assert ends.count(AttemptEnd.FAILED) < record.spec.attempt_limit, (
            f"{task}: goes on beyond the attempt limit"
        )
