"""What inputs name, looked up on a real disk."""

import os
from pathlib import Path

import pytest

from minimr.backends.inputs import find_inputs
from minimr.errors import InputMissing, JobUsageError
from minimr.formats.storage import Storage, absolute_url
from minimr.inputs import Lines


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ["b.txt", "a.txt", "deep/er/c.gz", "_no.txt", ".no", "deep/_tmp/d.txt", "x[1].txt"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path


def found(tree: Path, *locations: str) -> list[str]:
    urls = [absolute_url(f"{tree}/{location}") for location in locations]
    files = find_inputs(Storage(), urls, input_format=Lines())
    assert all(file.size_bytes == 5 for file in files)
    return [file.url.removeprefix(f"file://{tree}/") for file in files]


def test_a_directory_stands_for_every_visible_file_below_it_in_order(tree: Path) -> None:
    assert found(tree, ".") == ["a.txt", "b.txt", "deep/er/c.gz", "x[1].txt"]


def test_a_file_that_is_named_is_read_even_if_its_name_is_hidden_or_a_pattern(tree: Path) -> None:
    assert found(tree, "_no.txt", "x[1].txt") == ["_no.txt", "x[1].txt"]


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("*.txt", ["a.txt", "b.txt", "x[1].txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("deep/*", ["deep/er/c.gz"]),
        ("**/*.gz", ["deep/er/c.gz"]),
        ("d*/er/?.gz", ["deep/er/c.gz"]),
    ],
)
def test_a_glob_finds_what_it_matches(tree: Path, pattern: str, files: list[str]) -> None:
    assert found(tree, pattern) == files


def test_inputs_keep_their_order_and_compression_shows_in_the_name(tree: Path) -> None:
    assert found(tree, "b.txt", "a.txt") == ["b.txt", "a.txt"]
    (packed,) = find_inputs(Storage(), [absolute_url(f"{tree}/deep/er/c.gz")], input_format=Lines())
    assert packed.compression == "gzip"


@pytest.mark.parametrize("location", ["gone.txt", "gone/*.txt", "*.gone", "deep/gone"])
def test_what_is_not_there_is_named(tree: Path, location: str) -> None:
    with pytest.raises(InputMissing) as caught:
        found(tree, location)
    assert location in str(caught.value)


def test_a_pipe_is_refused_by_name_and_passed_over_in_a_directory(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    assert "pipe.txt" not in found(tree, ".")
    with pytest.raises(JobUsageError, match=r"pipe.txt is a pipe"):
        found(tree, "pipe.txt")
