"""Who gets what: fair shares, locality with bounded delay, retries elsewhere, workers set aside."""

import pytest

from minimr.config import (
    ASIDE_MS,
    LOCALITY_WAIT_MS,
    PROGRESS_DEADLINE_MS,
    RETRY_ELSEWHERE_MS,
)
from minimr.coordinator.backups import POLICIES, PhaseView, TaskView
from minimr.coordinator.pace import Pace
from minimr.ids import JobId
from minimr.messages import (
    Assignment,
    FailureKind,
    GetJob,
    JobState,
    JobStatus,
    ListWorkers,
    MapAssignment,
    Nearness,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    TaskOffer,
    WorkerInfo,
    WorkerList,
)
from tests.minimr.coordinator.harness import Stand, failure, make_spec, worker_info

ANN, BOB, CID = (worker_info(name) for name in ("ann", "bob", "cid"))


@pytest.fixture
def stand() -> Stand:
    return Stand()


def status(stand: Stand, name: str = "count-1") -> JobStatus:
    answer = stand.ask(GetJob(job_id=JobId(name)))
    assert isinstance(answer, JobStatus)
    return answer


def poll(stand: Stand, info: WorkerInfo) -> int:
    """Ask for a task and go on waiting; ``offered`` looks for the answer."""
    return stand.call(PollTask(worker=info, wait_ms=30_000))


def offered(stand: Stand, token: int) -> Assignment | None:
    answer = stand.answers.get(token)
    assert answer is None or isinstance(answer, TaskOffer)
    return answer.assignment if answer is not None else None


def aside(stand: Stand) -> dict[str, str]:
    answer = stand.ask(ListWorkers())
    assert isinstance(answer, WorkerList)
    return {str(worker.id): worker.aside for worker in answer.workers}


def ping(stand: Stand, info: WorkerInfo, assignment: Assignment, done: int, steps: int = 0) -> bool:
    """Say how far an attempt is; whether it is still wanted."""
    progress = Progress(attempt=assignment.attempt, done_bytes=done, total_bytes=100, steps=steps)
    reply = stand.ask(
        PingWorker(
            worker_id=info.worker_id,
            incarnation=info.incarnation,
            executor_pid=0,
            running=(progress,),
        )
    )
    assert isinstance(reply, PingReply)
    return not reply.cancel


def test_jobs_share_the_slots_evenly_whoever_came_first(stand: Stand) -> None:
    stand.submit(make_spec("count-1", maps=8))
    first = [stand.take(worker_info(f"w{n}")) for n in range(2)]
    stand.submit(make_spec("count-2", maps=8))
    later = [stand.take(worker_info(f"w{n}")) for n in range(2, 6)]
    assert {one.attempt.task.job_id for one in first} == {"count-1"}
    assert [one.attempt.task.job_id for one in later] == [
        "count-2", "count-2", "count-1", "count-2",
    ]  # fmt: skip


def test_a_job_waits_for_a_slot_beside_its_input_and_no_longer_than_it_says(stand: Stand) -> None:
    stand.hello(BOB)
    stand.submit(make_spec(maps=2, hosts=(("bob",), ("bob",))))
    far = poll(stand, ANN)
    assert offered(stand, far) is None
    near = stand.take(BOB)
    assert isinstance(near, MapAssignment)
    assert near.nearness is Nearness.LOCAL
    stand.wait(2 * LOCALITY_WAIT_MS - 2)
    assert offered(stand, far) is None
    stand.wait(2)
    assignment = offered(stand, far)
    assert isinstance(assignment, MapAssignment)
    assert assignment.nearness is Nearness.REMOTE


def test_a_slot_in_the_rack_is_better_than_any(stand: Stand) -> None:
    ann, bob, cid = (
        worker_info(name, rack=rack) for name, rack in (("ann", "r1"), ("bob", "r1"), ("cid", "r2"))
    )
    stand.hello(bob)
    stand.submit(make_spec(maps=1, hosts=(("bob",),)))
    far, in_rack = poll(stand, cid), poll(stand, ann)
    stand.wait(LOCALITY_WAIT_MS)
    assignment = offered(stand, in_rack)
    assert isinstance(assignment, MapAssignment)
    assert assignment.nearness is Nearness.RACK
    assert offered(stand, far) is None


def test_nobody_waits_for_hosts_without_workers(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, hosts=(("elsewhere",),)))
    assert offered(stand, poll(stand, ANN)) is not None


def test_a_retry_goes_to_another_worker_if_one_comes_in_time(stand: Stand) -> None:
    stand.hello(BOB)
    stand.submit(make_spec(maps=1))
    stand.fail(ANN, stand.take(ANN), failure())
    same = poll(stand, ANN)
    assert offered(stand, same) is None
    other = stand.take(BOB)
    stand.fail(BOB, other, failure())
    assert offered(stand, same) is not None  # it has failed everywhere


def test_a_retry_does_not_wait_for_ever(stand: Stand) -> None:
    stand.hello(BOB)
    stand.submit(make_spec(maps=1))
    stand.fail(ANN, stand.take(ANN), failure())
    same = poll(stand, ANN)
    stand.wait(RETRY_ELSEWHERE_MS)
    assert offered(stand, same) is not None


def test_a_worker_that_fails_again_and_again_is_set_aside_and_tried_later(stand: Stand) -> None:
    stand.hello(BOB)
    stand.submit(make_spec(maps=6, reduces=1))
    for _ in range(3):
        stand.fail(ANN, stand.take(ANN), failure(FailureKind.DIED))
    idle = poll(stand, ANN)
    assert offered(stand, idle) is None
    assert "3 attempts failed in a row" in aside(stand)["ann"]
    for _ in range(0, ASIDE_MS, 1000):
        stand.wait(1000)
        stand.ping(ANN)
        stand.ping(BOB)
    assert aside(stand)["ann"] == ""


def test_when_all_are_set_aside_all_are_tried_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=6, attempt_limit=9))
    for _ in range(4):
        stand.fail(ANN, stand.take(ANN), failure(FailureKind.DIED))
    assert stand.poll(ANN) is not None


def test_user_errors_set_nobody_aside(stand: Stand) -> None:
    stand.hello(BOB)
    stand.submit(make_spec(maps=6))
    for _ in range(4):
        stand.fail(ANN, stand.take(ANN), failure())
    assert aside(stand)["ann"] == ""


def test_a_worker_whose_disk_is_full_gets_nothing_and_is_named(stand: Stand) -> None:
    full = worker_info("ann", unfit="no space on /ann")
    stand.submit(make_spec(maps=1))
    waiting = poll(stand, full)
    assert offered(stand, waiting) is None
    assert aside(stand)["ann"] == "no space on /ann"
    stand.wait(200)
    assert status(stand).waiting == "no worker takes tasks: no space on /ann"
    assert stand.poll(worker_info("ann")) is not None


def test_an_attempt_that_pings_without_progress_is_given_up(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, backup_policy="none"))
    stuck = stand.take(ANN)
    for second in range(0, PROGRESS_DEADLINE_MS, 1000):
        assert ping(stand, ANN, stuck, done=7), f"given up after {second} ms"
        stand.wait(1000)
    ping(stand, ANN, stuck, done=7)
    stand.wait(1000)
    assert not ping(stand, ANN, stuck, done=7)
    final = status(stand)
    assert final.counters["map.attempts.failed"] == 1
    assert final.state is JobState.RUNNING


def test_an_attempt_that_gets_on_is_never_given_up(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, backup_policy="none"))
    slow = stand.take(ANN)
    for second in range(0, PROGRESS_DEADLINE_MS + 10_000, 1000):
        assert ping(stand, ANN, slow, done=7, steps=second // 100_000)
        stand.wait(1000)
    assert status(stand).counters["map.attempts.failed"] == 0


def test_an_error_that_would_come_again_is_not_tried_again(stand: Stand) -> None:
    import msgspec

    stand.submit(make_spec(maps=1))
    final = msgspec.structs.replace(failure(FailureKind.OUTPUT), is_final=True)
    stand.fail(ANN, stand.take(ANN), final)
    ended = status(stand)
    assert ended.state is JobState.FAILED
    assert ended.counters["map.attempts.launched"] == 1


def slow_map(stand: Stand, policy: str) -> tuple[Assignment, Assignment | None]:
    """A job of four maps, of which ANN's takes twenty times as long as BOB's; its backup."""
    stand.submit(make_spec(maps=4, backup_policy=policy))
    slow = stand.take(ANN)
    for second in range(1, 10):
        waiting = poll(stand, BOB)
        task = offered(stand, waiting)
        if task is not None and task.attempt.task == slow.attempt.task:
            return slow, task
        stand.wait(1000)
        assert ping(stand, ANN, slow, done=5 * second)
        if task is None:
            stand.ping(BOB)
        else:
            stand.succeed(BOB, task)
    return slow, None


def counters_of_backups(stand: Stand) -> list[int]:
    counters = status(stand).counters
    return [counters[f"backup.{what}"] for what in ("launched", "won", "wasted")]


@pytest.mark.parametrize("policy", ["rate", "paper"])
def test_the_backup_wins_and_the_slow_attempt_is_cancelled_and_does_not_count(
    stand: Stand, policy: str
) -> None:
    slow, backup = slow_map(stand, policy)
    assert backup is not None
    assert ping(stand, ANN, slow, done=40)
    assert counters_of_backups(stand) == [1, 0, 0]
    stand.succeed(BOB, backup)
    assert not ping(stand, ANN, slow, done=40)
    stand.succeed(ANN, slow)  # it was just about to report
    stand.run_all(BOB)
    assert status(stand).state is JobState.DONE
    assert status(stand).counters["map.test"] == 0b1111
    assert counters_of_backups(stand) == [1, 1, 0]
    assert status(stand).counters["map.attempts.lost"] == 1


def test_a_backup_that_comes_second_is_wasted(stand: Stand) -> None:
    slow, backup = slow_map(stand, "rate")
    assert backup is not None
    stand.succeed(ANN, slow)
    assert not ping(stand, BOB, backup, done=50)
    stand.fail(BOB, backup, failure(FailureKind.CANCELLED))
    stand.run_all(BOB)
    assert counters_of_backups(stand) == [1, 0, 1]
    assert status(stand).counters["map.test"] == 0b1111


def test_without_a_policy_nothing_runs_twice(stand: Stand) -> None:
    _, backup = slow_map(stand, "none")
    assert backup is None


def test_a_backup_goes_on_when_the_coordinator_changes(stand: Stand) -> None:
    slow, backup = slow_map(stand, "rate")
    assert backup is not None
    stand.open_term()
    assert stand.hello(ANN, (slow.attempt,)).cancel == ()
    assert stand.hello(BOB, (backup.attempt,)).cancel == ()
    stand.succeed(BOB, backup)
    assert not ping(stand, ANN, slow, done=5)


@pytest.mark.parametrize(("elapsed_ms", "is_backed_up"), [(300, False), (4_000, True)])
def test_nothing_with_input_is_soon_slow_beside_what_had_none(
    elapsed_ms: int, is_backed_up: bool
) -> None:
    """Of two reduces one had no pairs at all: it does not tell how long the other should take."""
    pace = Pace()
    pace.add(size_bytes=0, duration_ms=20)
    reduce = TaskView(
        index=1, elapsed_ms=elapsed_ms, reported_ms=200, done_bytes=1, total_bytes=500
    )
    phase = PhaseView(
        task_count=2,
        done_count=1,
        idle_count=0,
        slot_count=2,
        backup_count=0,
        pace=pace,
        running=(reduce,),
    )
    assert (POLICIES["rate"].choose(phase) == 1) == is_backed_up


def test_slow_workers_never_all_wait_for_each_other(stand: Stand) -> None:
    """Found on one busy machine: both slots took long for a task, and the job stood still."""
    stand.submit(make_spec(maps=20))
    for duration_ms in (10, 10, 10, 4_000):
        pairs = [(info, stand.take(info)) for info in (ANN, BOB)]
        stand.wait(duration_ms)
        for info, assignment in pairs:
            stand.succeed(info, assignment)
    tokens = [poll(stand, info) for info in (ANN, BOB)]
    assert any(offered(stand, token) for token in tokens)


def test_a_job_without_any_worker_says_so(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    before = status(stand).version
    stand.wait(200)
    assert "no worker is alive" in status(stand).waiting
    assert status(stand).version > before, "so that whoever watches hears of it"
    stand.take(ANN)
    stand.wait(200)
    assert status(stand).waiting == ""
