"""Two of three masters are gone: every command says so and ends; when one is back, all work."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.errors import ClusterError
from tests.master_group import MasterGroup

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

COMMANDS = [
    "minimr fs ls /",
    "minimr fs cat /here",
    "minimr fs put {file} /there",
    "minimr fs mv /here /there",
    "minimr status",
    "minimr status --json",
    "minimr jobs list",
    "minimr run word-count --input minigfs:///here --output minigfs:///out",
    "minimr admin masters transfer",
    "minigfs status",
]
DEADLINE_S = 10.0  # the client's default
START_S = 20.0  # of so many interpreters at once on a busy machine


@pytest.fixture(scope="module")
def shared_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterGroup]:
    with MasterGroup(tmp_path_factory.mktemp("masters"), program="minimr") as group:
        with MinigfsClient(group.config).open_writer("/here") as writer:
            writer.write(b"some words\n")
        yield group


@pytest.fixture
def group(shared_group: MasterGroup) -> MasterGroup:
    """Whole, whatever the test before did to it."""
    shared_group.start_missing()
    return shared_group


class Command:
    """One command of a user on another machine, who knows the masters and the token."""

    def __init__(self, group: MasterGroup, line: str) -> None:
        self.line = line
        program, *arguments = line.format(file=group.token_file).split()
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", program, *arguments],
            env={
                **os.environ,
                "MINIMR_HOME": str(group.root / "no-home"),
                "FSSPEC_MINIGFS_MASTERS": ",".join(group.config.masters),
                "FSSPEC_MINIGFS_TOKEN_FILE": str(group.token_file),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parent,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out, err

    def ok(self) -> str:
        code, out, err = self.end()
        assert code == 0, f"{self.line}: {err}"
        return out


def test_every_command_fails_in_time_with_one_clear_line_and_works_when_a_master_is_back(
    group: MasterGroup,
) -> None:
    leader = group.wait_for_leader()
    gone = group.others(leader)[0]
    for name in (gone, leader):
        group.kill(name)
    told = {}
    began = time.monotonic()
    commands = [Command(group, line) for line in COMMANDS]
    for command in commands:
        code, told[command.line], err = command.end()
        assert code == 3, f"{command.line}: {code}, {err}"
        assert len(err.splitlines()) == 1, f"{command.line}: {err}"
        assert "no master leads after 10 s" in err, f"{command.line}: {err}"
        assert "a majority of them must run" in err, f"{command.line}: {err}"
    assert time.monotonic() - began < DEADLINE_S + START_S
    status = json.loads(told["minimr status --json"])
    assert status["health"]["word"] == "NO_QUORUM"
    roles = {master["address"]: master["role"] for master in status["masters"]}
    alive = roles.pop(
        next(group.masters[n].front for n in group.masters if n not in (gone, leader))
    )
    assert alive in ("candidate", "follower")
    assert set(roles.values()) == {"silent"}
    assert "NO_QUORUM" in told["minigfs status"]

    group.start(gone)
    group.wait_for_leader()

    assert Command(group, "minimr fs cat /here").ok() == "some words\n"
    Command(group, "minimr fs mv /here /there").ok()
    assert "/there" in Command(group, "minimr fs ls /").ok()
    assert Command(group, "minimr jobs list").ok() is not None
    assert json.loads(Command(group, "minimr status --json").ok())["elections"] >= 2
    group.start(leader)
    group.wait_for_answer(leader)


def test_a_program_gets_an_error_in_time_and_its_next_call_works(group: MasterGroup) -> None:
    client = MinigfsClient(replace(group.config, timeout_ms=2_000))
    client.make_directory("/before")
    leader = group.wait_for_leader()
    gone = [leader, group.others(leader)[0]]
    for name in gone:
        group.kill(name)
    began = time.monotonic()
    with pytest.raises(ClusterError):
        client.make_directory("/during")
    assert time.monotonic() - began < 3.0
    for name in gone:
        group.start(name)
    group.wait_for_leader()
    client.make_directory("/after")
    assert client.stat("/before").kind.value == "directory"
