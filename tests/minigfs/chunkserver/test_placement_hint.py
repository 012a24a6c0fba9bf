"""The mark is set where the file system knows it, and its absence is no error."""

import shutil
import subprocess
from pathlib import Path

import pytest

from minigfs.chunkserver.placement_hint import spread_below


def flags_of(directory: Path) -> str:
    if shutil.which("lsattr") is None:
        pytest.skip("lsattr (e2fsprogs) is not installed")
    done = subprocess.run(
        ["lsattr", "-d", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a file system without flags: {done.stderr.strip()}")
    return done.stdout.split()[0]


def test_a_directory_becomes_the_top_of_a_hierarchy_and_keeps_its_other_flags(
    tmp_path: Path,
) -> None:
    before = flags_of(tmp_path)
    spread_below(tmp_path)
    spread_below(tmp_path)
    after = flags_of(tmp_path)
    if "T" not in after:
        pytest.skip("a file system that knows no such mark")
    assert after.replace("T", "-") == before


def test_where_it_cannot_be_nothing_happens(tmp_path: Path) -> None:
    spread_below(Path("/proc/self"))
    spread_below(tmp_path / "nothing")
