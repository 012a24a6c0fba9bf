"""`minimr run` as a process: what is on stdout, what is on stderr, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TALKATIVE = """
import minimr

def first_byte(line):
    print("user code says", line)
    yield line[:1], 1

job = minimr.Job("talkative", map=first_byte, reduce=minimr.agg.sum)
"""


def minimr_run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "minimr", "run", *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_text("apple\nbanana\navocado\n")
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    return tmp_path


def test_what_user_code_prints_never_mixes_with_the_result(folder: Path) -> None:
    done = minimr_run(
        folder, "talkative.py:job", "--input", "in.txt", "--output", "out", "--json", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counters"]["output.records"] == 2
    assert "user code says" in done.stderr


def test_explain_runs_nothing_and_is_json_on_demand(folder: Path) -> None:
    arguments = ("talkative.py:job", "--input", "in.txt", "--output", "out", "--explain")
    plan = json.loads(minimr_run(folder, *arguments, "--json").stdout)
    assert (plan["maps"], plan["reduces"], plan["input_bytes"]) == (1, 1, 21)
    assert "maps       1" in minimr_run(folder, *arguments).stdout
    assert not (folder / "out").exists()


def test_stdout_of_a_run_is_the_place_of_its_output(folder: Path) -> None:
    done = minimr_run(folder, "talkative.py:job", "--input", "in.txt", "--output", "out")
    assert done.stdout.splitlines() == [f"file://{folder}/out"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("word-count", "--input", "none.txt", "--output", "o"), 1, "none.txt does not exist"),
        (("no-job", "--input", "in.txt", "--output", "o"), 2, "no job is called 'no-job'"),
        (("word-count", "--input", "in.txt", "--output", "o", "--set", "x"), 2, "NAME=VALUE"),
        (("word-count", "--input", "in.txt", "--output", "."), 1, "exists"),
        (("word-count", "--input", "in.txt"), 2, "--output"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    folder: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = sorted(folder.iterdir())
    done = minimr_run(folder, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert text in line
    assert sorted(folder.iterdir()) == before
