"""Jobs on a real cluster give the same bytes, whatever is killed in the middle of a run."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import fsspec
import pytest

import minimr
from minimr.runner import JobHandle

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LINES = [f"line {number} of {number % 7} words\n".encode() for number in range(600)]
TEXT = b"".join(LINES)
SPLIT_BYTES = 1_000
PATIENCE_S = 60.0


def slow_words(line: bytes):
    time.sleep(0.004)
    for word in line.split():
        yield word, 1


SLOW = minimr.Job("slow-words", map=slow_words, combine=minimr.agg.sum, reduce=minimr.agg.sum)


def expected() -> dict[str, int]:
    return dict(Counter(word.decode() for word in TEXT.split()))


@pytest.fixture(scope="module")
def cluster() -> Iterator[minimr.LocalCluster]:
    with minimr.LocalCluster(workers=2, chunkservers=3, chunk_bytes=1024, hosts=2) as cluster:
        fs = fsspec.filesystem("minigfs", **cluster.storage_options)
        fs.makedirs("/in")
        fs.pipe_file("/in/text", TEXT)
        yield cluster


def start(cluster: minimr.LocalCluster, name: str) -> JobHandle:
    return cluster.submit(
        SLOW, input="minigfs:///in/text", output=f"minigfs:///{name}", reducers=3,
        split_size=SPLIT_BYTES,
    )  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


def until_three_maps_are_done(handle: JobHandle) -> None:
    def are_done() -> bool:
        status = handle.status()
        assert status.failure is None, status.failure
        return status.maps_done >= 3

    until(are_done)


def parts_of(cluster: minimr.LocalCluster, name: str) -> dict[str, bytes]:
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    return {path: fs.cat_file(path) for path in sorted(fs.glob(f"/{name}/part-*"))}


def check_answer(cluster: minimr.LocalCluster, handle: JobHandle, name: str) -> None:
    result = handle.wait()
    assert result.counters["map.input_records"] == len(LINES)
    parts = parts_of(cluster, name)
    assert len(parts) == 3
    lines = [line.split("\t") for text in parts.values() for line in text.decode().splitlines()]
    assert {key: int(value) for key, value in lines} == expected()
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    assert not [path for path in fs.ls("/", detail=False) if "_minimr" in path]


def test_a_job_on_the_cluster_equals_its_oracle(cluster: minimr.LocalCluster) -> None:
    check_answer(cluster, start(cluster, "plain"), "plain")


def kill(cluster: minimr.LocalCluster, victim: str) -> None:
    """Of an executor, the status is a moment old: it may have ended by itself since."""
    while True:
        status = cluster.status()
        busy = next((worker for worker in status.workers if worker.task), status.workers[0])
        pids = {
            "worker": busy.pid,
            "executor": busy.executor_pid,
            "chunkserver": status.chunkservers[0].pid,
        }
        try:
            return os.kill(pids[victim], signal.SIGKILL)
        except ProcessLookupError:
            assert victim == "executor"


@pytest.mark.parametrize("victim", ["worker", "executor", "chunkserver"])
def test_a_kill_in_mid_run_changes_no_byte(cluster: minimr.LocalCluster, victim: str) -> None:
    check_answer(cluster, start(cluster, f"before-{victim}"), f"before-{victim}")
    handle = start(cluster, f"after-{victim}")
    until_three_maps_are_done(handle)
    kill(cluster, victim)
    check_answer(cluster, handle, f"after-{victim}")
    before = parts_of(cluster, f"before-{victim}")
    after = parts_of(cluster, f"after-{victim}")
    assert list(before.values()) == list(after.values())
    if victim == "chunkserver":
        cluster.start_missing()
    until(lambda: len(cluster.status().workers) == 2 and len(cluster.status().chunkservers) == 3)


def test_a_job_goes_on_after_kill_9_of_the_whole_cluster(cluster: minimr.LocalCluster) -> None:
    done = start(cluster, "done")
    done.wait()
    handle = start(cluster, "interrupted")
    until_three_maps_are_done(handle)
    status = cluster.status()
    pids = [server.pid for server in (*status.masters, *status.chunkservers, *status.workers)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    cluster.start_missing()
    check_answer(cluster, handle, "interrupted")
    states = {job.job_id: job.state for job in cluster.status().jobs}
    assert states[done.job_id].value == "done"
    assert states[handle.job_id].value == "done"


class KeepListed:
    """Emits the words that stand in the job's file."""

    def setup(self) -> None:
        self.listed = set(minimr.file("listed.txt").read_bytes().split())

    def __call__(self, line: bytes):
        return [(word, 1) for word in line.split() if word in self.listed]


@pytest.mark.parametrize("place", ["this machine", "minigfs"])
def test_a_broadcast_file_reaches_every_task_on_every_host(
    cluster: minimr.LocalCluster, tmp_path: Path, place: str
) -> None:
    listed = b"line 3 599 absent"
    if place == "minigfs":
        url = "minigfs:///listed.txt"
        fsspec.filesystem("minigfs", **cluster.storage_options).pipe_file("/listed.txt", listed)
    else:
        url = str(tmp_path / "listed.txt")
        (tmp_path / "listed.txt").write_bytes(listed)
    output = f"kept-{place.partition(' ')[0]}"
    job = minimr.Job("kept", map=KeepListed(), reduce=minimr.agg.sum, files=(url,))
    handle = cluster.submit(
        job, input="minigfs:///in/text", output=f"minigfs:///{output}", split_size=SPLIT_BYTES
    )
    if place != "minigfs":
        (tmp_path / "listed.txt").unlink()  # tasks read the copy that came with the job
    result = handle.wait()
    assert result.counters["map.attempts.committed"] > 10
    lines = b"".join(parts_of(cluster, output).values()).decode().splitlines()
    words = expected()
    assert dict(line.split("\t") for line in lines) == {
        word: str(words[word]) for word in ("line", "3", "599")
    }


def test_a_user_error_fails_the_job_with_the_record_and_leaves_nothing(
    cluster: minimr.LocalCluster,
) -> None:
    def picky(line: bytes):
        if line.startswith(b"line 77 "):
            raise ValueError("not this one")
        return []

    job = minimr.Job("picky", map=picky, reduce=minimr.agg.sum)
    with pytest.raises(minimr.MinimrError, match="not this one") as caught:
        cluster.run(job, input="minigfs:///in/text", output="minigfs:///never")
    assert "line 77" in str(caught.value)
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    assert not fs.exists("/never")
    assert not [path for path in fs.ls("/", detail=False) if "_minimr" in path]


def test_a_small_job_on_a_running_cluster_takes_less_than_two_seconds(
    cluster: minimr.LocalCluster,
) -> None:
    job = minimr.Job("small", map=lambda line: [(line[:6], 1)], reduce=minimr.agg.sum)
    until(lambda: all(worker.executor_pid for worker in cluster.status().workers))
    took_ms = []
    for number in range(3):  # the machine may be busy with something else once
        result = cluster.run(job, input="minigfs:///in/text", output=f"minigfs:///small-{number}")
        took_ms.append(result.phases_ms["total"])
    assert min(took_ms) < 2_000
