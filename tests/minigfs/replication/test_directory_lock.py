"""Two processes never share a data directory."""

import os
import subprocess
import sys

import pytest

from minigfs.errors import InvalidConfig
from minigfs.replication.directory_lock import DirectoryLock

TRY = """
import sys
from pathlib import Path
from minigfs.errors import InvalidConfig
from minigfs.replication.directory_lock import DirectoryLock
try:
    with DirectoryLock(Path(sys.argv[1])):
        print("locked")
except InvalidConfig as error:
    print(error)
"""


def try_from_another_process(directory) -> str:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(directory)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path) -> None:
    with DirectoryLock(tmp_path):
        answer = try_from_another_process(tmp_path)
        assert f"in use by process {os.getpid()}" in answer
    assert try_from_another_process(tmp_path) == "locked"


def test_the_same_process_is_refused_too(tmp_path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(InvalidConfig), DirectoryLock(tmp_path):
        pass
