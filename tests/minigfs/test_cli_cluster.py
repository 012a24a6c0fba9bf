"""`up`, `down` and `status` on clusters of the test's own."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.cli import minigfs
from minigfs.cluster import ClusterLayout, ClusterState, load_state, running_pid
from minigfs.terminal import run_cli

pytestmark = pytest.mark.e2e

Run = Callable[..., subprocess.CompletedProcess[bytes]]


def pids(home: Path) -> dict[str, int]:
    found = {record.name: running_pid(record) for record in _state(home).processes}
    return {name: pid for name, pid in found.items() if pid is not None}


def ok(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, done.stderr.decode()
    return done


def test_up_down_up_finds_all_data_at_the_same_addresses(cli: Run, own_home: Path) -> None:
    content = os.urandom(300_000)
    first = ok(cli("up", "--chunk-size", "64KiB", home=own_home))
    assert first.stdout == b""
    lines = first.stderr.decode().splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["started"] * 6
    assert lines[-1].startswith("ready in ")
    ok(cli("put", "-", "/f", home=own_home, stdin=content))
    before = pids(own_home)
    again = ok(cli("up", home=own_home))
    assert again.stderr.decode().count(" running ") == 6
    assert pids(own_home) == before
    addresses = [record.address for record in _state(own_home).processes]

    ok(cli("down", home=own_home))
    assert pids(own_home) == {}
    stopped = cli("ls", home=own_home)
    assert stopped.returncode == 3
    assert b"is not running" in stopped.stderr
    assert b"nothing was running" in ok(cli("down", home=own_home)).stderr

    ok(cli("up", "--quiet", home=own_home))
    assert [record.address for record in _state(own_home).processes] == addresses
    assert ok(cli("cat", "/f", home=own_home)).stdout == content


def test_a_master_that_is_removed_ends_in_order_with_one_line(
    cli: Run, own_home: Path, tmp_path: Path
) -> None:
    ok(cli("up", "--masters", "1", "--chunkservers", "1", home=own_home))
    state = _state(own_home)
    arguments = [
        *(f"--{name}={value}" for name, value in (
            ("dir", tmp_path / "joined"), ("listen", "127.0.0.1:0"), ("join", state.masters[0]),
            ("cluster-id", state.cluster_id), ("token-file", own_home / "token"),
        )),
    ]  # fmt: skip

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "minigfs", "serve", "master", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )

    joined = start()
    try:
        member = second_voter(cli, own_home)
        ok(cli("admin", "masters", "remove", member, home=own_home))
        _, said = joined.communicate(timeout=30)
    finally:
        joined.kill()
    last = said.splitlines()[-1]
    assert joined.returncode == 0, said
    assert "was removed from its group" in last
    assert "Traceback" not in said
    assert not [line for line in said.splitlines() if " ERROR " in line or " WARNING " in line]

    again = start()  # on a directory that can serve no more
    try:
        _, said = again.communicate(timeout=30)
    finally:
        again.kill()
    assert again.returncode == 3
    assert said.splitlines()[-1].startswith("minigfs: master")


def second_voter(cli: Run, home: Path) -> str:
    """The id of the master that does not lead, once it has joined."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        listed = json.loads(ok(cli("admin", "masters", "list", "--json", home=home)).stdout)
        found = [one["member_id"] for one in listed["members"] if one["role"] == "follower"]
        if found:
            return str(found[0])
        time.sleep(0.1)  # only the group can say whether a member has caught up
    raise AssertionError("the second master has not joined")


def _state(home: Path) -> ClusterState:
    state = load_state(ClusterLayout(home))
    assert state is not None
    return state


def test_every_closed_file_survives_kill_9_of_every_process(cli: Run, own_home: Path) -> None:
    ok(cli("up", "--chunk-size", "16KiB", home=own_home))
    sums = {}
    for number in range(5):
        content = os.urandom(number * 20_011)
        sums[f"/d/{number}"] = hashlib.sha256(content).hexdigest()
        ok(cli("put", "-", f"/d/{number}", home=own_home, stdin=content))
    for pid in pids(own_home).values():
        os.kill(pid, signal.SIGKILL)
    ok(cli("up", home=own_home))
    for path, expected in sums.items():
        content = ok(cli("cat", path, home=own_home)).stdout
        assert hashlib.sha256(content).hexdigest() == expected


def test_up_starts_only_what_is_missing_and_status_shows_it(cli: Run, own_home: Path) -> None:
    ok(cli("up", "--masters", "1", "--hosts", "2", home=own_home))
    before = pids(own_home)
    os.kill(before["chunkserver-1"], signal.SIGKILL)
    done = ok(cli("up", "--json", home=own_home))
    assert done.stderr.decode().count(" started ") == 1
    assert json.loads(done.stdout)["home"] == str(own_home)
    after = pids(own_home)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"chunkserver-1"}

    status = json.loads(ok(cli("status", "--json", home=own_home)).stdout)
    assert status["health"]["word"] == "OK"
    assert [master["pid"] for master in status["masters"]] == [after["master-0"]]
    assert {"id", "role", "term", "address", "dir", "commit_index"} <= status["masters"][0].keys()
    assert {server["pid"] for server in status["chunkservers"]} == {
        pid for name, pid in after.items() if name.startswith("chunkserver")
    }
    assert {server["host"] for server in status["chunkservers"]} == {"host-0", "host-1"}
    assert status["elections"] == 1
    shown = ok(cli("status", home=own_home)).stdout.decode()
    assert shown.startswith("health: OK")
    assert str(after["chunkserver-1"]) in shown


def test_a_port_that_was_taken_meanwhile_is_named(cli: Run, own_home: Path) -> None:
    ok(cli("up", "--masters", "1", "--chunkservers", "1", home=own_home))
    ok(cli("down", home=own_home))
    record = _state(own_home).record("chunkserver-0")
    host, _, port = record.address.rpartition(":")
    with socket.create_server((host, int(port))):
        done = cli("up", "--quiet", home=own_home)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert f"chunkserver-0 cannot listen on {record.address}" in line
    assert port in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--chunk-size", "3"), "at least 1024 bytes"),
        (("--chunk-size", "big"), "not a size"),
        (("--masters", "9"), "--masters 9"),
        (("--chunkservers", "0"), "--chunkservers 0"),
        (("--chunkservers", "2", "--replication", "3"), "--replication 3"),
        (("--workers", "2"), "--workers"),
        (("sideways",), "sideways"),
    ],
)
def test_wrong_options_are_one_clear_line_and_start_nothing(
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("MINIMR_HOME", str(own_home))
    ended = run_cli(minigfs, program="minigfs", arguments=["up", *arguments])
    output, errors = capfd.readouterr()
    (line,) = errors.splitlines()
    assert (ended, output) == (2, "")
    assert message in line
    assert not (own_home / "cluster.json").exists()


def test_what_is_fixed_is_said_when_somebody_tries_to_change_it(cli: Run, own_home: Path) -> None:
    ok(cli("up", "--masters", "1", "--chunkservers", "1", "--chunk-size", "1KiB", home=own_home))
    done = cli("up", "--chunk-size", "2KiB", home=own_home)
    assert done.returncode == 2
    assert b"--chunk-size 2048: this cluster was made with 1024" in done.stderr


def test_a_server_refuses_to_listen_to_the_network_without_tls(
    cli: Run, own_home: Path, cluster: ClusterLayout
) -> None:
    done = cli(
        "serve",
        "master",
        f"--dir={own_home}",
        "--listen=0.0.0.0:0",
        "--cluster-id=c1",
        f"--token-file={cluster.token_file}",
    )
    assert done.returncode == 2
    assert b"--insecure" in done.stderr
