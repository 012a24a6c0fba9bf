"""Jobs many times larger than their memory, which the kernel bounds (RLIMIT_DATA of executors)."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimr
from minimr.errors import JobUsageError
from minimr.jobs import sort

MEMORY_BYTES = 16 << 20
RECORD_BYTES = 100


def records(kind: str, size_bytes: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    found = np.random.default_rng(1).integers(
        33, 127, (size_bytes // RECORD_BYTES, RECORD_BYTES), np.uint8
    )
    if kind == "constant":
        found[:, :10] = 65
    elif kind == "few":
        found[:, :9] = 65
    elif kind == "skewed":
        found[: len(found) * 9 // 10, :9] = 65
    found[:, -1] = 10
    return found


def sort_bounded(place: Path, kind: str, ratio: int, reducers: int) -> None:
    """Sort with one executor; the records come out as they went in, in order."""
    content = records(kind, ratio * MEMORY_BYTES)
    (place / "in").write_bytes(content)
    result = minimr.run(
        sort.job({}), input=str(place / "in"), output=str(place / "out"), processes=1,
        reducers=reducers, memory=MEMORY_BYTES,
    )  # fmt: skip
    (place / "in").unlink()
    sizes = [part.record_count for part in result.parts]
    found = np.concatenate(
        [np.fromfile(place / "out" / part.name, np.uint8) for part in result.parts]
    ).reshape(-1, RECORD_BYTES)
    order = np.argsort(np.ascontiguousarray(content[:, :10]).view("S10").ravel(), kind="stable")
    assert (found == content[order]).all()
    if kind == "constant":
        assert max(sizes) <= 2 * len(content) // reducers, "the one key fills all parts"


def test_a_sort_twice_as_large_as_its_memory(tmp_path: Path) -> None:
    sort_bounded(tmp_path, "constant", ratio=2, reducers=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["uniform", "constant", "few", "skewed"])
@pytest.mark.parametrize(("ratio", "reducers"), [(4, 1), (16, 3)])
def test_a_sort_far_larger_than_its_memory(
    tmp_path: Path, kind: str, ratio: int, reducers: int
) -> None:
    sort_bounded(tmp_path, kind, ratio, reducers)


def emit(line: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield line[:10], line[10:]


def in_order(key: bytes, values: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Reads all values of a key, and says how often the next one is not less."""
    yield key, sum(one <= other for one, other in pairwise(values))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sort_values", [False, True])
def test_a_reduce_function_streams_a_key_far_larger_than_memory(
    tmp_path: Path, sort_values: bool
) -> None:
    content = records("constant", 4 * MEMORY_BYTES)
    (tmp_path / "in").write_bytes(content)
    job = minimr.Job("stream", map=emit, reduce=in_order, sort_values=sort_values)
    result = minimr.run(
        job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), processes=1,
        memory=MEMORY_BYTES,
    )  # fmt: skip
    (count,) = result.to_arrow().column("value").to_pylist()
    assert (count == len(content) - 1) == sort_values


def test_too_little_memory_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    with pytest.raises(JobUsageError, match="at least 16 MiB"):
        minimr.run(
            minimr.Job("x", map=emit, reduce=in_order), input=str(tmp_path / "in"),
            output=str(tmp_path / "out"), memory=1 << 20,
        )  # fmt: skip
