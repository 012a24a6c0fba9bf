"""User code that hangs or takes all memory, workers that are stopped: the job goes on or fails
by name, and others do not suffer."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest

from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import JobState
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path_factory.mktemp("faults") / "cluster") as cluster:
        cluster.start_worker(0)
        cluster.start_worker(1)
        yield cluster


def keep(line: bytes) -> Iterator[tuple[bytes, int]]:
    yield line, 1


def test_an_attempt_that_hangs_is_given_up_and_done_elsewhere(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    marker = str(tmp_path / "hung before")

    def hang_once(line: bytes):
        import os
        import time

        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            yield line, 1
        else:
            time.sleep(600)

    (tmp_path / "in").write_bytes(b"a\n")
    spec = spec_for(
        Job("hang", map=hang_once), tmp_path, (split_of(tmp_path / "in"),), partitions=0,
        job_id=JobId("hang-00000001"),
    )  # fmt: skip
    spec = msgspec.structs.replace(spec, progress_deadline_ms=5_000, backup_policy="none")
    cluster.submit(spec)  # the deadline is longer than an executor takes to start
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert status.counters["map.attempts.failed"] == 1


def test_a_function_without_bound_fails_its_job_by_name_and_no_other(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    def hoard(line: bytes):
        held = []
        while True:
            held.append(bytearray(64 << 20))

    (tmp_path / "in").write_bytes(b"a\n")
    splits = (split_of(tmp_path / "in"),)
    (tmp_path / "hoard").mkdir()
    (tmp_path / "other").mkdir()
    hog = spec_for(
        Job("hoard", map=hoard), tmp_path / "hoard", splits, partitions=0,
        job_id=JobId("hoard-00000001"),
    )  # fmt: skip
    hog = msgspec.structs.replace(hog, memory_bytes=256 << 20)
    other = spec_for(
        Job("keep", map=keep), tmp_path / "other", splits, partitions=0,
        job_id=JobId("keep-00000001"),
    )  # fmt: skip
    cluster.submit(hog)
    cluster.submit(other)
    assert cluster.wait(other).state is JobState.DONE
    status = cluster.wait(hog)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert str(status.failed_task) == "hoard-00000001/m-00000"
    assert "MemoryError" in status.failure.error or "--memory" in status.failure.error
    assert all(worker.alive for worker in cluster.alive_workers())


def test_a_worker_that_is_stopped_is_given_up_and_welcome_again(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    def slow(line: bytes):
        import time

        time.sleep(0.5)
        yield line, 1

    for index in range(6):
        (tmp_path / f"{index}").write_bytes(b"a\n")
    splits = tuple(split_of(tmp_path / f"{index}", index) for index in range(6))
    spec = spec_for(
        Job("slow", map=slow), tmp_path, splits, partitions=0, job_id=JobId("slow-00000001")
    )
    cluster.submit(spec)
    cluster.until(lambda: len([w for w in cluster.alive_workers() if w.task]) == 2, "not both work")
    stopped = cluster.alive_workers()[0].pid
    os.kill(stopped, signal.SIGSTOP)
    try:
        began_ns = time.monotonic_ns()
        status = cluster.wait(spec)
        took_s = (time.monotonic_ns() - began_ns) / 1e9
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert status.state is JobState.DONE, status.failure
    assert status.counters["map.attempts.committed"] == 6
    assert took_s < 25, "five seconds until it counts as dead, and the work"
    cluster.until(lambda: len(cluster.alive_workers()) == 2, "it does not come back")
