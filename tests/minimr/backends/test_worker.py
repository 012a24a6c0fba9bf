"""A worker that dies costs time, never data; one that comes back knows who it is."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import psutil
import pytest

from minigfs.errors import InvalidConfig
from minimr.backends.cluster_client import ClusterClient
from minimr.backends.task_logs import task_stem
from minimr.backends.worker_disk import WorkerDisk
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import CancelJob, JobSpec, JobState
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import HangingStart, WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.e2e

WORDS = [b"to be or not to be", b"that is the question", b"to sleep", b"perchance to dream"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path / "cluster") as cluster:
        yield cluster


def word_count(
    directory: Path, *, pause_ms: int = 0, reduce_pause_ms: int = 0, partitions: int = 2,
    job_id: str = "words-00000001",
) -> JobSpec:  # fmt: skip
    """Counts WORDS, one file and split per line; every map and reduce call may dawdle."""

    def map_words(line: bytes):
        time.sleep(pause_ms / 1000)
        for word in line.split():
            yield word, 1

    def add(key: bytes, values):
        time.sleep(reduce_pause_ms / 1000)
        yield key, sum(values)

    splits = []
    for index, line in enumerate(WORDS):
        source = directory / f"in-{index}.txt"
        source.write_bytes(line + b"\n")
        splits.append(split_of(source, index))
    job = Job("words", map=map_words, reduce=add)
    return spec_for(job, directory, tuple(splits), partitions=partitions, job_id=JobId(job_id))


def counted(spec: JobSpec) -> dict[str, int]:
    output = Path(spec.output.removeprefix("file://"))
    lines = [
        line for part in sorted(output.glob("part-*")) for line in part.read_text().split("\n")
    ]
    return {key: int(value) for key, _, value in (ln.partition("\t") for ln in lines if ln)}


EXPECTED: dict[str, int] = {}
for _line in WORDS:
    for _word in _line.decode().split():
        EXPECTED[_word] = EXPECTED.get(_word, 0) + 1


def test_two_workers_do_a_whole_job_and_clean_up(cluster: WorkerCluster, tmp_path: Path) -> None:
    cluster.start_worker(0)
    cluster.start_worker(1, host="there")
    spec = word_count(tmp_path)
    cluster.submit(spec)
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED
    assert status.counters["map.input_records"] == len(WORDS)
    assert not Path(spec.staging.removeprefix("file://")).exists()
    cluster.until(
        lambda: not list(cluster.directory.glob("worker-*/segments/*")),
        "segments of a finished job stay",
    )


def test_workers_are_reached_by_what_they_advertise(cluster: WorkerCluster, tmp_path: Path) -> None:
    """They listen on 127.0.0.1, and fetch from each other as they are on different hosts."""
    for number, host in enumerate(("here", "there")):
        cluster.start_worker(number, host=host, advertise="localhost:0")
    spec = word_count(tmp_path)
    cluster.submit(spec)
    assert cluster.wait(spec).state is JobState.DONE
    assert counted(spec) == EXPECTED
    for worker in cluster.alive_workers():
        listens = (Path(worker.dir) / "segment_address").read_text()
        assert worker.address == listens.replace("127.0.0.1", "localhost")


def test_a_killed_worker_costs_no_data(cluster: WorkerCluster, tmp_path: Path) -> None:
    cluster.start_worker(0)
    cluster.start_worker(1)
    spec = word_count(tmp_path, pause_ms=300)
    cluster.submit(spec)
    cluster.until(lambda: cluster.status(spec).maps_done >= 2, "no map is done")
    cluster.kill_worker(0)
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED


def test_a_worker_that_comes_back_keeps_its_name_and_its_segments(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)
    (before,) = cluster.alive_workers()
    spec = word_count(tmp_path, reduce_pause_ms=150)
    cluster.submit(spec)
    cluster.until(lambda: cluster.status(spec).maps_done == len(WORDS), "the maps do not end")
    cluster.kill_worker(0)
    cluster.start_worker(0)
    (after,) = cluster.alive_workers()
    assert after.id == before.id
    assert after.pid != before.pid
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED
    assert status.counters["map.attempts.launched"] == len(WORDS)  # no map ran again


def test_a_killed_executor_costs_one_attempt(cluster: WorkerCluster, tmp_path: Path) -> None:
    cluster.start_worker(0)
    spec = word_count(tmp_path, pause_ms=300)
    cluster.submit(spec)
    cluster.until(lambda: any(w.task for w in cluster.alive_workers()), "nothing runs")
    cluster.until(lambda: cluster.status(spec).maps_done >= 1, "no map is done")
    (worker,) = cluster.alive_workers()
    os.kill(worker.executor_pid, 9)
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED
    assert status.counters["map.attempts.failed"] == 1


def test_a_job_survives_the_master(cluster: WorkerCluster, tmp_path: Path) -> None:
    cluster.start_worker(0)
    spec = word_count(tmp_path, pause_ms=300)
    cluster.submit(spec)
    cluster.until(lambda: cluster.status(spec).maps_done >= 1, "no map is done")
    cluster.kill_master()
    cluster.start_master()
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED


def test_user_code_that_crashes_each_time_fails_the_job_with_the_reason(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)

    def crash(line: bytes):
        import os

        os.kill(os.getpid(), 11)
        return []

    source = tmp_path / "in.txt"
    source.write_bytes(b"x\n")
    spec = spec_for(Job("crash", map=crash), tmp_path, (split_of(source),), partitions=0)
    cluster.submit(spec)
    status = cluster.wait(spec)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert "SIGSEGV" in status.failure.error
    assert status.counters["map.attempts.failed"] == 4
    assert not Path(spec.output.removeprefix("file://")).exists()


def test_what_a_task_printed_is_kept_and_shown_after_the_job(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    cluster.start_worker(0)

    def talk(line: bytes):
        import os
        import sys

        print("said", line)
        print("complained", file=sys.stderr)
        os.system("echo from a child")
        yield line, 1

    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() + b"\n")
    splits = tuple(split_of(tmp_path / name, index) for index, name in enumerate(("one", "two")))
    spec = spec_for(Job("talk", map=talk), tmp_path, splits, partitions=0)
    cluster.submit(spec)
    assert cluster.wait(spec).state is JobState.DONE
    client = ClusterClient((cluster.master_address,), cluster.security)
    found = client.task_logs(spec.job_id)
    assert [log.attempt.split(".")[0] for _, log in found] == ["m-00000", "m-00001"]
    stem = task_stem("m-1")
    assert stem is not None
    ((worker, log),) = client.task_logs(spec.job_id, stem)
    assert worker.id == cluster.alive_workers()[0].id
    text = log.content.decode()
    assert "said b'two'" in text
    assert "complained" in text
    assert "from a child" in text
    client.close()


def test_cancel_ends_a_running_attempt_at_once(cluster: WorkerCluster, tmp_path: Path) -> None:
    cluster.start_worker(0)
    spec = word_count(tmp_path, pause_ms=60_000)
    cluster.submit(spec)
    cluster.until(lambda: any(w.task for w in cluster.alive_workers()), "nothing runs")
    cluster.link.call(CancelJob(job_id=spec.job_id))
    status = cluster.wait(spec)
    assert status.state is JobState.CANCELLED
    assert not Path(spec.staging.removeprefix("file://")).exists()


def test_cancel_ends_an_attempt_whose_executor_has_not_even_started(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    start = HangingStart(tmp_path / "start")
    cluster.start_worker(0, environment=start.environment)
    spec = word_count(tmp_path)
    cluster.submit(spec)
    cluster.until(lambda: any(w.task for w in cluster.alive_workers()), "nothing runs")
    (worker,) = cluster.alive_workers()
    cluster.link.call(CancelJob(job_id=spec.job_id))
    assert cluster.wait(spec).state is JobState.CANCELLED
    assert not psutil.pid_exists(worker.executor_pid)
    start.close()
    after = word_count(tmp_path, job_id="words-00000002")
    cluster.submit(after)
    assert cluster.wait(after).state is JobState.DONE, "the worker is of no more use"


def test_an_executor_that_hangs_while_it_starts_is_killed_and_its_task_done_again(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    start = HangingStart(tmp_path / "start")
    cluster.start_worker(0, environment=start.environment)
    spec = msgspec.structs.replace(word_count(tmp_path), progress_deadline_ms=2_000)
    cluster.submit(spec)
    cluster.until(lambda: any(w.task for w in cluster.alive_workers()), "nothing runs")
    (worker,) = cluster.alive_workers()
    cluster.until(lambda: not psutil.pid_exists(worker.executor_pid), "the executor lives on")
    assert cluster.status(spec).counters["map.attempts.failed"] == 1
    start.close()
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    assert counted(spec) == EXPECTED


def test_two_processes_cannot_be_one_worker(tmp_path: Path) -> None:
    first = WorkerDisk(tmp_path)
    with pytest.raises(InvalidConfig, match="belongs to a worker"):
        WorkerDisk(tmp_path)
    first.close()
    second = WorkerDisk(tmp_path)
    assert second.worker_id == first.worker_id
    second.close()
