"""The edge of the commands: what the shell has left them of their streams."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", ["minigfs", "minimr"])
@pytest.mark.parametrize(
    ("closed", "said"), [(">&-", b""), ("2>&-", b"version"), (">&- 2>&-", b"")]
)
def test_a_command_whose_streams_are_closed_does_its_work(
    program: str, closed: str, said: bytes
) -> None:
    """As a job of cron may be; Python has no stream then, not one that takes nothing."""
    ended = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -P -m {program} --version {closed}"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
    assert said in ended.stdout
    assert ended.stderr == b""


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_job_runs_without_streams(tmp_path: Path, closed: str) -> None:
    (tmp_path / "in").write_bytes(b"b a\nb\n")
    minimr = f"exec {sys.executable} -P -m minimr run word-count --processes 1"
    ended = subprocess.run(
        ["bash", "-c", f"{minimr} --input {tmp_path}/in --output {tmp_path}/out {closed}"],
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0
    assert (tmp_path / "out" / "part-r-00000").read_bytes() == b"a\t1\nb\t2\n"
