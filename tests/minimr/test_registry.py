"""A job is found by installed name, file or module; everything else is one clear error."""

import sys
from pathlib import Path

import pytest

from minimr.errors import JobUsageError, UnknownJob, UnreadableJob
from minimr.registry import installed_jobs, load_job, modules_by_value

JOB_FILE = """
import minimr

def words(line):
    for word in line.split():
        yield word, 1

job = minimr.Job("words", map=words, reduce=minimr.agg.sum)

def configured(settings):
    return minimr.Job(settings["name"], map=words)

number = 3
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(JOB_FILE)
    return path


def test_the_standard_jobs_are_installed() -> None:
    assert {"url-count", "word-count"} <= set(installed_jobs())


def test_an_installed_job_takes_its_settings() -> None:
    assert load_job("url-count", {"field": "7"}).name == "url-count"


def test_a_job_object_of_a_file_is_loaded(job_file: Path) -> None:
    assert load_job(f"{job_file}:job", {}).name == "words"


def test_a_factory_of_a_file_gets_the_settings(job_file: Path) -> None:
    assert load_job(f"{job_file}:configured", {"name": "other"}).name == "other"


def test_what_a_job_file_imports_from_its_folder_travels_by_value(job_file: Path) -> None:
    (job_file.parent / "sibling_of_mine.py").write_text("FIELD = 6\n")
    job_file.write_text("import sibling_of_mine\n" + JOB_FILE)
    load_job(f"{job_file}:job", {})
    assert "sibling_of_mine" in {module.__name__ for module in modules_by_value()}
    assert str(job_file.parent) not in sys.path


@pytest.mark.parametrize(
    ("reference", "kind", "text"),
    [
        ("no-such-job", UnknownJob, "url-count"),
        ("missing.py:job", UnreadableJob, "does not exist"),
        ("no.such.module:job", UnreadableJob, "cannot be imported"),
        ("json:dumps_", UnknownJob, "has no 'dumps_'"),
        ("mine.py", UnknownJob, "mine.py:job"),
    ],
)
def test_a_reference_to_nothing_says_what_to_write(
    reference: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        load_job(reference, {})


def test_a_missing_name_lists_the_jobs_of_the_file(job_file: Path) -> None:
    with pytest.raises(UnknownJob, match="its jobs are: job"):
        load_job(f"{job_file}:jobb", {})


def test_an_object_that_is_no_job_is_named(job_file: Path) -> None:
    with pytest.raises(UnreadableJob, match="is a int"):
        load_job(f"{job_file}:number", {})


def test_a_job_object_refuses_settings(job_file: Path) -> None:
    with pytest.raises(UnreadableJob, match="takes no settings"):
        load_job(f"{job_file}:job", {"top": "3"})


def test_a_file_with_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef f(:\n")
    with pytest.raises(UnreadableJob, match=r"SyntaxError.*line 2"):
        load_job(f"{broken}:job", {})


@pytest.mark.parametrize("deed", ["1 / 0", "raise SystemExit('usage: ...')", "def_"])
def test_a_file_that_raises_names_the_line(tmp_path: Path, deed: str) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(f"x = 1\n\n\ndef f():\n    {deed}\n\n\nf()\n")
    with pytest.raises(UnreadableJob, match=r"(Error|Exit).* \(broken\.py, line 5\)$"):
        load_job(f"{broken}:job", {})


def test_a_factory_that_raises_is_named(job_file: Path) -> None:
    with pytest.raises(UnreadableJob, match=r"configured' raised KeyError: 'name' \(mine.py, line"):
        load_job(f"{job_file}:configured", {})


def test_an_unknown_setting_of_an_installed_job_is_refused() -> None:
    with pytest.raises(JobUsageError, match="colour"):
        load_job("url-count", {"colour": "blue"})
