"""url-count and renames while masters die, sleep, or all of the cluster is killed: the same bytes.

What a job must come to is what the same command makes of the same file on this machine alone, and
the oracle says that this is right. Leaders die at moments that are drawn (``MASTERS_SEED``).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import minimr
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, load_state, running_pid
from minigfs.errors import MinigfsError
from minimr.cluster.status import MasterLine
from minimr.datasets import access_log
from tests.oracles import read_counts, url_counts

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

SEED = int(os.environ.get("MASTERS_SEED", "1"))
LOG_BYTES = 2_000_000
SPLIT_BYTES = 16 * 1024
REDUCERS = 3
RENAMES = 1_000
CLIENTS = 4
PATIENCE_S = 60.0
STALL_S_MAX = 3.0


class Work:
    """The cluster, and the job's input and answer."""

    def __init__(self, cluster: minimr.LocalCluster, folder: Path) -> None:
        self.cluster = cluster
        self.config = ClientConfig.discover(home=str(cluster.home), timeout_ms=30_000)
        self.client = MinigfsClient(self.config)
        log = folder / "access.log"
        access_log.write(str(log), size_bytes=LOG_BYTES, seed=SEED)
        content = log.read_bytes()
        with self.client.open_writer("/access.log") as writer:
            writer.write(content)
        alone = self.run(f"file://{log}", f"file://{folder}/out", "--backend", "local")
        self.counters = alone.result()
        parts = sorted((folder / "out").glob("part-*"))
        self.answer = [part.read_bytes() for part in parts]
        assert read_counts(self.answer) == url_counts(content)[0]
        self.map_count = self.counters["map.attempts.committed"]

    def run(self, source: str, target: str, *options: str) -> "Command":
        return Command(
            self.cluster.home,
            *("run", "url-count", "--input", source, "--output", target, "--json"),
            *("--reducers", str(REDUCERS), "--split-size", str(SPLIT_BYTES), *options),
        )

    def start(self, name: str) -> "Command":
        return self.run("minigfs:///access.log", f"minigfs:///{name}")

    def leader(self) -> MasterLine:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            leading = [one for one in self.cluster.status().masters if one.role == "leader"]
            if leading:
                return max(leading, key=lambda one: one.term)
            assert time.monotonic() < deadline, "nobody leads"
            time.sleep(0.02)

    def all_pids(self) -> list[int]:
        """Of everything `up` has started, the keeper of Ray before what it would start again."""
        state = load_state(ClusterLayout(self.cluster.home))
        assert state is not None
        started = [running_pid(record) for record in reversed(state.processes)]
        workers = self.cluster.status().workers
        return [
            *(pid for pid in started if pid is not None),
            *(worker.pid for worker in workers),
            *(worker.executor_pid for worker in workers if worker.executor_pid),
        ]

    def until_maps_are_done(self, name: str, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not any(
            job.output == f"minigfs:///{name}" and job.maps_done >= count
            for job in self.cluster.status().jobs
        ):
            assert time.monotonic() < deadline, self.cluster.status().jobs
            time.sleep(0.02)

    def check(self, command: "Command", name: str, *, lost: int | None = None) -> None:
        """The same bytes, every task committed once; ``lost``: so many attempts at most, beside
        the one of two that a backup costs."""
        counters = command.result()
        paths = sorted(
            status.path
            for status in self.client.list_directory(f"/{name}")
            if "/part-" in status.path
        )
        parts = []
        for path in paths:
            with self.client.open_reader(path) as reader:
                parts.append(bytes(reader.read_at(0, reader.size_bytes)))
        assert parts == self.answer
        for counter in ("input_records", "attempts.committed"):
            assert counters[f"map.{counter}"] == self.counters[f"map.{counter}"]
        assert counters["reduce.attempts.committed"] == REDUCERS
        assert counters.get("map.attempts.failed", 0) == 0
        if lost is not None:
            backups = counters.get("backup.launched", 0)  # a slow machine may make some
            assert counters.get("map.attempts.lost", 0) <= lost + backups


class Command:
    """A `minimr` command that runs beside the test."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minimr", *arguments],
            env={**os.environ, "MINIMR_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> dict[str, int]:
        """The counters of the job, which must end well."""
        out, err = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, err
        counters = json.loads(out)["counters"]
        assert isinstance(counters, dict)
        return counters


class Renamer(threading.Thread):
    """Moves one file of its own from name to name, by a client of its own."""

    def __init__(self, work: Work, folder: str) -> None:
        super().__init__(name=folder)
        self.folder = folder
        self.worst_s = 0.0
        self.errors: list[MinigfsError] = []
        self.count = 0
        self._client = MinigfsClient(work.config)
        self._client.make_directory(folder)
        with self._client.open_writer(f"{folder}/0") as writer:
            writer.write(folder.encode())

    def run(self) -> None:
        for number in range(RENAMES // CLIENTS):
            began = time.monotonic()
            try:
                self._client.rename(f"{self.folder}/{number}", f"{self.folder}/{number + 1}")
            except MinigfsError as error:
                self.errors.append(error)
                return
            self.count += 1
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            time.sleep(0.02)  # so that they last as long as the faults

    def check(self) -> None:
        assert not self.errors, self.errors
        names = [status.path for status in self._client.list_directory(self.folder)]
        assert names == [f"{self.folder}/{RENAMES // CLIENTS}"]
        with self._client.open_reader(names[0]) as reader:
            assert bytes(reader.read_at(0, reader.size_bytes)) == self.folder.encode()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    with minimr.LocalCluster(workers=2, chunkservers=3, masters=3, chunk_bytes=65536) as cluster:
        yield Work(cluster, tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def _whole_again(work: Work) -> Iterator[None]:
    yield
    work.cluster.start_missing()


def disturb(work: Work, rng: Random, how: str) -> None:
    """The leader dies and is started again, or sleeps for five seconds."""
    leader = work.leader()
    if how == "kill":
        os.kill(leader.pid, signal.SIGKILL)
        time.sleep(rng.uniform(0.2, 1.5))
        work.cluster.start_missing()
        time.sleep(rng.uniform(0.0, 1.0))
        return
    os.kill(leader.pid, signal.SIGSTOP)
    try:
        time.sleep(5.0)
    finally:
        os.kill(leader.pid, signal.SIGCONT)


@pytest.mark.parametrize(("how", "times"), [("kill", 2), ("sleep", 1)])
def test_a_job_and_a_thousand_renames_while_leaders_die_or_sleep(
    work: Work, how: str, times: int
) -> None:
    ride_through(work, f"{how}-{SEED}", how, times, Random(SEED))


def ride_through(work: Work, name: str, how: str, times: int, rng: Random) -> None:
    renamers = [Renamer(work, f"/renames-{name}-{number}") for number in range(CLIENTS)]
    job = work.start(name)
    for renamer in renamers:
        renamer.start()
    work.until_maps_are_done(name, rng.randrange(1, work.map_count // 2))
    assert not job.has_ended
    for _ in range(times):
        disturb(work, rng, how)
    for renamer in renamers:
        renamer.join()
        renamer.check()
    work.check(job, name, lost=0)
    worst_s = max(renamer.worst_s for renamer in renamers)
    print(f"worst stall of a rename: {worst_s:.2f} s")
    assert worst_s < STALL_S_MAX


def test_the_whole_cluster_killed_in_mid_job_goes_on_after_up(work: Work) -> None:
    job = work.start("all-killed")
    work.until_maps_are_done("all-killed", work.map_count // 4)
    for pid in work.all_pids():
        os.kill(pid, signal.SIGKILL)
    assert not job.has_ended
    work.cluster.start_missing()
    work.check(job, "all-killed")
