"""Hundreds of short tasks on real workers: offered together, each counted and logged by itself."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest

from minimr.backends.cluster_client import ClusterClient
from minimr.backends.task_logs import LOG_BYTES_MAX, LOG_FILE_BYTES_MAX
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import JobSpec, JobState, JobStatus
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import HangingStart, Hold, WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.e2e

MAPS = 250
SPECIAL = b"000200"  # late enough to lie in an offer of several


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path / "cluster") as cluster:
        yield cluster


def numbers(
    directory: Path, act: Callable[[], None] = lambda: None, special: bytes = SPECIAL
) -> JobSpec:
    """One map a number; that of ``special`` acts first, the first time that it runs."""
    marker = directory / "was-there"

    def map_number(line: bytes):
        if line == special and not marker.exists():
            marker.touch()
            act()
        if line.endswith(b"7"):
            print("seven in", line.decode())
        yield line, 1

    splits = []
    for index in range(MAPS):
        source = directory / f"in-{index}.txt"
        source.write_bytes(b"%06d\n" % index)
        splits.append(split_of(source, index))
    job = Job("numbers", map=map_number, reduce=lambda key, values: [(key, sum(values))])
    return spec_for(job, directory, tuple(splits), job_id=JobId("numbers-00000001"))


def ends_together(cluster: WorkerCluster) -> list[int]:
    """How many tasks each entry of the log ended that ended more than one."""
    counts = [
        sum(end["type"] != "lose-attempts" for end in command["ends"])
        for command in cluster.logged("end-attempts")
    ]
    return [count for count in counts if count > 1]


def given_back(cluster: WorkerCluster) -> int:
    """How many attempts workers gave back."""
    return sum(
        len(end["attempts"])
        for command in cluster.logged("end-attempts")
        for end in command["ends"]
        if end["type"] == "lose-attempts" and end["is_set_back"]
    )


def assert_done_exactly(spec: JobSpec, status: JobStatus) -> None:
    assert status.state is JobState.DONE, status.failure
    output = Path(spec.output.removeprefix("file://"))
    lines = b"".join(part.read_bytes() for part in sorted(output.glob("part-*"))).splitlines()
    assert sorted(lines) == [b"%06d\t1" % index for index in range(MAPS)]
    assert status.counters["map.input_records"] == MAPS
    assert status.counters["map.attempts.committed"] == MAPS


def test_each_task_has_a_log_of_its_own_that_is_bounded_and_silent_ones_leave_none(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)
    cluster.start_worker(1)
    spec = numbers(tmp_path, lambda: print("x" * (LOG_FILE_BYTES_MAX + 1)))
    cluster.submit(spec)
    assert_done_exactly(spec, cluster.wait(spec))
    client = ClusterClient((cluster.master_address,), cluster.security)
    logs = [log for _, log in client.task_logs(spec.job_id)]
    client.close()
    said = {log.attempt.split(".")[0]: log.content for log in logs}
    sevens = [index for index in range(MAPS) if index % 10 == 7]
    tail = b"x" * (LOG_BYTES_MAX - 1) + b"\n"
    assert said.pop("m-00200") == tail
    assert said == {f"m-{n:05d}": b"seven in %06d\n" % n for n in sevens}
    files = list(cluster.directory.glob("worker-*/logs/*/*"))
    assert max(file.stat().st_size for file in files) <= LOG_FILE_BYTES_MAX
    assert max(ends_together(cluster)) > 5


def test_a_task_that_kills_its_process_costs_none_of_those_offered_with_it(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)
    spec = numbers(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    cluster.submit(spec)
    status = cluster.wait(spec)
    assert_done_exactly(spec, status)
    assert status.counters["map.attempts.failed"] == 1
    assert max(ends_together(cluster)) > 5


def test_others_do_not_wait_behind_a_task_that_takes_long_after_all(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)
    cluster.start_worker(1)
    hold = Hold(tmp_path / "hold")
    spec = numbers(tmp_path, lambda: _wait_for(tmp_path / "hold"))
    spec = msgspec.structs.replace(spec, backup_policy="none")
    cluster.submit(spec)
    cluster.until(lambda: cluster.status(spec).maps_done >= MAPS - 1, "they wait behind one")
    hold.close()
    status = cluster.wait(spec)
    assert_done_exactly(spec, status)
    assert status.counters["map.attempts.failed"] == 0
    assert given_back(cluster) > 0


def test_others_do_not_wait_behind_an_executor_that_hangs_while_it_starts(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)
    hold = Hold(tmp_path / "hold")
    spec = numbers(tmp_path, lambda: _wait_for(tmp_path / "hold"), special=b"000050")
    spec = msgspec.structs.replace(spec, backup_policy="none")
    cluster.submit(spec)
    cluster.until((tmp_path / "was-there").exists, "the first worker does not get there")
    start = HangingStart(tmp_path / "start")
    cluster.start_worker(1, environment=start.environment)
    cluster.until(lambda: all(w.task for w in cluster.alive_workers()), "it is offered nothing")
    hold.close()
    cluster.until(lambda: cluster.status(spec).maps_done >= MAPS - 1, "they wait behind one")
    start.close()
    status = cluster.wait(spec)
    assert_done_exactly(spec, status)
    assert status.counters["map.attempts.failed"] == 0
    assert given_back(cluster) > 1


def _wait_for(hold: Path) -> None:
    with hold.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def test_a_worker_killed_with_tasks_in_hand_costs_no_data(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    """It runs one of several tasks that it was offered together when it is killed."""
    cluster.start_worker(0)
    spec = numbers(tmp_path, lambda: _wait_for(tmp_path / "hold"))
    with Hold(tmp_path / "hold"):
        cluster.submit(spec)
        cluster.until((tmp_path / "was-there").exists, "it does not get there")
        assert cluster.status(spec).maps_done < MAPS
        cluster.kill_worker(0)
    cluster.start_worker(1)
    assert_done_exactly(spec, cluster.wait(spec))
    lost = cluster.logged("lose-attempts")[0]["attempts"]  # the next command: what it had stored
    assert len(lost) + given_back(cluster) > 1
