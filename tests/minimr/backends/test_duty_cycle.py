"""Backup tasks on real processes: a worker that gets a tenth of the time, stopped and continued by
signals, holds nobody up; one map that is large does not count as a slow worker."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cloudpickle
import pytest

from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import JobSpec, JobState, JobStatus
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WORKER_COUNT = 4
RECORD_MS = 10
MAP_RECORDS = 60  # in each map: more than half a second
RUN_S, STOP_S = 0.01, 0.19  # one record in the time of twenty


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path_factory.mktemp("slow") / "cluster") as cluster:
        for number in range(WORKER_COUNT):
            cluster.start_worker(number, host=f"host-{number}")
        cluster.until(
            lambda: all(worker.executor_pid for worker in cluster.alive_workers()), "no executors"
        )
        yield cluster


def sleepy(line: bytes) -> Iterator[tuple[bytes, int]]:
    time.sleep(RECORD_MS / 1000)  # the work of a record
    yield line, 1


def job_of(directory: Path, record_counts: list[int], job_id: str) -> JobSpec:
    """One file, and so one map, for each number of records."""
    splits = []
    for index, count in enumerate(record_counts):
        source = directory / f"in-{index:02d}"
        source.write_bytes(b"%03d\n" % index * count)
        splits.append(split_of(source, index))
    seen = directory / "seen"
    seen.mkdir()

    def seen_by(line: bytes) -> Iterator[tuple[bytes, int]]:
        (seen / f"{line.decode()} {os.getpid()}").touch()
        return sleepy(line)

    return spec_for(
        Job("sleepy", map=seen_by), directory, tuple(splits), partitions=0, job_id=JobId(job_id)
    )


@contextmanager
def slowed(pid: int) -> Iterator[None]:
    """The process ``pid`` runs `RUN_S` and stands for `STOP_S`, again and again."""
    ended = threading.Event()

    def cycle() -> None:
        with suppress(ProcessLookupError):  # its attempt was cancelled
            while not ended.wait(RUN_S):
                os.kill(pid, signal.SIGSTOP)
                ended.wait(STOP_S)
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=cycle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def done(status: JobStatus, record_counts: list[int]) -> None:
    assert status.state is JobState.DONE, status.failure
    assert status.counters["map.input_records"] == sum(record_counts)
    assert status.counters["map.attempts.committed"] == len(record_counts)


def test_a_worker_stopped_nine_tenths_of_the_time_is_backed_up_and_its_attempt_is_ended(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    counts = [MAP_RECORDS] * 12
    spec = job_of(tmp_path, counts, "slow-00000001")
    cluster.submit(spec)
    cluster.until(
        lambda: len([w for w in cluster.alive_workers() if w.task]) == WORKER_COUNT, "not all work"
    )
    victim = cluster.alive_workers()[0]
    with slowed(victim.executor_pid):
        status = cluster.wait(spec)
    done(status, counts)
    assert status.counters["backup.launched"] >= 1
    assert status.counters["backup.won"] >= 1
    cluster.until(
        lambda: victim.executor_pid not in [w.executor_pid for w in cluster.alive_workers()],
        "the slow attempt goes on",
    )


def test_a_map_that_is_ten_times_as_large_gets_no_backup(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    counts = [400, *[50] * 12]
    spec = job_of(tmp_path, counts, "skew-00000001")
    cluster.submit(spec)
    status = cluster.wait(spec)
    done(status, counts)
    # On a busy machine one of the small ones may be slow in truth; the large one is not.
    assert len(list((tmp_path / "seen").glob("000 *"))) == 1, "executors that mapped it"
