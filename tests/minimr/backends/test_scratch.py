"""Scratch directories of runs that begin and end beside each other."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minimr.backends.scratch import Scratch


@pytest.fixture(autouse=True)
def scratch_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_run_that_begins_never_takes_another_that_begins_for_a_dead_one(
    scratch_root: Path,
) -> None:
    def run(_: int) -> None:
        scratch = Scratch.open()
        try:
            scratch.note_beside(["file:///out"])
            assert scratch.path.is_dir()
        finally:
            scratch.close()

    with ThreadPoolExecutor(8) as runs:
        list(runs.map(run, range(400)))
    assert list(scratch_root.iterdir()) == []
