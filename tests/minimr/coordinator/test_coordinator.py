"""Scenarios of the coordinator, one rule each."""

import pytest

from minigfs.errors import ProtocolError
from minimr.config import (
    NEWS_INTERVAL_MS,
    RECOVERY_HOLD_MS,
    TASK_END_COUNT_MAX,
    WORKER_DEAD_AFTER_MS,
)
from minimr.coordinator.commands import OpenTerm, encode_command
from minimr.coordinator.effects import Propose, PublishOutput
from minimr.coordinator.events import Applied, CallerGone
from minimr.errors import JobUsageError, NoSuchJob
from minimr.ids import JobId, TaskPhase
from minimr.messages import (
    Assignment,
    CancelJob,
    Failure,
    FailureKind,
    GetJob,
    GetJobSpec,
    JobList,
    JobSpec,
    JobState,
    JobStatus,
    ListJobs,
    ListWorkers,
    MapAssignment,
    MapOutput,
    PollTask,
    PublishAssignment,
    ReduceAssignment,
    ReportSuccess,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
    WorkerList,
)
from tests.minimr.coordinator.harness import Stand, failure, make_spec, result_of, worker_info

ALICE, BOB = worker_info("alice"), worker_info("bob")
JOB = JobId("count-1")


@pytest.fixture
def stand() -> Stand:
    return Stand()


def status(stand: Stand, job_id: JobId = JOB) -> JobStatus:
    answer = stand.ask(GetJob(job_id=job_id))
    assert isinstance(answer, JobStatus)
    return answer


def outputs_of(assignment: object) -> tuple[MapOutput, ...]:
    assert isinstance(assignment, ReduceAssignment)
    return assignment.map_outputs


def keep_alive(stand: Stand, *workers: WorkerInfo, ms: int) -> None:
    """Let time pass while some workers ping."""
    for _ in range(0, ms, 1000):
        stand.wait(1000)
        for worker in workers:
            stand.ping(worker)


def test_one_worker_runs_maps_then_reduces_then_one_publish(stand: Stand) -> None:
    stand.submit(make_spec(maps=3, reduces=2))
    done = stand.run_all(ALICE)
    phases = [assignment.attempt.task.phase for assignment in done]
    assert phases == [TaskPhase.MAP] * 3 + [TaskPhase.REDUCE] * 2 + [TaskPhase.PUBLISH]
    final = status(stand)
    assert final.state is JobState.DONE
    assert [part.name for part in final.parts] == ["part-r-00000", "part-r-00001"]
    assert final.counters["map.test"] == 0b111
    assert final.counters["reduce.test"] == 0b11
    assert final.counters["map.attempts.launched"] == final.counters["map.attempts.committed"] == 3
    assert final.shuffle_bytes == 21


def test_a_job_without_input_still_gets_its_parts(stand: Stand) -> None:
    stand.submit(make_spec(maps=0, reduces=2))
    done = stand.run_all(ALICE)
    assert [outputs_of(assignment) for assignment in done[:2]] == [(), ()]
    assert len(status(stand).parts) == 2


def test_a_map_only_job_publishes_the_parts_of_its_maps(stand: Stand) -> None:
    stand.submit(make_spec(maps=2, reduces=0))
    done = stand.run_all(ALICE)
    assert isinstance(done[-1], PublishAssignment)
    assert [part.attempt for part in done[-1].parts] == [done[0].attempt, done[1].attempt]
    final = status(stand)
    assert (final.state, final.reduce_count) == (JobState.DONE, 0)
    assert "reduce.attempts.launched" not in final.counters


def test_submitting_twice_is_harmless(stand: Stand) -> None:
    first = stand.submit(make_spec())
    assert stand.submit(make_spec()).job_id == first.job_id
    stand.run_all(ALICE)
    assert stand.submit(make_spec()).state is JobState.DONE
    assert stand.poll(ALICE) is None


@pytest.mark.parametrize(
    "spec", [make_spec(reduces=-1), make_spec(attempt_limit=0), make_spec(name="")]
)
def test_a_senseless_specification_is_refused(stand: Stand, spec: JobSpec) -> None:
    assert isinstance(stand.refused(SubmitJob(spec=spec)), JobUsageError)
    assert stand.machine.state.jobs == {}


def test_unknown_jobs_are_named_in_the_error(stand: Stand) -> None:
    for request in (GetJob(job_id=JOB), CancelJob(job_id=JOB), GetJobSpec(job_id=JOB)):
        error = stand.refused(request)
        assert isinstance(error, NoSuchJob)
        assert JOB in str(error)


def test_a_worker_gets_the_split_on_its_host_first_but_never_waits_for_one(stand: Stand) -> None:
    stand.submit(make_spec(maps=3, hosts=(("alice",), ("bob",), ("carol",))))
    near = stand.take(BOB)
    assert near.attempt.task.index == 1
    stand.succeed(BOB, near)
    assert stand.take(BOB).attempt.task.index == 0


def test_older_jobs_come_first(stand: Stand) -> None:
    stand.submit(make_spec("count-2", maps=1))
    stand.submit(make_spec("count-1", maps=1))
    assert stand.take(ALICE).attempt.task.job_id == "count-2"
    assert stand.take(BOB).attempt.task.job_id == "count-1"


def test_a_poll_waits_for_work_and_gets_it_when_a_job_comes(stand: Stand) -> None:
    token = stand.call(PollTask(worker=ALICE, wait_ms=10_000))
    assert token not in stand.answers
    stand.submit(make_spec())
    offer = stand.answers[token]
    assert isinstance(offer, TaskOffer)
    assert offer.assignment is not None


def test_a_poll_ends_empty_when_its_time_is_up(stand: Stand) -> None:
    token = stand.call(PollTask(worker=ALICE, wait_ms=3_000))
    stand.wait(2_999)
    assert token not in stand.answers
    stand.wait(1)
    assert stand.answers[token] == TaskOffer(assignment=None)


def test_a_worker_that_hung_up_is_given_nothing(stand: Stand) -> None:
    token = stand.call(PollTask(worker=ALICE, wait_ms=10_000))
    stand.handle(CallerGone(token=token))
    stand.submit(make_spec())
    assert token not in stand.answers


def test_an_offer_that_never_arrived_is_lost_and_made_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    first = stand.take(ALICE)
    again = stand.take(ALICE)
    assert again.attempt.task == first.attempt.task
    assert again.attempt != first.attempt
    assert status(stand).counters["map.attempts.lost"] == 1


def test_a_user_failure_is_tried_four_times_then_fails_the_job(stand: Stand) -> None:
    stand.submit(make_spec(maps=2))
    for _ in range(4):
        assignment = stand.take(ALICE)
        assert assignment.attempt.task.index == 0
        stand.fail(ALICE, assignment, failure())
    final = status(stand)
    assert final.state is JobState.FAILED
    assert final.failure == failure()
    assert str(final.failed_task) == "count-1/m-00000"
    assert final.counters["map.attempts.failed"] == 4
    assert [spec.job_id for spec in stand.discarded] == [JOB]
    assert stand.poll(ALICE) is None


def bug(record: str, where: str = "byte 7") -> Failure:
    error = f"map raised IndexError on record {record} in file:///in at {where}"
    return Failure(kind=FailureKind.USER, error=error, record=record, url="file:///in", offset=7)


def test_the_same_error_on_the_same_record_is_not_tried_a_third_time(stand: Stand) -> None:
    stand.submit(make_spec(maps=2))
    for worker in (ALICE, BOB):
        stand.fail(worker, stand.take(worker), bug("b'short'"))
    final = status(stand)
    assert final.state is JobState.FAILED
    assert final.failure == bug("b'short'")
    assert final.counters["map.attempts.failed"] == 2


def test_errors_that_differ_or_alternate_with_other_failures_use_all_attempts(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    for what in (bug("b'one'"), bug("b'two'"), failure(FailureKind.DIED)):
        stand.fail(ALICE, stand.take(ALICE), what)
    assert status(stand).state is JobState.RUNNING
    stand.fail(ALICE, stand.take(ALICE), bug("b'one'"))
    assert status(stand).counters["map.attempts.failed"] == 4


def test_the_first_of_two_equal_errors_survives_a_failover(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    stand.fail(ALICE, stand.take(ALICE), bug("b'short'"))
    stand.open_term()
    stand.hello(ALICE)
    stand.fail(ALICE, stand.take(ALICE), bug("b'short'"))
    assert status(stand).state is JobState.FAILED


def test_an_executor_that_died_counts_as_a_failure(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, attempt_limit=1))
    stand.fail(ALICE, stand.take(ALICE), failure(FailureKind.DIED))
    assert status(stand).state is JobState.FAILED


def test_a_failed_job_ends_only_when_its_last_attempt_is_gone(stand: Stand) -> None:
    stand.submit(make_spec(maps=2, attempt_limit=1))
    first, second = stand.take(ALICE), stand.take(BOB)
    stand.fail(ALICE, first, failure())
    assert status(stand).state is JobState.RUNNING
    assert stand.discarded == []
    assert stand.ping(BOB, second.attempt).cancel == (second.attempt,)
    stand.fail(BOB, second, failure(FailureKind.CANCELLED))
    assert status(stand).state is JobState.FAILED
    assert len(stand.discarded) == 1


def test_a_cancelled_job_gives_out_nothing_and_tells_its_workers(stand: Stand) -> None:
    stand.submit(make_spec(maps=2))
    assignment = stand.take(ALICE)
    stand.ask(CancelJob(job_id=JOB))
    assert stand.poll(BOB) is None
    assert stand.ping(ALICE, assignment.attempt).cancel == (assignment.attempt,)
    stand.succeed(ALICE, assignment)
    final = status(stand)
    assert (final.state, final.maps_done) == (JobState.CANCELLED, 0)
    assert stand.ping(ALICE, stored_jobs=(JOB,)).finished_jobs == (JOB,)


def test_a_cancel_comes_too_late_once_a_task_may_move_the_output(stand: Stand) -> None:
    stand.submit(make_spec(maps=0, reduces=1))
    stand.succeed(ALICE, stand.take(ALICE))
    publish = stand.take(ALICE)
    stand.ask(CancelJob(job_id=JOB))
    stand.succeed(ALICE, publish)
    assert status(stand).state is JobState.DONE


def test_a_silent_worker_is_dead_after_five_seconds_and_its_work_is_done_again(
    stand: Stand,
) -> None:
    stand.submit(make_spec(maps=2, backup_policy="none"))
    stand.succeed(ALICE, stand.take(ALICE))
    running = stand.take(ALICE)
    stand.hello(BOB)
    keep_alive(stand, BOB, ms=WORKER_DEAD_AFTER_MS)
    assert stand.poll(BOB) is None
    keep_alive(stand, BOB, ms=1_000)
    for index in (0, running.attempt.task.index):
        redone = stand.take(BOB)
        assert redone.attempt.task.index == index
        stand.succeed(BOB, redone)
    reduce = stand.take(BOB)
    assert {output.worker_id for output in outputs_of(reduce)} == {"bob"}
    counters = status(stand).counters
    assert counters["map.attempts.lost"] == 2
    assert counters["map.attempts.committed"] == 2
    assert counters["map.attempts.launched"] == 4
    assert counters["map.test"] == 0b11


def test_outputs_of_a_dead_worker_that_nobody_needs_are_not_made_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=1, published_by_master=True))
    stand.succeed(ALICE, stand.take(ALICE))
    stand.succeed(ALICE, stand.take(ALICE))
    stand.hello(BOB)
    keep_alive(stand, BOB, ms=2 * WORKER_DEAD_AFTER_MS)
    assert isinstance(stand.take(BOB), PublishAssignment)


def test_a_worker_given_up_is_told_so_and_its_late_result_is_ignored(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    late = stand.take(ALICE)
    stand.wait(WORKER_DEAD_AFTER_MS + 1)
    assert not stand.ping(ALICE, late.attempt).known
    assert stand.hello(ALICE, running=(late.attempt,)).cancel == (late.attempt,)
    stand.succeed(ALICE, late)
    assert status(stand).maps_done == 0


def test_a_duplicate_success_changes_nothing(stand: Stand) -> None:
    stand.submit(make_spec(maps=2))
    assignment = stand.take(ALICE)
    stand.succeed(ALICE, assignment)
    before = stand.machine.state
    stand.succeed(ALICE, assignment)
    assert stand.machine.state is before


def test_a_fetch_failure_runs_exactly_the_named_maps_again_and_is_not_counted(
    stand: Stand,
) -> None:
    stand.submit(make_spec(maps=3, reduces=1, attempt_limit=1))
    maps = []
    for _ in range(3):
        maps.append(stand.take(ALICE))
        stand.succeed(ALICE, maps[-1])
    reduce = stand.take(BOB)
    stand.fail(BOB, reduce, failure(FailureKind.FETCH, lost=(maps[1].attempt,)))
    again = stand.run_all(BOB)
    assert [str(one.attempt.task) for one in again] == [
        "count-1/m-00001",
        "count-1/r-00000",
        "count-1/p-00000",
    ]
    final = status(stand)
    assert final.state is JobState.DONE
    assert final.counters["reduce.attempts.failed"] == 1
    assert final.counters["map.test"] == 0b111


def test_a_fetch_failure_does_not_blame_a_map_that_has_run_again_since(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=2))
    done = stand.take(ALICE)
    stand.succeed(ALICE, done)
    first, second = stand.take(ALICE), stand.take(BOB)
    stand.fail(ALICE, first, failure(FailureKind.FETCH, lost=(done.attempt,)))
    stand.succeed(ALICE, stand.take(ALICE))
    stand.fail(BOB, second, failure(FailureKind.FETCH, lost=(done.attempt,)))
    assert status(stand).maps_done == 1


def test_a_task_that_is_lost_again_and_again_fails_the_job_in_the_end(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    for _ in range(TASK_END_COUNT_MAX):
        assert stand.poll(ALICE) is not None
    stand.poll(ALICE)
    final = status(stand)
    assert final.state is JobState.FAILED
    assert final.failure is not None
    assert "lost with its worker" in final.failure.error


def test_a_restarted_worker_loses_what_ran_and_keeps_what_it_stores(stand: Stand) -> None:
    stand.submit(make_spec(maps=3, reduces=1))
    kept, gone = stand.take(ALICE), stand.take(BOB)
    stand.succeed(ALICE, kept)
    kept_too = stand.take(ALICE)
    stand.succeed(ALICE, kept_too)
    stand.succeed(BOB, gone)
    reborn = worker_info("alice", 2, stored=(kept.attempt.file_stem,))
    stand.hello(reborn)
    redone = stand.take(BOB)
    assert redone.attempt.task == kept_too.attempt.task
    stand.succeed(BOB, redone)
    reduce = stand.take(BOB)
    assert [output.address for output in outputs_of(reduce)] == [
        reborn.address,
        BOB.address,
        BOB.address,
    ]


def test_results_of_the_wrong_kind_are_refused(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=1))
    assignment = stand.take(ALICE)
    assert isinstance(assignment, MapAssignment)
    wrong = PublishAssignment(attempt=assignment.attempt, parts=(), counters={})
    error = stand.refused(
        ReportSuccess(
            worker_id=ALICE.worker_id,
            attempt=assignment.attempt,
            result=result_of(wrong, ALICE),
        )
    )
    assert isinstance(error, ProtocolError)
    assert status(stand).maps_done == 0


def test_the_master_publishes_once_the_publish_task_has_prepared_it(stand: Stand) -> None:
    stand.submit(make_spec(maps=0, reduces=1, published_by_master=True))
    stand.succeed(ALICE, stand.take(ALICE))
    publish = stand.take(ALICE)
    assert isinstance(publish, PublishAssignment)
    stand.succeed(ALICE, publish)
    published = [e for _, effects in stand.trace for e in effects if isinstance(e, PublishOutput)]
    assert len(published) == 1
    assert status(stand).state is JobState.DONE


def test_a_refused_publish_fails_the_job_with_its_reason(stand: Stand) -> None:
    stand.refuse_publish = True
    stand.submit(make_spec(maps=0, reduces=1, published_by_master=True))
    stand.run_all(ALICE)
    final = status(stand)
    assert (final.state, final.parts) == (JobState.FAILED, ())
    assert final.failure == failure(FailureKind.OUTPUT)


def test_a_new_coordinator_waits_then_goes_on_from_what_is_committed(stand: Stand) -> None:
    stand.submit(make_spec(maps=2, reduces=1))
    done = stand.take(ALICE)
    stand.succeed(ALICE, done)
    running = stand.take(ALICE)
    stand.open_term()
    assert not stand.ping(ALICE, running.attempt).known
    stored = worker_info("alice", 1, stored=(done.attempt.file_stem,))
    assert stand.hello(stored, running=(running.attempt,)).cancel == ()
    assert stand.poll(BOB) is None
    keep_alive(stand, ALICE, BOB, ms=RECOVERY_HOLD_MS)
    assert stand.poll(BOB) is None  # the second map was adopted where it runs
    stand.succeed(ALICE, running)
    reduce = stand.take(BOB)
    assert reduce.attempt.term == 2
    assert [output.attempt for output in outputs_of(reduce)] == [done.attempt, running.attempt]


def test_outputs_on_workers_a_new_coordinator_never_hears_of_are_made_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=1))
    stand.succeed(ALICE, stand.take(ALICE))
    stand.open_term()
    stand.hello(BOB)
    keep_alive(stand, BOB, ms=WORKER_DEAD_AFTER_MS)
    redone = stand.take(BOB)
    assert isinstance(redone, MapAssignment)


def test_a_report_from_an_earlier_term_is_taken_even_before_its_worker_says_hello(
    stand: Stand,
) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    stand.open_term()
    stand.succeed(ALICE, assignment)
    assert status(stand).maps_done == 1


def test_a_new_coordinator_assigns_nothing_before_its_workers_had_time_to_speak(
    stand: Stand,
) -> None:
    stand.hello(ALICE)
    stand.submit(make_spec(maps=1))
    stand.open_term()
    stand.hello(BOB)
    stand.wait(RECOVERY_HOLD_MS - 10)
    assert stand.poll(BOB) is None
    stand.wait(10)
    assert stand.poll(BOB) is not None


def test_a_new_coordinator_goes_on_as_soon_as_every_worker_has_spoken(stand: Stand) -> None:
    stand.hello(ALICE)
    stand.hello(BOB)
    stand.submit(make_spec(maps=2))
    running = stand.take(ALICE)
    stand.open_term()
    assert stand.poll(BOB) is None
    stand.hello(ALICE, running=(running.attempt,))
    assert stand.take(BOB).attempt.task.index == 1  # the other is adopted


def test_a_worker_given_up_before_is_not_waited_for_and_one_that_stays_silent_is_given_up(
    stand: Stand,
) -> None:
    stand.hello(ALICE)
    stand.hello(BOB)
    keep_alive(stand, BOB, ms=WORKER_DEAD_AFTER_MS + 1000)
    stand.submit(make_spec(maps=1))
    stand.open_term()
    assert stand.poll(BOB) is not None
    stand.open_term()
    stand.wait(WORKER_DEAD_AFTER_MS)
    assert stand.machine.state.workers == ()


def test_no_worker_runs_anything_before_the_log_knows_the_worker() -> None:
    stand = Stand(lazy=True)
    token = stand.call(SubmitJob(spec=make_spec(maps=1)))
    stand.catch_up()
    assert token in stand.answers
    poll = stand.call(PollTask(worker=ALICE, wait_ms=1_000))
    assert poll not in stand.answers
    stand.catch_up()
    assert stand.machine.state.workers == (ALICE.worker_id,)
    assert isinstance(stand.answers[poll], TaskOffer)


def test_attempts_carry_their_own_leaders_term_even_when_a_later_one_is_in_the_log(
    stand: Stand,
) -> None:
    deposed = stand.coordinator
    stand.machine.apply(9, encode_command(OpenTerm(now_ms=stand.now_ms, term=7)))
    stand.coordinator = deposed
    stand.submit(make_spec(maps=1))
    assert stand.take(ALICE).attempt.term == 1


def test_an_older_term_opened_late_changes_nothing(stand: Stand) -> None:
    stand.open_term()
    assert stand.machine.preview(OpenTerm(now_ms=1, term=1)) is stand.machine.state


def test_the_slower_of_two_attempts_of_a_task_is_lost_and_counts_nothing(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=1))
    slow = stand.take(ALICE)
    stand.open_term()
    stand.wait(RECOVERY_HOLD_MS)
    quick = stand.take(BOB)
    assert quick.attempt.task == slow.attempt.task
    stand.hello(ALICE, running=(slow.attempt,))
    stand.succeed(BOB, quick)
    assert stand.ping(ALICE, slow.attempt).cancel == (slow.attempt,)
    stand.succeed(ALICE, slow)
    now = status(stand)
    assert (now.maps_done, now.counters["map.test"], now.shuffle_bytes) == (1, 1, 7)
    assert now.counters["map.attempts.lost"] == 1
    (output,) = outputs_of(stand.take(BOB))
    assert output.attempt == quick.attempt


def report(stand: Stand, worker: WorkerInfo, assignment: Assignment) -> int:
    """A success whose answer waits for the log."""
    return stand.call(
        ReportSuccess(
            worker_id=worker.worker_id,
            attempt=assignment.attempt,
            result=result_of(assignment, worker),
        )
    )


def test_a_report_on_its_way_through_the_log_is_not_lost_by_the_next_poll(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    stand.lazy = True
    token = report(stand, ALICE, assignment)
    stand.call(PollTask(worker=ALICE, wait_ms=10_000))
    assert token not in stand.answers, "nothing is acknowledged before it is durable"
    stand.catch_up()
    assert token in stand.answers
    assert status(stand).maps_done == 1


def test_an_output_committed_after_its_worker_was_given_up_is_made_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    stand.lazy = True
    report(stand, ALICE, assignment)
    stand.wait(WORKER_DEAD_AFTER_MS + 1)
    stand.catch_up()
    stand.lazy = False
    assert isinstance(stand.take(BOB), MapAssignment)


def test_a_report_the_log_refused_can_be_made_again(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    stand.lazy = True
    report(stand, ALICE, assignment)
    stand.refuse_next()
    stand.lazy = False
    stand.succeed(ALICE, assignment)
    assert status(stand).maps_done == 1


def test_an_attempt_whose_report_was_refused_goes_with_its_worker(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    stand.lazy = True
    report(stand, ALICE, assignment)
    stand.refuse_next()
    stand.lazy = False
    stand.wait(WORKER_DEAD_AFTER_MS + 1)
    assert stand.take(BOB).attempt.task == assignment.attempt.task


def test_a_watcher_hears_of_progress_soon_and_of_silence_at_its_deadline(stand: Stand) -> None:
    stand.submit(make_spec(maps=1))
    assignment = stand.take(ALICE)
    known = status(stand).version
    token = stand.call(GetJob(job_id=JOB, known_version=known, wait_ms=2_000))
    assert token not in stand.answers
    stand.ping(ALICE, assignment.attempt)
    assert token not in stand.answers
    stand.wait(NEWS_INTERVAL_MS)
    news = stand.answers[token]
    assert isinstance(news, JobStatus)
    assert news.version > known
    assert news.input_bytes_done == 50
    token = stand.call(GetJob(job_id=JOB, known_version=news.version, wait_ms=2_000))
    stand.wait(2_000)
    assert stand.answers[token] == status(stand)


def test_phases_follow_each_other_and_add_up(stand: Stand) -> None:
    stand.submit(make_spec(maps=1, reduces=1))
    for ms in (300, 200, 100):
        assignment = stand.take(ALICE)
        stand.wait(ms)
        stand.succeed(ALICE, assignment)
    final = status(stand)
    assert final.phase_ms == {"map": 300, "reduce": 200, "publish": 100}
    assert final.ended_ms - final.submitted_ms == 600


def test_lists_show_running_and_ended_jobs_and_what_each_worker_does(stand: Stand) -> None:
    stand.submit(make_spec("count-1", maps=1))
    stand.run_all(ALICE)
    stand.submit(make_spec("count-2", maps=1))
    assignment = stand.take(BOB)
    jobs = stand.ask(ListJobs())
    assert isinstance(jobs, JobList)
    assert [(job.job_id, job.state.value) for job in jobs.jobs] == [
        ("count-1", "done"),
        ("count-2", "running"),
    ]
    workers = stand.ask(ListWorkers())
    assert isinstance(workers, WorkerList)
    assert [worker.task for worker in workers.workers] == ["", str(assignment.attempt)]


def test_the_same_events_at_the_same_times_give_the_same_effects() -> None:
    def campaign() -> Stand:
        stand = Stand()
        stand.submit(make_spec(maps=3, reduces=2))
        stand.submit(make_spec("count-2", maps=2, reduces=0))
        for worker in (ALICE, BOB):
            stand.fail(worker, stand.take(worker), failure())
        stand.take(ALICE)
        keep_alive(stand, BOB, ms=WORKER_DEAD_AFTER_MS + 1_000)
        stand.run_all(BOB)
        return stand

    first, second = campaign(), campaign()
    assert first.trace == second.trace
    assert first.log == second.log


def test_a_request_between_an_admission_and_the_news_of_it_finds_the_job() -> None:
    """The machine applies an entry a turn of the loop before the coordinator hears of it."""
    stand = Stand()
    stand.hello(ALICE)
    stand.lazy = True
    stand.call(SubmitJob(spec=make_spec(maps=1)))
    admission = stand.pending.popleft()
    assert isinstance(admission, Propose)
    stand._append(admission.command)

    assert stand.take(ALICE).attempt.task.phase is TaskPhase.MAP

    stand.handle(Applied(command=admission.command, token=admission.token))
    assert stand.poll(BOB) is None
