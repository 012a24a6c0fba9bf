"""`minimr run` that is told to end, as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW_JOB = """
import time
import minimr

def slow(line):
    time.sleep(0.05)
    yield line, 1

job = minimr.Job("slow", map=slow, reduce=minimr.agg.sum)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "in.txt").write_bytes(b"line\n" * 2_000)
    (tmp_path / "slow.py").write_text(SLOW_JOB)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "minimr", "run", "slow.py:job", "--input", "in.txt",
         "--output", "out", "--processes", "2", "--split-size", "100"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not list(scratch.glob("*/slow-*/*.segment")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors.decode()
    assert list(scratch.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "in.txt", "scratch", "slow.py",
    }  # fmt: skip
