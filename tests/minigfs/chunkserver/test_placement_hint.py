"""The mark is set where the file system knows it, and its absence is no error."""

import shutil
import subprocess
from pathlib import Path

import pytest

from minigfs.chunkserver.placement_hint import spread_below


def flags_of(directory: Path) -> str:
    return subprocess.run(
        ["lsattr", "-d", str(directory)], capture_output=True, text=True, check=True
    ).stdout.split()[0]


def knows_the_mark(directory: Path) -> bool:
    """By what the tools of ext4 can do there, so that ours cannot excuse itself."""
    if shutil.which("chattr") is None or shutil.which("lsattr") is None:
        return False
    directory.mkdir()
    done = subprocess.run(["chattr", "+T", str(directory)], capture_output=True, check=False)
    return done.returncode == 0 and "T" in flags_of(directory)


def test_a_directory_becomes_the_top_of_a_hierarchy_and_keeps_its_other_flags(
    tmp_path: Path,
) -> None:
    if not knows_the_mark(tmp_path / "by-chattr"):
        pytest.skip("chattr cannot set the mark either: no e2fsprogs, or not ext4")
    before = flags_of(tmp_path)
    spread_below(tmp_path)
    spread_below(tmp_path)
    assert sorted(flags_of(tmp_path).replace("-", "")) == sorted(before.replace("-", "") + "T")


def test_where_it_cannot_be_nothing_happens(tmp_path: Path) -> None:
    spread_below(Path("/proc/self"))
    spread_below(tmp_path / "nothing")
