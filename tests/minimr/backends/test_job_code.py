"""Jobs travel to processes that know nothing of the user's files."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import cloudpickle
import pytest

import minimr
from minimr.backends.job_code import pack_job
from minimr.errors import JobUsageError
from minimr.jobs.term_vector import host_of
from minimr.registry import load_job

_LOAD_AND_MAP = """
import pickle, sys
job = pickle.loads(open(sys.argv[1], "rb").read())
print(list(job.map(b"a b")))
"""


def map_elsewhere(code: bytes, folder: Path) -> str:
    """The packed job's map, run by a process in another directory."""
    (folder / "code").write_bytes(code)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOAD_AND_MAP, str(folder / "code")],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_functions_of_a_job_file_travel_with_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def double(word):\n    return word + word\n")
    (tmp_path / "mine.py").write_text(
        "import minimr\n"
        "from beside import double\n"
        "def words(line):\n"
        "    for word in line.split():\n"
        "        yield double(word), 1\n"
        "job = minimr.Job('mine', map=words, reduce=minimr.agg.sum)\n"
    )
    job = load_job(f"{tmp_path}/mine.py:job", {})
    assert map_elsewhere(pack_job(job), tmp_path) == "[(b'aa', 1), (b'bb', 1)]\n"


def scaled(factor: int, line: bytes) -> list[tuple[bytes, int]]:
    return [(line, factor)]


def test_partial_functions_are_followed_to_the_module_of_the_function(tmp_path: Path) -> None:
    job = minimr.Job("scaled", map=partial(scaled, 3))
    assert map_elsewhere(pack_job(job), tmp_path) == "[(b'a b', 3)]\n"


class OwnReader:
    cuts_files = False

    def read(self, file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
        yield from file


class OwnWriter:
    suffix = ""

    def open(self, file: IO[bytes]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("formats", [{"input_format": OwnReader()}, {"output_format": OwnWriter()}])
def test_formats_of_the_users_travel_with_a_function_that_is_installed(
    tmp_path: Path, formats: dict[str, Any]
) -> None:
    job = minimr.Job("own", map=host_of, **formats)
    assert map_elsewhere(pack_job(job), tmp_path) == f"{list(host_of(b'a b'))}\n"


def test_installed_jobs_travel_by_reference() -> None:
    assert len(pack_job(load_job("word-count", {}))) < 1_000


def test_the_same_job_gives_the_same_bytes() -> None:
    assert pack_job(load_job("url-count", {})) == pack_job(load_job("url-count", {}))


def test_what_cannot_travel_is_said_in_one_line() -> None:
    lock = __import__("threading").Lock()
    job = minimr.Job("locked", map=lambda line: [(line, lock.locked())])
    with pytest.raises(JobUsageError, match="--processes 0") as caught:
        pack_job(job)
    assert "\n" not in caught.value.message


def test_a_module_that_the_user_sends_by_value_stays_so() -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        pack_job(minimr.Job("scaled", map=partial(scaled, 3)))
        assert __name__ in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    pack_job(minimr.Job("scaled", map=partial(scaled, 3)))
    assert __name__ not in cloudpickle.list_registry_pickle_by_value()
