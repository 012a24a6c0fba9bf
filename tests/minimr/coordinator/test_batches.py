"""Several short tasks in one offer, their ends in one report and one entry of the log."""

from collections import Counter
from dataclasses import replace
from functools import reduce

import msgspec
import pytest

from minigfs.errors import ProtocolError
from minimr.config import WORKER_DEAD_AFTER_MS
from minimr.coordinator.commands import CommitAttempt, EndAttempts, FailAttempt, LoseAttempts
from minimr.coordinator.state import AttemptEnd
from minimr.coordinator.transitions import transition
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase
from minimr.messages import (
    Assignment,
    AttemptResult,
    FailureKind,
    GetJob,
    JobSpec,
    JobState,
    JobStatus,
    MapResult,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    ReportFailure,
    ReportSuccess,
    ReportTasks,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import Stand, failure, make_spec, result_of, worker_info

ANN, BOB, CID = (worker_info(name) for name in ("ann", "bob", "cid"))
SHORT_MS = 2


@pytest.fixture
def stand() -> Stand:
    return Stand()


def status(stand: Stand, name: str = "count-1") -> JobStatus:
    answer = stand.ask(GetJob(job_id=JobId(name)))
    assert isinstance(answer, JobStatus)
    return answer


def take(stand: Stand, info: WorkerInfo, most: int = 64) -> list[Assignment]:
    """What one poll brings."""
    offer = stand.answers.get(stand.call(PollTask(worker=info, wait_ms=1, most=most)))
    if offer is None:
        return []
    assert isinstance(offer, TaskOffer)
    return [*([offer.assignment] if offer.assignment else ()), *offer.more]


def counted(assignment: Assignment, info: WorkerInfo) -> AttemptResult:
    """A result whose counters tell how many maps count, and that it is each of them."""
    result = result_of(assignment, info)
    if not isinstance(result, MapResult):
        return result
    index = assignment.attempt.task.index
    counters = {"map.test": 1, "map.sum": index, "map.squares": index * index}
    return msgspec.structs.replace(result, counters=counters)


def every_map_counts_once(stand: Stand, maps: int) -> bool:
    counters = status(stand).counters
    found = [counters[f"map.{what}"] for what in ("test", "sum", "squares")]
    return found == [maps, sum(range(maps)), sum(index * index for index in range(maps))]


def run_all(stand: Stand, info: WorkerInfo) -> None:
    while assignments := take(stand, info):
        report(stand, info, assignments)


def ends_of(
    info: WorkerInfo, assignments: list[Assignment], worked_ms: int = SHORT_MS
) -> tuple[ReportSuccess, ...]:
    return tuple(
        ReportSuccess(
            worker_id=info.worker_id,
            attempt=each.attempt,
            result=counted(each, info),
            worked_ms=worked_ms,
        )
        for each in assignments
    )


def report(
    stand: Stand,
    info: WorkerInfo,
    assignments: list[Assignment],
    worked_ms: int = SHORT_MS,
    returned: tuple[AttemptId, ...] = (),
) -> None:
    stand.wait(worked_ms * len(assignments))
    ends = ends_of(info, assignments, worked_ms)
    stand.ask(ReportTasks(worker_id=info.worker_id, ends=ends, returned=returned))


def begin(stand: Stand, spec: JobSpec) -> None:
    """A job of which a dozen maps are done, so that it is known how long they take."""
    stand.submit(spec)
    for _ in range(12):
        report(stand, ANN, take(stand, ANN, most=1))


def work(stand: Stand, worked_ms: int, most: int = 64) -> list[int]:
    """Two workers do all maps there are; how many each poll brought."""
    sizes = []
    while True:
        for info in (ANN, BOB):
            assignments = take(stand, info, most)
            if not assignments or assignments[0].attempt.task.phase.value != "map":
                return sizes
            sizes.append(len(assignments))
            report(stand, info, assignments, worked_ms)


def test_short_tasks_are_offered_together_and_the_last_ones_one_by_one(stand: Stand) -> None:
    stand.submit(make_spec(maps=1000))
    sizes = work(stand, SHORT_MS)
    assert sum(sizes) == 1000
    assert set(sizes[:8]) == {1}  # nobody knows yet how long they take
    assert max(sizes) == 64
    assert sizes[-4:] == [1, 1, 1, 1]
    assert len(sizes) < 70
    assert every_map_counts_once(stand, 1000)


def test_tasks_that_take_long_are_offered_one_by_one(stand: Stand) -> None:
    stand.submit(make_spec(maps=100))
    assert set(work(stand, 300)) == {1}


def test_a_slot_that_takes_one_gets_one(stand: Stand) -> None:
    stand.submit(make_spec(maps=100))
    assert set(work(stand, SHORT_MS, most=1)) == {1}


def test_some_long_ones_among_many_short_ones_make_offers_small(stand: Stand) -> None:
    stand.submit(make_spec(maps=500))
    for number in range(60):
        report(stand, ANN, take(stand, ANN, most=1), 1_000 if number % 10 == 0 else SHORT_MS)
    assert 1 <= len(take(stand, ANN)) <= 3  # on the average they take 100 ms


def test_a_big_one_among_small_ones_is_offered_alone(stand: Stand) -> None:
    spec = make_spec(maps=200)
    big = msgspec.structs.replace(spec.splits[20], size_bytes=100 * spec.splits[20].size_bytes)
    splits = (*spec.splits[:20], big, *spec.splits[21:])
    begin(stand, msgspec.structs.replace(spec, splits=splits))
    offers = [[each.attempt.task.index for each in take(stand, info)] for info in (ANN, BOB, CID)]
    assert offers[:2] == [[*range(12, 20)], [20]]
    assert offers[2][0] == 21
    assert len(offers[2]) > 10


def test_ends_that_are_reported_together_are_one_entry_and_count_once(stand: Stand) -> None:
    begin(stand, make_spec(maps=500))
    assignments = take(stand, ANN)
    assert len(assignments) > 20
    entries = len(stand.log)
    report(stand, ANN, assignments)
    assert len(stand.log) == entries + 1
    done = status(stand).counters
    report(stand, ANN, assignments)  # the answer was lost
    assert len(stand.log) == entries + 1
    assert status(stand).counters == done
    assert done["map.attempts.committed"] == 12 + len(assignments)
    assert done["map.attempts.lost"] == 0


def test_failures_and_successes_are_reported_together(stand: Stand) -> None:
    begin(stand, make_spec(maps=200))
    bad, *good = take(stand, ANN)
    failed = ReportFailure(
        worker_id=ANN.worker_id, attempt=bad.attempt, failure=failure(FailureKind.INPUT)
    )
    stand.ask(ReportTasks(worker_id=ANN.worker_id, ends=(failed, *ends_of(ANN, good))))
    assert status(stand).counters["map.attempts.failed"] == 1
    assert status(stand).counters["map.attempts.committed"] == 12 + len(good)
    tasks = [each.attempt.task for each in take(stand, BOB)]
    assert tasks[0] == bad.attempt.task  # tried again soon, and elsewhere


def test_a_result_that_cannot_be_is_refused_and_the_others_count(stand: Stand) -> None:
    begin(stand, make_spec(maps=200))
    first, *others = take(stand, ANN)
    wrong = result_of(others[0], ANN)
    bad = ReportSuccess(worker_id=ANN.worker_id, attempt=first.attempt, result=wrong)
    request = ReportTasks(worker_id=ANN.worker_id, ends=(bad, *ends_of(ANN, others)))
    assert isinstance(stand.refused(request), ProtocolError)
    assert status(stand).counters["map.attempts.committed"] == 12 + len(others)
    run_all(stand, ANN)
    assert status(stand).state is JobState.DONE


def test_what_a_dead_worker_was_offered_is_done_by_others(stand: Stand) -> None:
    begin(stand, make_spec(maps=100))
    offered = [each.attempt.task for each in take(stand, ANN)]
    assert len(offered) > 10
    stand.wait(WORKER_DEAD_AFTER_MS + 1)
    lost = [one for one in stand.changes() if isinstance(one, LoseAttempts)]
    assert [attempt.task for attempt in lost[0].attempts] == offered
    assert len(lost) == 2  # the other are the outputs that ANN had
    run_all(stand, BOB)
    assert status(stand).state is JobState.DONE
    assert every_map_counts_once(stand, 100)


def test_a_poll_says_that_the_offer_before_never_arrived(stand: Stand) -> None:
    begin(stand, make_spec(maps=100))
    lost = {each.attempt.task for each in take(stand, ANN)}
    take(stand, ANN)
    assert status(stand).counters["map.attempts.lost"] == len(lost)


def test_what_is_given_back_runs_elsewhere_and_is_not_held_against_it(stand: Stand) -> None:
    begin(stand, make_spec(maps=100))
    long, *behind = take(stand, ANN)
    returned = tuple(each.attempt for each in behind)
    report(stand, ANN, [], returned=returned)
    assert status(stand).counters["map.attempts.set_back"] == len(behind)
    assert status(stand).counters["map.attempts.lost"] == 0
    tally = stand.machine.state.jobs[JobId("count-1")].tally
    assert tally[TaskPhase.MAP, AttemptEnd.SET_BACK] == len(behind)
    assert (TaskPhase.MAP, AttemptEnd.LOST) not in tally
    tasks: Counter[TaskId] = Counter()
    while assignments := take(stand, BOB):
        if assignments[0].attempt.task.phase.value != "map":
            break
        tasks.update(each.attempt.task for each in assignments)
        report(stand, BOB, assignments)
    assert {attempt.task for attempt in returned} <= set(tasks)
    report(stand, ANN, behind)  # late: their tasks are settled
    report(stand, ANN, [long])
    run_all(stand, BOB)
    assert status(stand).state is JobState.DONE
    assert every_map_counts_once(stand, 100)
    assert set(tasks.values()) == {1}


def say(
    stand: Stand, info: WorkerInfo, assignments: list[Assignment], worked_ms: int = 0
) -> PingReply:
    """A worker pings; of its attempts, in their order, the first has worked for so long."""
    running = tuple(
        Progress(
            attempt=each.attempt, done_bytes=0, total_bytes=0, worked_ms=0 if number else worked_ms
        )
        for number, each in enumerate(assignments)
    )
    reply = stand.ask(
        PingWorker(
            worker_id=info.worker_id, incarnation=info.incarnation, executor_pid=2, running=running
        )
    )
    assert isinstance(reply, PingReply)
    return reply


@pytest.mark.parametrize("worked_ms", [0, 50])
def test_of_an_offer_only_the_attempt_at_hand_hangs(stand: Stand, worked_ms: int) -> None:
    """The others have not begun: they run elsewhere, and nobody is blamed for them."""
    deadline_ms = 3_000
    begin(stand, msgspec.structs.replace(make_spec(maps=100), progress_deadline_ms=deadline_ms))
    offered = take(stand, ANN)
    assert len(offered) > 10
    for _ in range(deadline_ms // 500):
        stand.wait(500)
        assert say(stand, ANN, offered, worked_ms).cancel == ()
    for _ in range(5):
        stand.wait(500)
        say(stand, ANN, offered, worked_ms)
    hung = [one for one in stand.changes() if isinstance(one, FailAttempt)]
    assert [one.attempt for one in hung] == [offered[0].attempt]
    assert say(stand, ANN, offered).cancel == tuple(each.attempt for each in offered)
    tally = stand.machine.state.jobs[JobId("count-1")].tally
    assert tally[TaskPhase.MAP, AttemptEnd.SET_BACK] == len(offered) - 1
    assert status(stand).counters["map.attempts.lost"] == 0
    assert status(stand).counters["map.attempts.set_back"] == len(offered) - 1
    run_all(stand, BOB)
    assert status(stand).state is JobState.DONE
    assert every_map_counts_once(stand, 100)


def assert_late_starts_are_backed_up(stand: Stand) -> None:
    """Nobody believes that executors may take seconds to start."""
    late = take(stand, BOB)
    stand.wait(2_000)
    (backup,) = take(stand, ANN)
    assert backup.attempt.task in [each.attempt.task for each in late]


def test_waiting_behind_others_of_an_offer_does_not_tell_how_long_executors_start(
    stand: Stand,
) -> None:
    begin(stand, make_spec(maps=400))
    offered = take(stand, ANN)
    assert len(offered) > 10
    for _ in range(4):  # the last of them takes long, and the ends of all are told late
        stand.wait(1_000)
        say(stand, ANN, offered)
    report(stand, ANN, offered)
    assert_late_starts_are_backed_up(stand)


def test_an_end_that_is_told_late_does_not_tell_how_long_executors_start(stand: Stand) -> None:
    begin(stand, make_spec(maps=400))
    alone = take(stand, ANN, most=1)
    stand.wait(SHORT_MS)
    say(stand, ANN, alone, worked_ms=SHORT_MS)
    stand.wait(4_000)  # it has ended, and no master could be reached
    report(stand, ANN, alone)
    assert_late_starts_are_backed_up(stand)


def test_a_new_coordinator_adopts_all_of_an_offer(stand: Stand) -> None:
    begin(stand, make_spec(maps=100))
    assignments = take(stand, ANN)
    stand.open_term()
    running = tuple(each.attempt for each in assignments)
    assert stand.hello(ANN, running).cancel == ()
    others = {each.attempt.task for each in take(stand, BOB)}
    assert others.isdisjoint(each.attempt.task for each in assignments)
    report(stand, ANN, assignments)
    assert status(stand).counters["map.attempts.committed"] == 12 + len(assignments)


def test_ends_that_the_log_refuses_are_reported_again(stand: Stand) -> None:
    begin(stand, make_spec(maps=100))
    assignments = take(stand, ANN)
    stand.lazy = True
    report = ReportTasks(worker_id=ANN.worker_id, ends=ends_of(ANN, assignments))
    stand.call(report)
    stand.refuse_next()
    stand.call(report)
    stand.lazy = False
    stand.catch_up()
    assert status(stand).counters["map.attempts.committed"] == 12 + len(assignments)
    assert sum(isinstance(one, EndAttempts) for one in stand.changes()) == 13


def test_a_job_shares_slots_not_attempts(stand: Stand) -> None:
    """One slot runs dozens of short attempts of one job; the other's turn is next all the same."""
    begin(stand, make_spec(maps=200))
    assert len(take(stand, ANN)) > 20
    stand.submit(make_spec("other-1", maps=8))
    jobs = []
    for info in (BOB, CID):
        stand.hello(info)
        jobs.append(take(stand, info)[0].attempt.task.job_id)
    assert jobs == [JobId("other-1"), JobId("count-1")]


def test_a_poll_of_a_worker_that_is_not_known_asks_for_what_it_has(stand: Stand) -> None:
    stand.submit(make_spec(maps=2))
    stand.run_all(ANN)
    stand.submit(make_spec("count-2", maps=2))
    stand.succeed(ANN, stand.take(ANN))
    stand.open_term()
    token = stand.call(PollTask(worker=ANN, said_hello=True))
    assert stand.answers[token] == TaskOffer(assignment=None, known=False)
    lost = [one for one in stand.changes() if isinstance(one, LoseAttempts)]
    assert lost == []  # nobody took what the poll left out for gone


def test_several_ends_in_one_command_change_what_they_change_one_by_one(stand: Stand) -> None:
    begin(stand, make_spec(maps=200))
    assignments = take(stand, ANN)
    ends = tuple(
        CommitAttempt(now_ms=stand.now_ms, attempt=each.attempt, result=counted(each, ANN))
        for each in (*assignments, *assignments[:3])  # some of them twice
    )
    one_by_one = reduce(transition, ends, stand.machine.state).jobs[JobId("count-1")]
    together = stand.machine.preview(EndAttempts(now_ms=stand.now_ms, ends=ends))
    assert replace(one_by_one, version=0) == replace(together.jobs[JobId("count-1")], version=0)
    assert transition(together, EndAttempts(now_ms=stand.now_ms, ends=ends)) is together
