"""A frozen coordinator, restored elsewhere, is the coordinator that was frozen."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimr.coordinator import snapshot
from minimr.coordinator.commands import (
    AdmitJob,
    Command,
    CommitAttempt,
    EndJob,
    FailAttempt,
    LoseAttempts,
    NoteWorkers,
    OpenTerm,
    PublishJob,
    StopJob,
    encode_command,
)
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.state import CoordinatorState, JobRecord
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import (
    AttemptResult,
    FailureKind,
    MapOutput,
    MapResult,
    Part,
    PublishResult,
    ReduceResult,
)
from tests.minimr.coordinator.harness import failure, make_spec


@pytest.fixture(scope="module", autouse=True)
def _small_records() -> Iterator[None]:
    kept = snapshot.TASKS_PER_RECORD
    snapshot.TASKS_PER_RECORD = 2
    yield
    snapshot.TASKS_PER_RECORD = kept


NOW_MS = 1_700_000_000_000
MAPS, REDUCES = 3, 2
JOBS = [JobId(f"job-{number}") for number in range(3)]
SPECS = [
    make_spec(JOBS[0], maps=MAPS, reduces=REDUCES, attempt_limit=2),
    make_spec(JOBS[1], maps=MAPS, reduces=REDUCES, published_by_master=True),
    make_spec(JOBS[2], maps=MAPS, reduces=0),
]


def result_of(attempt: AttemptId) -> AttemptResult:
    task = attempt.task
    is_map_only = task.job_id == JOBS[2]
    part = Part(
        name=f"part-{task.index:05d}", attempt_name=attempt.file_stem, size_bytes=7, xxh3="0",
        record_count=1, min_key=None, max_key="'k'", attempt=attempt,
    )  # fmt: skip
    output = MapOutput(
        map_index=task.index, attempt=attempt, worker_id=WorkerId("ann"), address="h:1", host="h",
        path="/s", size_bytes=11, record_count=2, digest="d",
    )  # fmt: skip
    counters = {f"user.{task.phase.value}": 1, "map.input_records": task.index}
    match task.phase:
        case TaskPhase.MAP if is_map_only:
            return MapResult(counters=counters, output=None, part=part)
        case TaskPhase.MAP:
            return MapResult(counters=counters, output=output, part=None)
        case TaskPhase.REDUCE:
            return ReduceResult(counters=counters, part=part)
        case TaskPhase.PUBLISH:
            return PublishResult(manifest_xxh3="0")


jobs = st.sampled_from(JOBS)
tasks = st.one_of(
    st.builds(TaskId, jobs, st.just(TaskPhase.MAP), st.integers(0, MAPS - 1)),
    st.builds(TaskId, st.sampled_from(JOBS[:2]), st.just(TaskPhase.REDUCE), st.integers(0, 1)),
    st.builds(TaskId, jobs, st.just(TaskPhase.PUBLISH), st.just(0)),
)
attempts = st.builds(AttemptId, tasks, st.just(1), st.integers(1, 3))
kinds = st.sampled_from(list(FailureKind))
commits = attempts.map(lambda one: CommitAttempt(now_ms=NOW_MS, attempt=one, result=result_of(one)))
fails = st.builds(
    lambda attempt, kind: FailAttempt(now_ms=NOW_MS + 1, attempt=attempt, failure=failure(kind)),
    attempts,
    kinds,
)
losses = st.builds(
    lambda job_id, lost: LoseAttempts(
        now_ms=NOW_MS,
        job_id=job_id,
        attempts=tuple(one for one in lost if one.task.job_id == job_id),
    ),
    jobs,
    st.lists(attempts, max_size=4),
)
admissions = st.sampled_from(SPECS).map(lambda spec: AdmitJob(now_ms=NOW_MS - 5, spec=spec))
others = st.one_of(
    jobs.map(lambda job_id: StopJob(now_ms=NOW_MS, job_id=job_id)),
    jobs.map(lambda job_id: EndJob(now_ms=NOW_MS, job_id=job_id)),
    jobs.map(lambda job_id: PublishJob(now_ms=NOW_MS, job_id=job_id)),
    st.integers(1, 9).map(lambda term: OpenTerm(now_ms=NOW_MS, term=term)),
    st.sets(st.sampled_from(["ann", "bob"])).map(
        lambda names: NoteWorkers(
            now_ms=NOW_MS, workers=tuple(WorkerId(name) for name in sorted(names))
        )
    ),
)
steps = st.lists(st.one_of(commits, commits, commits, fails, losses, admissions, others))


def applied(machine: CoordinatorMachine, commands: list[Command]) -> list[bytes]:
    return [machine.apply(1, encode_command(command)) for command in commands]


@given(admitted=st.permutations(SPECS), before=steps, after=steps)
def test_a_restored_coordinator_is_the_frozen_one_and_goes_on_like_it(
    admitted, before, after
) -> None:
    original = CoordinatorMachine()
    applied(original, [AdmitJob(now_ms=NOW_MS - 9, spec=spec) for spec in admitted])
    applied(original, before)
    frozen_state, frozen = original.state, original.freeze()
    replies = applied(original, after)

    copy = CoordinatorMachine()
    applied(copy, [OpenTerm(now_ms=1, term=99)])
    copy.restore(frozen)  # drawn only now, after the original has gone on
    assert copy.state == frozen_state
    assert list(copy.state.jobs) == list(frozen_state.jobs)
    assert list(copy.freeze()) == list(snapshot.freeze_state(frozen_state))
    assert applied(copy, after) == replies
    assert copy.state == original.state


PRINT_RECORDS = """
from minimr.coordinator.snapshot import freeze_state
from tests.minimr.coordinator.test_snapshot import *
machine = CoordinatorMachine()
tasks = [TaskId(job, TaskPhase.MAP, index) for job in JOBS for index in range(MAPS)]
tasks += [TaskId(job, TaskPhase.REDUCE, index) for job in JOBS[:2] for index in range(REDUCES)]
runs = [AttemptId(task, 1, 1) for task in tasks]
applied(machine, [AdmitJob(now_ms=1, spec=spec) for spec in SPECS])
applied(machine, [CommitAttempt(now_ms=2, attempt=run, result=result_of(run)) for run in runs])
applied(machine, [StopJob(now_ms=3, job_id=JOBS[0]), EndJob(now_ms=4, job_id=JOBS[0])])
print(*(record.hex() for record in freeze_state(machine.state)))
"""


def test_every_master_freezes_an_equal_state_to_equal_records() -> None:
    """Maps keyed by text have another order in each process."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PRINT_RECORDS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert outputs.pop().count(b" ") > 5


def test_nothing_restores_to_the_state_before_the_first_entry() -> None:
    machine = CoordinatorMachine()
    applied(machine, [OpenTerm(now_ms=1, term=3), AdmitJob(now_ms=2, spec=SPECS[0])])
    machine.restore(iter(()))
    assert machine.state == CoordinatorState()


def test_a_new_field_of_the_state_is_not_forgotten() -> None:
    def names(cls: type) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)}

    assert names(JobRecord) == {*snapshot._RunningJob.__struct_fields__, "tasks"}
    assert names(CoordinatorState) == {*snapshot._Head.__struct_fields__, "jobs", "history"}
