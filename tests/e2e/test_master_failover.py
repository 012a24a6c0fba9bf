"""A job rides through the death of the leading master: same bytes, nothing committed run again."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

import cloudpickle
import fsspec
import pytest

import minimr
from minimr.cluster.status import MasterLine
from minimr.runner import JobHandle

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LINES = [f"line {number} of {number % 7} words\n".encode() for number in range(600)]
TEXT = b"".join(LINES)
SPLIT_BYTES = 1_000
MAPS = -(-len(TEXT) // SPLIT_BYTES)
REDUCES = 3
PATIENCE_S = 60.0
STALL_S_MAX = 3.0


def slow_words(line: bytes):
    time.sleep(0.004)
    for word in line.split():
        yield word, 1


SLOW = minimr.Job("slow-words", map=slow_words, combine=minimr.agg.sum, reduce=minimr.agg.sum)


@pytest.fixture(scope="module")
def cluster() -> Iterator[minimr.LocalCluster]:
    with minimr.LocalCluster(workers=2, chunkservers=3, masters=3, chunk_bytes=1024) as cluster:
        fs = fsspec.filesystem("minigfs", **cluster.storage_options)
        fs.makedirs("/in")
        fs.pipe_file("/in/text", TEXT)
        yield cluster


@pytest.fixture(autouse=True)
def _whole_again(cluster: minimr.LocalCluster) -> Iterator[None]:
    yield
    cluster.start_missing()


def start(cluster: minimr.LocalCluster, name: str) -> JobHandle:
    return cluster.submit(
        SLOW, input="minigfs:///in/text", output=f"minigfs:///{name}", reducers=REDUCES,
        split_size=SPLIT_BYTES,
    )  # fmt: skip


def leader(cluster: minimr.LocalCluster) -> MasterLine:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        leading = [one for one in cluster.status().masters if one.role == "leader"]
        if leading:
            return max(leading, key=lambda one: one.term)
        assert time.monotonic() < deadline, "nobody leads"
        time.sleep(0.02)


def until_maps_are_done(handle: JobHandle, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while handle.status().maps_done < count:
        assert time.monotonic() < deadline, handle.status()
        time.sleep(0.02)


def check_answer(cluster: minimr.LocalCluster, handle: JobHandle, name: str) -> None:
    """The oracle's counts, and every task committed once though its leader died."""
    counters = handle.wait().counters
    assert counters["map.input_records"] == len(LINES)
    assert counters["map.attempts.committed"] == MAPS
    assert counters["reduce.attempts.committed"] == REDUCES
    assert counters.get("map.attempts.failed", 0) == 0
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    text = b"".join(fs.cat_file(path) for path in sorted(fs.glob(f"/{name}/part-*")))
    pairs = [line.split("\t") for line in text.decode().splitlines()]
    assert {word: int(count) for word, count in pairs} == Counter(TEXT.decode().split())
    assert not [path for path in fs.ls("/", detail=False) if "_minimr" in path]


@pytest.mark.parametrize("done", [1, 8, MAPS])
def test_kill_9_of_the_leader_costs_a_job_nothing_that_was_committed(
    cluster: minimr.LocalCluster, done: int
) -> None:
    name = f"killed-{done}"
    handle = start(cluster, name)
    until_maps_are_done(handle, done)
    os.kill(leader(cluster).pid, signal.SIGKILL)
    check_answer(cluster, handle, name)
    # Whoever ran when the leader died was adopted where it ran, not started again.
    assert handle.status().counters.get("map.attempts.lost", 0) == 0


def test_a_leader_that_sleeps_and_wakes_up_again_does_no_harm(
    cluster: minimr.LocalCluster,
) -> None:
    handle = start(cluster, "stopped")
    until_maps_are_done(handle, 4)
    stopped = leader(cluster)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        time.sleep(5)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    check_answer(cluster, handle, "stopped")


def test_a_thousand_renames_while_leaders_are_killed_happen_once_each_and_stall_shortly(
    cluster: minimr.LocalCluster,
) -> None:
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    fs.makedirs("/renames")
    fs.pipe_file("/renames/0", b"travels")
    worst_s = 0.0
    for number in range(1_000):
        if number in (300, 700):
            os.kill(leader(cluster).pid, signal.SIGKILL)
        began = time.monotonic()
        fs.mv(f"/renames/{number}", f"/renames/{number + 1}")
        worst_s = max(worst_s, time.monotonic() - began)
        if number == 400:
            cluster.start_missing()
    assert fs.ls("/renames", detail=False) == ["/renames/1000"]
    assert fs.cat_file("/renames/1000") == b"travels"
    assert worst_s < STALL_S_MAX
