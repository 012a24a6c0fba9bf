"""The README's commands and programs work, in the order a reader would try them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def _blocks(section: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks below a heading, in order."""
    text = README.read_text()
    body = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", body, flags=re.DOTALL | re.MULTILINE)


def _run(command: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "MINIMR_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command,
        check=False,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def _run_console(block: str, folder: Path) -> list[str]:
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return [_run(command, folder) for command in commands if not command.startswith("pip ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _run("minimr data access-log --size 10MB --output access.log", tmp_path)
    return tmp_path


def test_the_first_example_prints_ten_urls(tmp_path: Path) -> None:
    ((language, block),) = _blocks("In two minutes, without a cluster")
    assert language == "console"
    outputs = _run_console(block, tmp_path)
    assert len(outputs[-1].splitlines()) == 10


def test_the_jobs_and_formats_run_as_shown(folder: Path) -> None:
    ((_, console),) = _blocks("Jobs and formats that come with it")
    *_, checked = _run_console(console, folder)
    assert checked.splitlines()[-1] == "SUCCESS - all records are in order"


def test_a_job_of_ones_own_runs_as_a_program_and_from_the_command_line(folder: Path) -> None:
    (_, program), (_, console) = _blocks("Your own job")
    (folder / "status.py").write_text(program)
    outputs = _run_console(console, folder)
    assert "lines" in outputs[0]
    assert sorted(path.name for path in (folder / "by-status").glob("part-*")) == [
        "part-r-00000",
        "part-r-00001",
    ]


@pytest.mark.e2e
def test_the_cluster_example_counts_and_pandas_reads_the_counts(folder: Path) -> None:
    (_, console), (_, pandas_program), (_, cluster_program) = _blocks("A cluster on this machine")
    *commands, down = console.splitlines()
    assert down == "$ minimr down"
    (folder / "pandas_example.py").write_text(f"{pandas_program}\nprint(len(frame))\n")
    (_, job_program), _ = _blocks("Your own job")
    (folder / "local_cluster.py").write_text(
        job_program.split("if __name__")[0] + cluster_program.replace("import minimr\n", "")
    )
    try:
        outputs = _run_console("\n".join(commands), folder)
        rows = int(_run(f"{sys.executable} pandas_example.py", folder))
        part_rows = _run("minimr fs cat /counts/part-r-00000", folder)
    finally:
        _run("minimr down", folder)
    assert rows == len(part_rows.splitlines())
    assert "url-count" in outputs[-2]
    assert "map.input_records" in _run(f"{sys.executable} local_cluster.py", folder)
