"""The marks of backup tasks, on the production coordinator and a virtual clock."""

import pytest

from minimr.bench.stragglers import Scenario, measure, ratios, run_scenario

USUAL = (1,) * 16
SLOW = (10, *USUAL[1:])


@pytest.mark.parametrize("task_ms", [250, 1_000, 5_000, 30_000])
def test_one_slow_worker_of_sixteen_costs_a_third_of_the_time_at_most(task_ms: int) -> None:
    marks = ratios(measure(workers=16, maps=64, task_ms=task_ms, slowdown=10))
    assert marks.none_over_default >= 1.44
    assert marks.default_over_undisturbed <= 1.30
    assert marks.backup_slot_share <= 0.05
    assert marks.extra_slot_share <= (0.05 if task_ms >= 1_000 else 0.07)
    assert marks.skew_backups == 0


@pytest.mark.parametrize("step_count", [0, 1, 64])
def test_workers_that_cannot_say_how_far_they_are_are_found_slow_all_the_same(
    step_count: int,
) -> None:
    scenario = Scenario(task_ms=(1_000,) * 64, slowness=SLOW, policy="rate", step_count=step_count)
    figures = run_scenario(scenario, "slow")
    assert figures.makespan_s <= 4.02 * 1.30
    assert figures.backups_launched == figures.backups_won == 1


@pytest.mark.parametrize("factor", [2, 5, 50])
def test_more_input_on_a_usual_worker_gets_no_backup(factor: int) -> None:
    sizes = tuple(500 * (factor if index == 63 else 1) for index in range(64))
    figures = run_scenario(Scenario(task_ms=sizes, slowness=USUAL, policy="rate"), "skew")
    assert figures.backups_launched == 0


def test_five_slow_workers_are_all_backed_up() -> None:
    slowness = (10,) * 5 + (1,) * 11
    with_backups = run_scenario(
        Scenario(task_ms=(2_000,) * 64, slowness=slowness, policy="rate"), "slow"
    )
    without = run_scenario(
        Scenario(task_ms=(2_000,) * 64, slowness=slowness, policy="none"), "slow"
    )
    assert without.makespan_s >= 1.44 * with_backups.makespan_s


# What sixteen executors that started at once on two cores took, measured: most are late.
STARTS = (2650, 2100, 2380, 2480, 3100, 2440, 2300, 2420, 2520, 2280, 2900, 2370, 2230, 2050, 2950)
LATE = (*STARTS, 4_900)


@pytest.mark.parametrize("small_ms", [100, 300, 1_000])
@pytest.mark.parametrize("order", [1, -1])
def test_an_executor_that_starts_late_is_no_slow_worker(small_ms: int, order: int) -> None:
    sizes = tuple(small_ms * (8 if index % 8 == 0 else 1) for index in range(64))
    scenario = Scenario(task_ms=sizes, slowness=USUAL, policy="rate", start_ms=LATE[::order])
    assert run_scenario(scenario, "skew").backups_launched == 0


@pytest.mark.parametrize("start_ms", [3_000, 6_000, 9_000, 12_000, 26_500])
def test_a_slow_worker_is_found_however_late_its_executor_starts(start_ms: int) -> None:
    starts = (start_ms, *LATE[1:])
    tasks = (2_000,) * 64
    figures = run_scenario(
        Scenario(task_ms=tasks, slowness=SLOW, policy="rate", start_ms=starts), "slow"
    )
    usual = run_scenario(
        Scenario(task_ms=tasks, slowness=USUAL, policy="none", start_ms=LATE), "undisturbed"
    )
    assert figures.makespan_s <= 1.30 * usual.makespan_s
    assert figures.backups_won == figures.backups_launched == 1
