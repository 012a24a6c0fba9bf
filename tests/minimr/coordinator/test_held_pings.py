"""A worker hears at once that nobody needs its attempt any more, if its ping waits for that."""

import pytest

from minimr.config import PING_INTERVAL_MS, TICK_INTERVAL_MS
from minimr.coordinator.events import CallerGone
from minimr.ids import AttemptId, JobId
from minimr.messages import (
    Assignment,
    CancelJob,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import Stand, make_spec, worker_info

ANN, BOB = worker_info("ann"), worker_info("bob")


@pytest.fixture
def stand() -> Stand:
    return Stand()


def ping(stand: Stand, info: WorkerInfo, *running: AttemptId, wait_ms: int = 10_000) -> int:
    """The token of a ping that waits for news."""
    return stand.call(
        PingWorker(
            worker_id=info.worker_id,
            incarnation=info.incarnation,
            executor_pid=2,
            running=tuple(Progress(attempt=one, done_bytes=1, total_bytes=100) for one in running),
            wait_ms=wait_ms,
        )
    )


def told(stand: Stand, token: int) -> PingReply | None:
    answer = stand.answers.get(token)
    assert answer is None or isinstance(answer, PingReply)
    return answer


def slow_map(stand: Stand) -> tuple[Assignment, Assignment]:
    """ANN's map is slow; BOB does the others, until it is to do that one too."""
    stand.submit(make_spec(maps=12))
    slow = stand.take(ANN)
    while (other := stand.take(BOB)).attempt.task != slow.attempt.task:
        stand.wait(1_000)
        stand.ping(ANN, slow.attempt)
        stand.succeed(BOB, other)
    return slow, other


def test_the_slow_attempt_is_cancelled_the_moment_its_backup_has_won(stand: Stand) -> None:
    slow, backup = slow_map(stand)
    waiting = ping(stand, ANN, slow.attempt)
    assert told(stand, waiting) is None
    stand.succeed(BOB, backup)
    reply = told(stand, waiting)
    assert reply is not None
    assert reply.cancel == (slow.attempt,)


def test_a_cancelled_job_ends_its_attempts_at_once_also_one_begun_after_the_ping(
    stand: Stand,
) -> None:
    stand.submit(make_spec(maps=2))
    stand.hello(ANN)
    waiting = ping(stand, ANN)
    assignment = stand.take(ANN)
    stand.call(CancelJob(job_id=JobId("count-1")))
    reply = told(stand, waiting)
    assert reply is not None
    assert reply.cancel == (assignment.attempt,)


def test_all_that_a_worker_runs_of_a_cancelled_job_is_named(stand: Stand) -> None:
    stand.submit(make_spec(maps=100))
    for _ in range(12):
        stand.succeed(ANN, stand.take(ANN))
    waiting = ping(stand, ANN)
    offer = stand.answers[stand.call(PollTask(worker=ANN, most=8))]
    assert isinstance(offer, TaskOffer)
    assert offer.assignment is not None
    assert len(offer.more) == 7
    stand.call(CancelJob(job_id=JobId("count-1")))
    reply = told(stand, waiting)
    assert reply is not None
    assert reply.cancel == tuple(one.attempt for one in (offer.assignment, *offer.more))


def test_without_news_the_answer_comes_in_time_for_the_next_ping(stand: Stand) -> None:
    stand.hello(ANN)
    waiting = ping(stand, ANN)
    stand.wait(PING_INTERVAL_MS - 1)
    assert told(stand, waiting) is None
    stand.wait(TICK_INTERVAL_MS)
    assert told(stand, waiting) == PingReply(known=True, cancel=())


def test_a_ping_that_does_not_wait_is_answered_at_once(stand: Stand) -> None:
    stand.hello(ANN)
    assert told(stand, ping(stand, ANN, wait_ms=0)) is not None


def test_the_next_ping_of_a_worker_ends_the_one_before(stand: Stand) -> None:
    stand.hello(ANN)
    first = ping(stand, ANN)
    second = ping(stand, ANN)
    assert told(stand, first) is not None
    assert told(stand, second) is None


def test_a_ping_whose_caller_has_gone_is_answered_no_more(stand: Stand) -> None:
    slow, backup = slow_map(stand)
    waiting = ping(stand, ANN, slow.attempt)
    stand.handle(CallerGone(token=waiting))
    stand.succeed(BOB, backup)
    assert told(stand, waiting) is None
    assert stand.ping(ANN, slow.attempt).cancel == (slow.attempt,), "it hears it by its next"
