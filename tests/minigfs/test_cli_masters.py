"""Three masters as a user has them: killed, stopped, lost, handed over, added, removed."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, ProcessRecord, load_state, running_pid
from minigfs.cluster.masters import start_cluster
from minigfs.cluster.storage import STORAGE_KINDS

pytestmark = pytest.mark.e2e

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def home(cli: Run, own_home: Path) -> Path:
    ok(cli("up", "--quiet", "--chunkservers", "1", home=own_home))
    return own_home


def ok(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, done.stderr.decode()
    return done


def masters(cli: Run, home: Path) -> dict[str, dict[str, object]]:
    """By the name of their directory, once all have told theirs."""
    deadline = time.monotonic() + 10
    while True:
        done = ok(cli("admin", "masters", "list", "--json", home=home))
        found = json.loads(done.stdout)
        if all(member["directory"] for member in found["members"]):
            break
        assert time.monotonic() < deadline, found
    return {
        Path(member["directory"]).name: {
            **member,
            "leads": member["member_id"] == found["leader"],
        }
        for member in found["members"]
    }


def leader(cli: Run, home: Path) -> str:
    deadline = time.monotonic() + 10
    while True:
        leading = [name for name, one in masters(cli, home).items() if one["leads"]]
        if leading and leading[0]:
            return leading[0]
        assert time.monotonic() < deadline, "nobody leads"
        time.sleep(0.05)


def record_of(home: Path, name: str) -> ProcessRecord:
    state = load_state(ClusterLayout(home))
    assert state is not None
    return state.record(name)


def pid_of(home: Path, name: str) -> int:
    pid = running_pid(record_of(home, name))
    assert pid is not None, f"{name} does not run"
    return pid


def test_a_killed_leader_costs_a_moment_and_up_brings_it_back(cli: Run, home: Path) -> None:
    killed = leader(cli, home)
    os.kill(pid_of(home, killed), signal.SIGKILL)
    began = time.monotonic()
    ok(cli("mkdir", "/d", home=home))
    assert time.monotonic() - began < 5
    status = json.loads(ok(cli("status", "--json", home=home)).stdout)
    assert len(status["masters"]) == 3
    assert status["elections"] >= 2
    ok(cli("up", home=home))
    assert pid_of(home, killed)
    assert b"/d" in ok(cli("ls", "/", home=home)).stdout
    assert {one["role"] for one in masters(cli, home).values()} == {"leader", "follower"}


def test_two_of_three_masters_gone_is_one_clear_line_and_exit_3_until_one_is_back(
    cli: Run, home: Path
) -> None:
    ok(cli("mkdir", "/d", home=home))
    names = sorted(masters(cli, home))
    for name in names[:2]:
        os.kill(pid_of(home, name), signal.SIGKILL)
    began = time.monotonic()
    done = cli("ls", "/", home=home)
    assert time.monotonic() - began < 15
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 3
    assert "no master leads" in line
    state = load_state(ClusterLayout(home))
    assert state is not None
    assert all(address in line for address in state.masters)
    layout = ClusterLayout(home)
    with layout.locked():
        start_cluster(layout, state.without(names[0]), STORAGE_KINDS)
    assert b"d" in ok(cli("ls", "/", home=home)).stdout


def test_a_master_that_lost_its_directory_is_replaced_by_a_new_member(cli: Run, home: Path) -> None:
    before = masters(cli, home)
    lost = next(name for name, one in before.items() if not one["leads"])
    os.kill(pid_of(home, lost), signal.SIGKILL)
    shutil.rmtree(home / lost)
    ok(cli("up", home=home))
    after = masters(cli, home)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name]["member_id"] != before[name]["member_id"]} == {
        lost
    }
    assert len({one["member_id"] for one in after.values()}) == 3


def test_leadership_is_handed_over_on_demand(cli: Run, home: Path) -> None:
    before = leader(cli, home)
    target = next(one for name, one in masters(cli, home).items() if name != before)
    ok(cli("admin", "masters", "transfer", str(target["member_id"]), home=home))
    assert leader(cli, home) == Path(str(target["directory"])).name
    done = cli("admin", "masters", "transfer", "nobody", home=home)
    assert done.returncode == 2
    assert b"nobody" in done.stderr


def test_a_master_is_added_and_another_removed_while_the_cluster_works(
    cli: Run, home: Path
) -> None:
    ok(cli("admin", "masters", "add", home=home))
    assert sorted(masters(cli, home)) == ["master-0", "master-1", "master-2", "master-3"]
    gone = next(name for name, one in masters(cli, home).items() if not one["leads"])
    record = record_of(home, gone)
    assert running_pid(record) is not None
    ok(cli("admin", "masters", "remove", str(masters(cli, home)[gone]["member_id"]), home=home))
    assert gone not in masters(cli, home)
    assert running_pid(record) is None
    client = json.loads((home / "client.json").read_bytes())
    assert len(client["masters"]) == 3
    ok(cli("mkdir", "/still-works", home=home))


def test_a_master_that_is_stopped_politely_hands_over_first(cli: Run, home: Path) -> None:
    before = leader(cli, home)
    term = max(int(str(one["term"])) for one in masters(cli, home).values())
    client = MinigfsClient(ClientConfig.discover(home=str(home)))
    client.make_directory("/before")
    os.kill(pid_of(home, before), signal.SIGTERM)
    began = time.monotonic()
    client.make_directory("/after")
    assert time.monotonic() - began < 3
    assert leader(cli, home) != before
    assert max(int(str(one["term"])) for one in masters(cli, home).values()) == term + 1


def test_a_group_whose_members_have_all_changed_comes_back_after_a_stop(
    cli: Run, home: Path
) -> None:
    """Where the others listen is known before anybody leads."""
    ok(cli("mkdir", "/d", home=home))
    founders = {str(one["member_id"]) for one in masters(cli, home).values()}
    for member_id in founders:
        ok(cli("admin", "masters", "add", home=home))
        ok(cli("admin", "masters", "remove", member_id, home=home))
    members = {str(one["member_id"]) for one in masters(cli, home).values()}
    assert len(members) == 3
    assert not members & founders
    ok(cli("down", home=home))
    ok(cli("up", home=home))
    assert b"/d" in ok(cli("ls", "/", home=home)).stdout
