"""How long jobs take, on a virtual clock: a killed worker, and reduces that begin early."""

import pytest

from minimr.config import SLOWSTART_PERMILLE, WORKER_DEAD_AFTER_MS
from minimr.messages import JobStatus
from tests.minimr.coordinator.harness import make_spec
from tests.minimr.coordinator.virtual_cluster import VirtualCluster

JOB_MS = 60_000
RESTART_MS = 3_000  # Ray brings a worker back within seconds


def makespan_ms(status: JobStatus) -> int:
    return status.ended_ms - status.submitted_ms


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_one_of_nine_workers_killed_costs_a_tenth_and_its_detection(share: float) -> None:
    """A job of a minute, 20 maps a worker; the worker comes back, with its disk."""
    spec = make_spec(maps=180, reduces=9, slowstart_permille=SLOWSTART_PERMILLE)

    def cluster() -> VirtualCluster:
        return VirtualCluster(9, (2_900,) * 180, fetch_ms=2, reduce_ms=1_000)

    undisturbed_ms = makespan_ms(cluster().run(spec))
    assert 0.9 * JOB_MS < undisturbed_ms < 1.1 * JOB_MS
    killed = cluster()
    killed.after(
        int(share * undisturbed_ms),
        lambda: killed.kill(killed.slots[4], back_after_ms=RESTART_MS),
    )
    assert makespan_ms(killed.run(spec)) <= 1.1 * undisturbed_ms + WORKER_DEAD_AFTER_MS


def early_and_late_ms(map_ms: tuple[int, ...], workers: int, reduces: int) -> tuple[int, int]:
    early, late = (
        makespan_ms(
            VirtualCluster(workers, map_ms, fetch_ms=50, reduce_ms=500).run(
                make_spec(maps=len(map_ms), reduces=reduces, slowstart_permille=slowstart)
            )
        )
        for slowstart in (SLOWSTART_PERMILLE, 1000)
    )
    return early, late


def test_reduces_that_begin_early_save_what_they_fetch_beside_the_last_maps() -> None:
    """64 maps of 2 s, the last one of 6: 15 workers fetch 63 outputs of 50 ms meanwhile."""
    early_ms, late_ms = early_and_late_ms((2_000,) * 63 + (6_000,), workers=16, reduces=15)
    assert late_ms - early_ms > 2_500


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_they_cost_nothing_where_they_gain_nothing(workers: int) -> None:
    early_ms, late_ms = early_and_late_ms((1_000,) * 48, workers=workers, reduces=workers)
    assert early_ms <= late_ms + 100
