"""Reduces that begin while maps run: when, what they hear, and when they give their slot back."""

import msgspec
import pytest

from minimr.config import NEWS_INTERVAL_MS, TASK_END_COUNT_MAX, WORKER_DEAD_AFTER_MS
from minimr.coordinator.coordinator import Coordinator
from minimr.ids import AttemptId, JobId, TaskPhase
from minimr.messages import (
    Assignment,
    GetJob,
    GetMapOutputs,
    JobState,
    JobStatus,
    MapOutputNews,
    MapResult,
    NewsHeard,
    PollTask,
    PublishAssignment,
    ReduceAssignment,
    ReportSuccess,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import Stand, failure, make_spec, result_of, worker_info

ALICE, BOB, CID, DAN = (worker_info(name) for name in ("alice", "bob", "cid", "dan"))
JOB = JobId("count-1")
NOTHING_HEARD = NewsHeard()


@pytest.fixture
def stand() -> Stand:
    return Stand()


def status(stand: Stand) -> JobStatus:
    answer = stand.ask(GetJob(job_id=JOB))
    assert isinstance(answer, JobStatus)
    return answer


def ask(
    stand: Stand,
    worker: WorkerInfo,
    reduce: Assignment,
    heard: NewsHeard = NOTHING_HEARD,
    missed: tuple[AttemptId, ...] = (),
    damaged_count: int = 0,
) -> int:
    """The token of a question that waits."""
    return stand.call(
        GetMapOutputs(
            worker_id=worker.worker_id,
            attempt=reduce.attempt,
            heard=heard,
            wait_ms=60_000,
            missed=missed,
            damaged_count=damaged_count,
        )
    )


def news(stand: Stand, token: int) -> MapOutputNews:
    answer = stand.answers[token]
    assert isinstance(answer, MapOutputNews)
    return answer


def indexes(told: MapOutputNews) -> list[int]:
    return [output.map_index for output in told.outputs]


def wait_free(stand: Stand, worker: WorkerInfo) -> int:
    """The token of a free slot's question for work."""
    return stand.call(PollTask(worker=worker, wait_ms=60_000))


def taken(stand: Stand, token: int) -> Assignment:
    offer = stand.answers[token]
    assert isinstance(offer, TaskOffer)
    assert offer.assignment is not None
    return offer.assignment


def early(stand: Stand, *, maps: int = 2) -> tuple[Assignment, ReduceAssignment]:
    """Alice maps the last split, Bob has begun a reduce."""
    stand.submit(make_spec(maps=maps, slowstart_permille=1))
    for _ in range(maps - 1):
        stand.succeed(BOB, stand.take(BOB))
    last = stand.take(ALICE)
    reduce = stand.take(BOB)
    assert isinstance(reduce, ReduceAssignment)
    return last, reduce


def test_a_reduce_begins_when_a_map_is_done_and_no_other_is_idle(stand: Stand) -> None:
    stand.submit(make_spec(maps=3, slowstart_permille=1))
    running = [stand.take(worker) for worker in (ALICE, BOB, CID)]
    assert {one.attempt.task.phase for one in running} == {TaskPhase.MAP}
    stand.succeed(ALICE, running[0])
    reduce = stand.take(ALICE)
    assert isinstance(reduce, ReduceAssignment)
    assert reduce.map_count == 3
    assert [output.map_index for output in reduce.map_outputs] == [0]


def test_not_before_the_share_of_maps_that_the_job_wants(stand: Stand) -> None:
    stand.submit(make_spec(maps=4, slowstart_permille=750))
    maps = [stand.take(ALICE) for _ in range(1)]
    stand.succeed(ALICE, maps[0])
    first, second, third = stand.take(ALICE), stand.take(BOB), stand.take(CID)
    stand.succeed(ALICE, first)
    assert stand.poll(ALICE) is None, "half of the maps are done"
    stand.succeed(BOB, second)
    assert isinstance(stand.take(BOB), ReduceAssignment)
    assert third.attempt.task.phase is TaskPhase.MAP


def test_it_hears_of_maps_together_and_of_the_last_one_at_once(stand: Stand) -> None:
    stand.submit(make_spec(maps=4, slowstart_permille=1))
    first, *others = [stand.take(worker) for worker in (ALICE, BOB, CID, DAN)]
    stand.succeed(ALICE, first)
    reduce = stand.take(ALICE)
    heard = news(stand, ask(stand, ALICE, reduce)).heard
    token = ask(stand, ALICE, reduce, heard)
    stand.succeed(BOB, others[0])
    stand.succeed(CID, others[1])
    assert token not in stand.answers
    stand.wait(NEWS_INTERVAL_MS)
    assert indexes(news(stand, token)) == [1, 2]
    token = ask(stand, ALICE, reduce, news(stand, token).heard)
    stand.succeed(DAN, others[2])
    assert indexes(news(stand, token)) == [3]


def test_a_map_that_fails_gets_the_slot_of_a_reduce_that_waits(stand: Stand) -> None:
    last, reduce = early(stand)
    stand.hello(BOB, running=(reduce.attempt,))
    token = ask(stand, BOB, reduce)
    token = ask(stand, BOB, reduce, news(stand, token).heard)
    stand.fail(ALICE, last, failure())  # Alice does not ask for more
    assert not news(stand, token).is_wanted
    again = stand.take(BOB)
    assert again.attempt.task == last.attempt.task
    stand.succeed(BOB, again)
    done = stand.run_all(BOB)
    assert [str(one.attempt.task) for one in done] == ["count-1/r-00000", "count-1/p-00000"]
    final = status(stand)
    assert final.state is JobState.DONE
    assert final.counters["reduce.attempts.launched"] == 2
    assert final.counters["reduce.attempts.set_back"] == 1
    assert final.counters["reduce.attempts.lost"] == 0
    assert final.counters["reduce.attempts.failed"] == 0


def test_a_slot_that_is_free_spares_the_reduce(stand: Stand) -> None:
    last, reduce = early(stand)
    token = ask(stand, BOB, reduce)
    token = ask(stand, BOB, reduce, news(stand, token).heard)
    free = wait_free(stand, CID)
    stand.fail(ALICE, last, failure())
    assert taken(stand, free).attempt.task == last.attempt.task
    assert token not in stand.answers


def test_being_set_back_is_no_fault_however_often(stand: Stand) -> None:
    last, reduce = early(stand)
    for number in range(TASK_END_COUNT_MAX + 2):
        heard = news(stand, ask(stand, BOB, reduce)).heard
        token = ask(stand, BOB, reduce, heard)
        other = JobId(f"other-{number}")
        stand.submit(make_spec(other, maps=1, reduces=0))
        assert not news(stand, token).is_wanted
        for _ in range(2):  # its map and its publishing
            stand.succeed(BOB, stand.take(BOB))
        reduce = stand.take(BOB)
        assert isinstance(reduce, ReduceAssignment)
    stand.succeed(ALICE, last)
    stand.succeed(BOB, reduce)
    stand.run_all(BOB)
    assert status(stand).state is JobState.DONE


def test_another_jobs_maps_take_the_slot_too(stand: Stand) -> None:
    _, reduce = early(stand)
    heard = news(stand, ask(stand, BOB, reduce)).heard
    token = ask(stand, BOB, reduce, heard)
    stand.submit(make_spec("other-1", maps=1))
    assert not news(stand, token).is_wanted
    assert stand.take(BOB).attempt.task.job_id == "other-1"


def test_an_output_that_is_lost_is_fetched_from_its_new_place(stand: Stand) -> None:
    stand.submit(make_spec(maps=3, slowstart_permille=1, backup_policy="none"))
    first, second, third = (stand.take(worker) for worker in (ALICE, BOB, CID))
    stand.succeed(ALICE, first)
    stand.succeed(BOB, second)
    reduce = stand.take(BOB)
    told = news(stand, ask(stand, BOB, reduce))
    token = ask(stand, BOB, reduce, told.heard)
    free = wait_free(stand, DAN)
    for _ in range(0, WORKER_DEAD_AFTER_MS + 1_000, 1_000):  # Alice says nothing
        stand.wait(1_000)
        stand.ping(BOB, reduce.attempt)
        stand.ping(CID, third.attempt)
        stand.ping(DAN)
    assert news(stand, token).gone == (0,)
    token = ask(stand, BOB, reduce, news(stand, token).heard)
    again = taken(stand, free)
    assert again.attempt.task == first.attempt.task
    stand.succeed(CID, third)
    stand.succeed(DAN, again)
    told = news(stand, token)
    assert {out.map_index: out.worker_id for out in told.outputs} == {0: "dan", 2: "cid"}
    stand.succeed(BOB, reduce)
    assert status(stand).counters["reduce.attempts.launched"] == 1, "the same attempt went on"


def test_what_could_not_be_fetched_runs_again_and_a_new_leader_takes_that_over(
    stand: Stand,
) -> None:
    stand.submit(make_spec(maps=2))
    first, second = stand.take(ALICE), stand.take(BOB)
    stand.succeed(ALICE, first)
    stand.succeed(BOB, second)
    reduce = stand.take(BOB)
    told = news(stand, ask(stand, BOB, reduce))
    assert indexes(told) == [0, 1]
    free = wait_free(stand, ALICE)
    token = ask(stand, BOB, reduce, told.heard, missed=(first.attempt,), damaged_count=1)
    stand.wait(NEWS_INTERVAL_MS)
    assert news(stand, token).gone == (0,)
    Coordinator(stand.machine, term=99, now_ms=stand.now_ms)  # its checks hold
    token = ask(stand, BOB, reduce, news(stand, token).heard)
    again = taken(stand, free)
    assert again.attempt.task == first.attempt.task
    stand.succeed(ALICE, again)
    assert [output.attempt for output in news(stand, token).outputs] == [again.attempt]
    # Late, and about an attempt that nobody counts on any more: no map runs for that.
    ask(stand, BOB, reduce, missed=(first.attempt,))
    stand.succeed(BOB, reduce)
    stand.run_all(BOB)
    final = status(stand)
    assert final.state is JobState.DONE
    assert final.counters["map.attempts.launched"] == 3
    assert final.counters["shuffle.bad_frames"] == 1


def test_a_backup_of_a_slow_map_gets_the_slot(stand: Stand) -> None:
    stand.submit(make_spec(maps=8, slowstart_permille=1))
    slow = stand.take(ALICE)
    others = [BOB, *(worker_info(f"other-{number}") for number in range(6))]
    running = [(worker, stand.take(worker)) for worker in others]
    stand.wait(1_000)
    for worker, one in running:
        stand.succeed(worker, one)
    reduce = stand.take(BOB)
    assert isinstance(reduce, ReduceAssignment)
    token = ask(stand, BOB, reduce, news(stand, ask(stand, BOB, reduce)).heard)
    for _ in range(4):
        stand.wait(500)
        stand.ping(BOB, reduce.attempt)
        stand.ping(ALICE)
    assert not news(stand, token).is_wanted
    backup = stand.take(BOB)
    assert backup.attempt.task == slow.attempt.task
    stand.succeed(BOB, backup)
    assert status(stand).counters["backup.won"] == 1


def test_waiting_for_maps_is_no_hanging_and_no_slowness(stand: Stand) -> None:
    last, reduce = early(stand)
    stand.ping(BOB, reduce.attempt)
    for _ in range(20 * 60):
        stand.wait(1_000)
        stand.ping(BOB, reduce.attempt)
        stand.ping(ALICE, last.attempt)
    assert status(stand).counters["reduce.attempts.failed"] == 0
    assert last.attempt.task.phase is TaskPhase.MAP


def test_a_new_leader_tells_everything_again(stand: Stand) -> None:
    last, reduce = early(stand, maps=3)
    heard = news(stand, ask(stand, BOB, reduce)).heard
    assert heard.count == 2
    stand.open_term()
    stored = tuple(output.attempt.file_stem for output in reduce.map_outputs)
    stand.hello(worker_info("bob", stored=stored), running=(reduce.attempt,))
    stand.hello(ALICE, running=(last.attempt,))
    told = news(stand, ask(stand, BOB, reduce, heard))
    assert indexes(told) == [0, 1]
    token = ask(stand, BOB, reduce, told.heard)
    stand.succeed(ALICE, last)
    assert indexes(news(stand, token)) == [2]


def test_of_many_maps_each_reduce_is_told_by_news_not_with_its_task(stand: Stand) -> None:
    stand.submit(make_spec(maps=65, reduces=2))
    for _ in range(65):
        one = stand.take(ALICE)
        result = result_of(one, ALICE)
        assert isinstance(result, MapResult)
        result = msgspec.structs.replace(result, counters={})
        stand.ask(ReportSuccess(worker_id=ALICE.worker_id, attempt=one.attempt, result=result))
    reduce = stand.take(ALICE)
    assert isinstance(reduce, ReduceAssignment)
    assert reduce.map_outputs == ()
    told = news(stand, ask(stand, ALICE, reduce))
    assert indexes(told) == list(range(65))
    assert not (set(stand.answers) & {ask(stand, ALICE, reduce, told.heard)}), "nothing is new"


def test_the_receipt_counts_an_output_that_was_lost_when_all_had_it(stand: Stand) -> None:
    """Its reduce commits before the map has run again: nothing is missing."""
    stand.submit(make_spec(maps=2))
    for worker in (ALICE, BOB):
        stand.succeed(worker, stand.take(worker))
    reduce = stand.take(BOB)
    assert isinstance(reduce, ReduceAssignment)
    wait_free(stand, CID)
    ask(stand, BOB, reduce, missed=(reduce.map_outputs[0].attempt,))
    assert status(stand).maps_done == 1
    stand.succeed(BOB, reduce)
    publish = stand.take(BOB)
    assert isinstance(publish, PublishAssignment)
    assert publish.receipt is not None
    assert publish.receipt.map_output.records == 2
