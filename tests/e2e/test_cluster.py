"""A whole cluster on this machine, Ray and all: it starts, shows itself, survives kills, ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from minigfs.cluster import ClusterLayout, load_state, running_pid
from minigfs.cluster.storage import StorageShape
from minimr.cluster import deploy
from minimr.cluster.deploy import ClusterShape
from minimr.cluster.status import ClusterStatus
from tests.metrics_page import figures

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PATIENCE_S = 30.0


class Cluster:
    """A home with a cluster in it, driven as `minimr up` drives it."""

    def __init__(self, home: Path, *, workers: int = 2) -> None:
        self.layout = ClusterLayout(home)
        self.shape = ClusterShape(
            storage=StorageShape(chunkservers=3, chunk_bytes=64 * 1024), workers=workers
        )

    def up(self) -> None:
        deploy.up(self.layout, self.shape)

    def down(self) -> None:
        deploy.down(self.layout)

    def status(self) -> ClusterStatus:
        return deploy.status(self.layout)

    def minimr(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "minimr", *arguments],
            env={**os.environ, "MINIMR_HOME": str(self.layout.home)},
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = self.minimr(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def pid_of(self, name: str) -> int:
        state = load_state(self.layout)
        assert state is not None
        pid = running_pid(state.record(name))
        assert pid is not None, f"{name} is not running"
        return pid

    def ray_pids(self) -> list[int]:
        """Everything whose working directory is Ray's: its daemons, the actors, executors."""
        return [
            process.pid
            for process in psutil.process_iter()
            if _cwd(process) == str((self.layout.home / "workers" / "ray").resolve())
        ]

    def all_pids(self) -> list[int]:
        state = load_state(self.layout)
        assert state is not None
        found = (running_pid(record) for record in state.processes)
        return [*(pid for pid in found if pid is not None), *self.ray_pids()]

    def until(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{complaint}: {self.status()}"
            time.sleep(0.05)


def ray_logs(cluster: Cluster) -> Path:
    """Of a cluster whose home has too long a path for Ray's sockets."""
    state = load_state(cluster.layout)
    assert state is not None
    return Path(f"/tmp/minimr-{os.getuid()}-{state.cluster_id[:12]}")


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "home")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINIGFS_METRICS", "127.0.0.1:0")
            cluster.up()
        yield cluster
    finally:
        cluster.down()


def test_every_process_serves_its_figures(cluster: Cluster) -> None:
    state = load_state(cluster.layout)
    assert state is not None
    served = {record.name: cluster.layout.directory(record.name) for record in state.processes}
    served |= {f"worker {worker.id}": Path(worker.dir) for worker in cluster.status().workers}
    assert len(served) == 3 + 3 + 1 + 2
    own = {"master": "minigfs_files", "chunkserver": "minigfs_chunkserver_chunks",
           "workers": "minimr_workers", "worker": "minimr_worker_registered"}  # fmt: skip
    for name, directory in served.items():
        shown = figures(directory, cluster.layout.token_file)
        assert shown["process_resident_memory_bytes"] > 1e6, name
        assert own[name.partition("-")[0].partition(" ")[0]] in shown, name
    master = figures(served["master-0"], cluster.layout.token_file)
    assert (master["minimr_known_workers"], master["minimr_jobs_unfinished"]) == (2, 0)


def test_up_returns_when_every_part_knows_the_others(cluster: Cluster) -> None:
    status = cluster.status()
    assert status.health.word == "OK"
    assert status.health.reasons == ()
    assert len(status.chunkservers) == 3
    assert len(status.workers) == 2
    assert all(worker.task == "" for worker in status.workers)
    assert cluster.ok("status").startswith(b"health: OK\n")


def test_status_as_json_has_exactly_the_documented_keys(cluster: Cluster) -> None:
    status = json.loads(cluster.ok("status", "--json"))
    assert set(status) == {
        "health", "masters", "elections", "chunkservers", "workers", "jobs", "cluster_id",
        "chunk_bytes", "replication", "files", "directories", "chunks", "repair", "trash",
    }  # fmt: skip
    assert set(status["repair"]) == {
        "waiting", "copying", "missing_bytes", "bytes_per_second", "remaining_ms", "rebalancing",
        "single_replicas",
    }  # fmt: skip
    assert set(status["trash"]) == {"things", "files", "directories", "next_expiry_ms"}
    assert set(status["health"]) == {"word", "reasons", "notes"}
    assert {key for one in status["masters"] for key in one} == {
        "id", "role", "term", "pid", "address", "dir", "commit_index",
    }  # fmt: skip
    assert {key for one in status["chunkservers"] for key in one} == {
        "id", "pid", "address", "dir", "host", "rack", "chunks", "bytes",
    }  # fmt: skip
    assert {key for one in status["workers"] for key in one} == {
        "id", "pid", "executor_pid", "host", "dir", "task",
    }  # fmt: skip
    assert {worker["pid"] for worker in status["workers"]} <= set(cluster.ray_pids())


def test_nothing_of_the_cluster_listens_beyond_loopback(cluster: Cluster) -> None:
    listening = [
        (process.name(), connection.laddr.ip)
        for process in map(psutil.Process, cluster.all_pids())
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4 + 2 * 2  # master, chunkservers, and two sockets of each worker
    beyond = [(name, ip) for name, ip in listening if ip not in ("127.0.0.1", "::ffff:127.0.0.1")]
    assert not beyond


def test_ray_answers_only_who_has_the_token(cluster: Cluster) -> None:
    ports = json.loads((cluster.layout.home / "workers" / "ray" / "ports.json").read_bytes())

    def ask(**token: str) -> "subprocess.CompletedProcess[bytes]":
        environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        return subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "health-check"),
                *("--address", f"127.0.0.1:{ports['port']}"),
            ],
            env={**environment, **loopback, **token},
            capture_output=True,
            timeout=60,
            check=False,
        )

    ours = str(cluster.layout.token_file)
    assert ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=ours).returncode == 0
    assert b"InvalidAuthToken" in ask(RAY_AUTH_MODE="disabled").stderr
    assert b"InvalidAuthToken" in ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64).stderr


def test_the_token_shows_in_no_command_line_and_no_environment(cluster: Cluster) -> None:
    token = cluster.layout.token_file.read_text().strip()
    assert cluster.layout.token_file.stat().st_mode & 0o077 == 0
    for process in map(psutil.Process, cluster.all_pids()):
        assert token not in " ".join(process.cmdline())
        assert token not in str(process.environ())


def test_a_killed_worker_is_back_under_its_name(cluster: Cluster) -> None:
    before = cluster.status().workers[0]
    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        same = [one for one in cluster.status().workers if one.id == before.id]
        return bool(same) and same[0].pid != before.pid and same[0].executor_pid != 0

    cluster.until(is_back, "the worker does not come back")
    assert not psutil.pid_exists(before.executor_pid) or (
        psutil.Process(before.executor_pid).status() == psutil.STATUS_ZOMBIE
    )


def test_a_worker_that_cannot_start_for_a_while_is_back_when_it_can(cluster: Cluster) -> None:
    victim = cluster.status().workers[0]
    segments = Path(victim.dir) / "segments"
    aside = segments.with_name("aside")
    segments.rename(aside)
    segments.write_bytes(b"in the way")
    try:
        os.kill(victim.pid, signal.SIGKILL)
        cluster.until(lambda: len(cluster.status().workers) == 1, "it is not missed")
    finally:
        segments.unlink()
        aside.rename(segments)
    cluster.until(lambda: len(cluster.status().workers) == 2, "it does not come back")


def test_a_killed_ray_is_started_again(cluster: Cluster) -> None:
    before = {worker.pid for worker in cluster.status().workers}
    (raylet,) = [pid for pid in cluster.ray_pids() if psutil.Process(pid).name() == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    cluster.until(
        lambda: len({w.pid for w in cluster.status().workers} - before) == 2,
        "the workers do not come back",
    )


def test_up_again_starts_exactly_what_is_missing(cluster: Cluster) -> None:
    killed, kept = cluster.pid_of("chunkserver-1"), cluster.pid_of("master-0")
    os.kill(killed, signal.SIGKILL)
    cluster.up()
    assert cluster.pid_of("chunkserver-1") != killed
    assert cluster.pid_of("master-0") == kept
    assert len(cluster.status().chunkservers) == 3


def test_after_kill_9_of_everything_up_finds_every_closed_file(cluster: Cluster) -> None:
    content = os.urandom(300_000)
    cluster.ok("fs", "mkdir", "/kept")
    source = cluster.layout.home.parent / "source.bin"
    source.write_bytes(content)
    cluster.ok("fs", "put", str(source), "/kept/file")
    for pid in cluster.all_pids():
        os.kill(pid, signal.SIGKILL)
    assert cluster.minimr("status").returncode == 3
    cluster.up()
    assert cluster.ok("fs", "cat", "/kept/file") == content
    assert len(cluster.status().workers) == 2


def test_down_ends_all_of_ours_and_nothing_else(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home", workers=1)
    try:
        cluster.up()
        foreign = subprocess.Popen(["sleep", "60"], cwd=cluster.layout.home / "workers" / "ray")
        pids = cluster.all_pids()
        os.kill(cluster.pid_of("workers"), signal.SIGKILL)  # what it kept is left behind
    finally:
        said = cluster.minimr("down").stderr.decode()
    kept = ray_logs(cluster)
    assert f"Ray's logs are kept in {kept}" in said, "its keeper was killed: somebody may ask why"
    assert kept.is_dir()
    shutil.rmtree(kept)
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()
    left = [pid for pid in pids if pid != foreign.pid and psutil.pid_exists(pid)]
    assert [p for p in left if psutil.Process(p).status() != psutil.STATUS_ZOMBIE] == []
    assert (tmp_path / "home" / "master-0").exists()
    cluster.down()  # twice is no error


def test_a_port_of_ray_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home", workers=1)
    try:
        cluster.up()
        assert ray_logs(cluster).is_dir()
        cluster.down()
        assert not ray_logs(cluster).exists(), "nothing went wrong, so nobody needs them"
        ports = json.loads((tmp_path / "home" / "workers" / "ray" / "ports.json").read_bytes())
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", ports["port"]))
            thief.listen()
            cluster.up()
            assert len(cluster.status().workers) == 1
    finally:
        cluster.down()
