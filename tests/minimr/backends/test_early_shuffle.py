"""A reduce on a real worker begins while a map runs, and goes on when a map's output is lost."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest

from minimr.job import Job
from minimr.messages import JobSpec, JobState, WorkerReport
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path / "cluster") as cluster:
        yield cluster


def gated(directory: Path) -> JobSpec:
    """Three maps; the last one waits for a file ``go``."""
    gate = str(directory / "go")

    def map_line(line: bytes):
        import time
        from pathlib import Path

        while line == b"last" and not Path(gate).exists():
            time.sleep(0.02)
        yield line, 1

    splits = []
    for index, line in enumerate((b"one", b"two", b"last")):
        (directory / f"in-{index}").write_bytes(line + b"\n")
        splits.append(split_of(directory / f"in-{index}", index))
    job = Job("gated", map=map_line, reduce=lambda key, values: [(key, sum(values))])
    spec = spec_for(job, directory, tuple(splits))
    return msgspec.structs.replace(spec, slowstart_permille=1, backup_policy="none")


def counters_when(cluster: WorkerCluster, spec: JobSpec, wanted: dict[str, int]) -> None:
    """Wait until the job's counters are these."""

    def are_there() -> bool:
        status = cluster.status(spec)
        assert not status.state.is_final, status.failure
        return wanted.items() <= status.counters.items()

    cluster.until(are_there, f"counters {wanted} do not come")


def check_done(cluster: WorkerCluster, spec: JobSpec, directory: Path) -> dict[str, int]:
    (directory / "go").touch()
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    part = directory / "out" / "part-r-00000"
    assert part.read_bytes() == b"last\t1\none\t1\ntwo\t1\n"
    return status.counters


def test_a_reduce_that_waits_keeps_what_it_has_when_a_worker_dies(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    for number in range(3):
        cluster.start_worker(number, host=f"host-{number}")
    spec = gated(tmp_path)
    cluster.submit(spec)
    counters_when(cluster, spec, {"map.attempts.committed": 2, "reduce.attempts.launched": 1})
    cluster.start_worker(3, host="host-3")
    idle = [number for number in range(3) if not report_of(cluster, number).task]
    assert len(idle) == 1, "one maps, one reduces, and one has mapped"
    cluster.kill_worker(idle[0])
    # It was found dead, and its map has run again elsewhere: else the job might end before that.
    rerun = {"map.attempts.launched": 4, "map.attempts.lost": 1, "map.attempts.committed": 2}
    counters_when(cluster, spec, rerun)
    counters = check_done(cluster, spec, tmp_path)
    assert counters["reduce.attempts.launched"] == 1
    assert counters["map.attempts.launched"] == 4


def test_a_map_gets_the_slot_of_a_reduce_that_waits_for_it(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    for number in range(2):
        cluster.start_worker(number, host=f"host-{number}")
    spec = gated(tmp_path)
    cluster.submit(spec)
    counters_when(cluster, spec, {"map.attempts.committed": 2, "reduce.attempts.launched": 1})
    (mapper,) = [number for number in range(2) if "/m-" in report_of(cluster, number).task]
    began = time.monotonic()
    cluster.kill_worker(mapper)
    counters_when(cluster, spec, {"reduce.attempts.set_back": 1})
    assert time.monotonic() - began < 20
    counters = check_done(cluster, spec, tmp_path)
    ended = ("committed", "set_back", "lost", "failed")
    assert counters["reduce.attempts.committed"] == 1
    assert counters["reduce.attempts.launched"] == sum(
        counters[f"reduce.attempts.{end}"] for end in ended
    )
    assert counters["reduce.attempts.failed"] == 0


def report_of(cluster: WorkerCluster, number: int) -> WorkerReport:
    pid = cluster.workers[number].pid
    return next(worker for worker in cluster.alive_workers() if worker.pid == pid)
