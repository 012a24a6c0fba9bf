"""Which executor an attempt gets: never one that knew another job, and a warm one if there is."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from minimr.backends.executor_slot import ExecutorSlot
from minimr.ids import JobId

ONE, TWO, THREE = JobId("one-1"), JobId("two-1"), JobId("three-1")


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[ExecutorSlot]:
    slot = ExecutorSlot(log_file=tmp_path / "log", environment={})
    yield slot
    slot.close()


def use(slot: ExecutorSlot, job_id: JobId) -> int:
    pid = slot.acquire(job_id).pid
    slot.release()
    return pid


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_the_first_job_gets_the_spare_and_keeps_it(slot: ExecutorSlot) -> None:
    slot.warm_spare()
    spare = slot.pid
    assert spare != 0
    assert use(slot, ONE) == spare
    assert use(slot, ONE) == spare


def test_two_jobs_never_share_an_executor(slot: ExecutorSlot) -> None:
    first = use(slot, ONE)
    second = use(slot, TWO)
    assert first != second
    assert use(slot, ONE) == first


def test_an_executor_ends_with_its_job_and_a_spare_takes_its_place(slot: ExecutorSlot) -> None:
    used = use(slot, ONE)
    slot.tend([ONE])
    assert not is_alive(used)
    assert slot.jobs == ()
    assert slot.pid not in (0, used)


def test_the_busy_executor_is_not_taken_away_from_an_ended_job(slot: ExecutorSlot) -> None:
    pid = slot.acquire(ONE).pid
    slot.tend([ONE])
    assert is_alive(pid)
    slot.release()


def test_a_killed_spare_is_replaced(slot: ExecutorSlot) -> None:
    slot.warm_spare()
    killed = slot.pid
    os.kill(killed, signal.SIGKILL)
    psutil.Process(killed).wait(10)  # which reaps it, as any code of the process might
    slot.tend([])
    assert slot.pid not in (0, killed)
    assert use(slot, ONE) != killed


def test_idle_executors_of_many_jobs_do_not_pile_up(slot: ExecutorSlot) -> None:
    pids = [use(slot, job_id) for job_id in (ONE, TWO, THREE)]
    assert slot.jobs == (TWO, THREE)
    assert not is_alive(pids[0])


def test_close_ends_the_busy_executor_and_all_others(slot: ExecutorSlot) -> None:
    idle = use(slot, ONE)
    busy = slot.acquire(TWO).pid
    slot.close()
    slot.release()
    assert not is_alive(idle)
    assert not is_alive(busy)
    assert slot.pid == 0


def test_only_an_executor_whose_work_is_unwanted_is_killed(slot: ExecutorSlot) -> None:
    executor = slot.acquire(ONE)
    executor.page.take_turn(2)
    slot.cancel(lambda page: page.turn == 1)
    assert is_alive(executor.pid)
    slot.cancel(lambda page: page.turn == 2)
    psutil.wait_procs([psutil.Process(executor.pid)], timeout=10)
    assert not is_alive(executor.pid)
    slot.release()


def test_what_an_executor_ran_last_is_not_taken_for_what_it_runs(slot: ExecutorSlot) -> None:
    executor = slot.acquire(JobId("one"))
    executor.page.take_turn(3)
    executor.page.begin()
    slot.release()
    assert slot.page is None
    assert slot.acquire(JobId("one")) is executor
    assert slot.page is not None
    assert (slot.page.turn, slot.page.worked_ms) == (0, 0)
    slot.release()
