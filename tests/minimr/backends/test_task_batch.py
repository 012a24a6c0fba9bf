"""What a worker knows of the attempts that it was offered together."""

from minimr.backends.task_batch import TaskBatch
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import Failure, FailureKind, MapAssignment, ReportFailure, ReportTasks, Split
from minimr.tasks.gasp import GaspPage

ANN = WorkerId("ann")
ATTEMPTS = [AttemptId(TaskId(JobId("tiny-1"), TaskPhase.MAP, n), 1, n) for n in range(4)]


def a_batch() -> tuple[TaskBatch, GaspPage]:
    assignments = tuple(
        MapAssignment(attempt=one, split=Split(index=0, ranges=(), size_bytes=0), partition_count=1)
        for one in ATTEMPTS
    )
    page = GaspPage.private()
    page.clear()
    return TaskBatch(assignments, ANN), page


def end_of(attempt: AttemptId, kind: FailureKind = FailureKind.USER) -> ReportFailure:
    failure = Failure(kind=kind, error="")
    return ReportFailure(worker_id=ANN, attempt=attempt, failure=failure)


def test_all_are_named_until_they_are_reported_and_only_one_has_begun() -> None:
    batch, page = a_batch()
    assert [one.worked_ms for one in batch.progress(None)] == [0, 0, 0, 0]
    batch.take_open()
    page.take_turn(2)
    page.begin()
    assert batch.end(end_of(ATTEMPTS[0]))
    found = {one.attempt: one.worked_ms > 0 for one in batch.progress(page)}
    assert found == {ATTEMPTS[0]: False, ATTEMPTS[1]: True, ATTEMPTS[2]: False, ATTEMPTS[3]: False}
    report = batch.report()
    assert report == end_of(ATTEMPTS[0])
    batch.note_reported(report)
    assert ATTEMPTS[0] not in [one.attempt for one in batch.progress(page)]


def test_what_waits_behind_one_that_takes_long_is_given_back(monkeypatch) -> None:
    batch, page = a_batch()
    batch.take_open()
    page.take_turn(2)
    page.begin()
    batch.end(end_of(ATTEMPTS[0]))
    assert not batch.give_back_if_long(page)
    monkeypatch.setattr(GaspPage, "at_hand_ms", property(lambda page: 1_000))
    assert batch.give_back_if_long(page)
    assert page.is_stopped
    assert batch.report() == ReportTasks(
        worker_id=ANN, ends=(end_of(ATTEMPTS[0]),), returned=tuple(ATTEMPTS[2:])
    )
    assert not batch.end(end_of(ATTEMPTS[2]))  # it had begun all the same: nobody waits for it
    assert [one.attempt for one in batch.take_open()] == [ATTEMPTS[1]]


def test_what_waits_for_an_executor_that_starts_for_long_is_given_back_but_the_first(
    monkeypatch,
) -> None:
    batch, page = a_batch()
    batch.take_open()
    assert not batch.give_back_if_long(page)
    monkeypatch.setattr(GaspPage, "at_hand_ms", property(lambda page: 1_000))
    assert batch.give_back_if_long(page)
    assert page.is_stopped
    assert batch.report() == ReportTasks(worker_id=ANN, ends=(), returned=tuple(ATTEMPTS[1:]))
    assert [one.attempt for one in batch.take_open()] == [ATTEMPTS[0]]
    page.clear()
    batch.give_back_if_long(page)
    assert not page.is_stopped, "the first is to run, however long the start takes"


def test_the_executor_is_of_no_use_once_the_attempt_at_hand_is_cancelled() -> None:
    batch, page = a_batch()
    batch.take_open()
    page.take_turn(2)
    batch.cancel([ATTEMPTS[1]], page)
    assert batch.is_unwanted(page)
    assert not page.is_stopped
    page.take_turn(3)
    assert not batch.is_unwanted(page), "its turn is over: the next is not to be hit"


def test_what_is_cancelled_before_its_turn_is_not_run() -> None:
    batch, page = a_batch()
    batch.take_open()
    page.take_turn(1)
    batch.cancel([ATTEMPTS[0], ATTEMPTS[2]], None)  # the executor is only now being found
    assert not page.is_stopped
    batch.cancel([ATTEMPTS[2]], page)  # it is said again, as its attempts are still named
    assert page.is_stopped
    batch.end(end_of(ATTEMPTS[0]))
    assert [one.attempt for one in batch.take_open()] == [ATTEMPTS[1], ATTEMPTS[3]]
    report = batch.report()
    assert isinstance(report, ReportTasks)
    assert report.returned == (ATTEMPTS[2],)


def test_an_executor_that_starts_is_of_no_use_once_all_are_cancelled() -> None:
    batch, page = a_batch()
    batch.take_open()
    batch.cancel(ATTEMPTS[:3], page)
    assert not batch.is_unwanted(page)
    batch.cancel(ATTEMPTS, page)
    assert batch.is_unwanted(page)
    assert batch.take_open() == ()
    assert not batch.is_unwanted(page), "another offer's executor is none of its business"


def test_one_that_a_kill_has_hit_by_mistake_is_given_back() -> None:
    batch, page = a_batch()
    batch.take_open()
    page.take_turn(2)
    assert not batch.end(end_of(ATTEMPTS[1], FailureKind.CANCELLED))
    report = ReportTasks(worker_id=ANN, ends=(), returned=(ATTEMPTS[1],))
    assert batch.report() == report


def test_a_report_that_arrived_is_not_made_again_and_what_came_meanwhile_is() -> None:
    batch, _ = a_batch()
    batch.take_open()
    batch.end(end_of(ATTEMPTS[0]))
    batch.end(end_of(ATTEMPTS[1]))
    first = batch.report()
    batch.end(end_of(ATTEMPTS[2]))
    batch.give_back([ATTEMPTS[3]])
    assert first is not None
    batch.note_reported(first)
    second = ReportTasks(worker_id=ANN, ends=(end_of(ATTEMPTS[2]),), returned=(ATTEMPTS[3],))
    assert batch.report() == second
    batch.note_reported(second)
    assert batch.report() is None
