"""A master whose log is damaged or gone is replaced by a new member, by the command `up`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from tests.member_directories import flip, newest_segment, written_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PATHS = [f"/directory-{number}" for number in range(30)]


class Home:
    """A storage cluster, by the commands a user has."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "minigfs", *arguments, "--dir", str(self.home)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def masters(self) -> dict[str, dict[str, object]]:
        """By the name of their directory."""
        told = json.loads(self.ok("status", "--json"))["masters"]
        return {Path(master["dir"]).name: master for master in told}

    def client(self) -> MinigfsClient:
        return MinigfsClient(ClientConfig.discover(home=str(self.home)))

    def check_that_all_is_there(self) -> None:
        assert {status.path for status in self.client().list_directory("/")} >= set(PATHS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("cluster") / "home")
    try:
        home.ok("up", "--chunkservers", "1")
        client = home.client()
        for path in PATHS:
            client.make_directory(path)
        yield home
    finally:
        home.run("down")


def kill_a_follower(home: Home) -> tuple[str, dict[str, dict[str, object]]]:
    """Its name, and what the masters were before."""
    masters = home.masters()
    name = next(name for name, master in masters.items() if master["role"] == "follower")
    pid = masters[name]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    return name, masters


def check_that_a_new_one_came(home: Home, name: str, before: dict[str, dict[str, object]]) -> None:
    """It took the place of the old one, votes, has everything and can lead."""
    after = home.masters()
    assert set(after) == set(before)
    assert after[name]["id"] not in {master["id"] for master in before.values()}
    # Masters tell each other their roles once a second: until then it is called a learner.
    deadline = time.monotonic() + 10
    while {master["role"] for master in after.values()} != {"leader", "follower"}:
        assert time.monotonic() < deadline, after
        after = home.masters()
    home.ok("admin", "masters", "transfer", str(after[name]["id"]))
    assert home.masters()[name]["role"] == "leader"
    home.check_that_all_is_there()


def test_a_master_with_a_damaged_log_is_replaced_once_its_directory_is_moved_away(
    home: Home,
) -> None:
    name, before = kill_a_follower(home)
    segment = newest_segment(home.home / name)
    flip(segment, written_bytes(segment) // 2)

    refused = home.run("up")

    assert refused.returncode != 0
    assert str(segment) in refused.stderr
    assert "offset" in refused.stderr
    assert "move this directory away and run `up` again" in refused.stderr
    home.check_that_all_is_there()
    (home.home / name).rename(home.home / "looked-at-later")
    home.ok("up")
    check_that_a_new_one_came(home, name, before)


def test_a_master_whose_disk_was_wiped_is_replaced(home: Home) -> None:
    name, before = kill_a_follower(home)
    shutil.rmtree(home.home / name)
    home.ok("up")
    check_that_a_new_one_came(home, name, before)
