"""Jobs with range partitions: their parts, one after the other, are in order."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimr
from minimr.errors import JobUsageError
from minimr.runner import submit


def emit_lines(line: bytes) -> Iterator[tuple[bytes, int]]:
    yield line, len(line)


def emit_numbers(line: bytes) -> Iterator[tuple[float, bytes]]:
    yield float(line), line


def identity(key: Any, values: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    return ((key, value) for value in values)


def parts(
    job: minimr.Job, lines: list[bytes], directory: Path, **options: Any
) -> list[list[bytes]]:
    (directory / "in").write_bytes(b"".join(line + b"\n" for line in lines))
    result = minimr.run(
        job, input=str(directory / "in"), output=str(directory / "out"), backend="local",
        overwrite=True, **options,
    )  # fmt: skip
    return [(directory / "out" / part.name).read_bytes().splitlines() for part in result.parts]


class KeepListed:
    """Map function that reads a file of the job."""

    def setup(self) -> None:
        self.listed = minimr.file("listed").read_bytes().split()

    def __call__(self, line: bytes) -> Iterator[tuple[bytes, int]]:
        if line in self.listed:
            yield line, 1


def test_sampling_leaves_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/sampled/listed", b"a b c")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    job = minimr.Job(
        "listed", map=KeepListed(), reduce=minimr.agg.sum, partition=minimr.RangePartition(),
        files=("memory://sampled/listed",),
    )  # fmt: skip
    found = parts(job, [b"a", b"x", b"b", b"c"], tmp_path, reducers=3, processes=0)
    assert [line for part in found for line in part] == [b"a\t1", b"b\t1", b"c\t1"]
    assert not list(Path.cwd().iterdir())


def interrupt(line: bytes) -> Iterator[tuple[bytes, int]]:
    raise KeyboardInterrupt


def test_ctrl_c_while_keys_are_sampled_leaves_nothing_beside_the_output(tmp_path: Path) -> None:
    import fsspec

    (tmp_path / "listed").write_bytes(b"a")
    (tmp_path / "in").write_bytes(b"a\n")
    job = minimr.Job(
        "interrupted", map=interrupt, reduce=minimr.agg.sum, partition=minimr.RangePartition(),
        files=(str(tmp_path / "listed"),),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        minimr.run(
            job, input=str(tmp_path / "in"), output="memory://interrupted/out", reducers=2,
            processes=0,
        )  # fmt: skip
    assert not fsspec.filesystem("memory").find("/interrupted")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("range")


@settings(max_examples=25)
@given(
    st.lists(st.integers(-50, 50), max_size=80),
    st.integers(1, 6),
    st.integers(20, 400),
    st.sampled_from([emit_lines, emit_numbers]),
    st.booleans(),
)
def test_the_parts_in_order_are_the_sorted_input(
    place: Path, numbers: list[int], reducers: int, split_size: int, map_: Any, split_keys: bool
) -> None:
    job = minimr.Job(
        "sorted", map=map_, reduce=identity,
        partition=minimr.RangePartition(split_keys=split_keys),
    )  # fmt: skip
    lines = [b"%d" % number for number in numbers]
    found = parts(job, lines, place, reducers=reducers, split_size=split_size, processes=0)
    keys = [pair.split(b"\t")[0] for part in found for pair in part]
    as_key: Callable[[bytes], Any] = bytes if map_ is emit_lines else float
    assert [as_key(key) for key in keys] == sorted(map(as_key, lines))
    if not split_keys:
        assert all(n == 1 for n in Counter(key for p in found for key in {*p}).values())


def test_values_of_a_key_that_is_cut_stay_in_the_order_of_the_input(tmp_path: Path) -> None:
    job = minimr.Job(
        "cut",
        map=lambda line: [(b"k" if int(line) % 10 else line, int(line))],
        reduce=identity,
        partition=minimr.RangePartition(split_keys=True),
    )
    lines = [b"%05d" % number for number in range(4000)]
    found = parts(job, lines, tmp_path, reducers=4, split_size=500, processes=0)
    pairs = [tuple(pair.split(b"\t")) for part in found for pair in part]
    wanted = sorted((line if int(line) % 10 == 0 else b"k", int(line)) for line in lines)
    assert pairs == [(key, b"%d" % value) for key, value in wanted]
    assert min(map(len, found)) > 500, "the frequent key fills several parts"


def test_a_frequent_key_does_not_share_its_part(tmp_path: Path) -> None:
    job = minimr.Job("hot", map=emit_lines, reduce=identity, partition=minimr.RangePartition())
    lines = [b"%04d" % number for number in range(1000)] + [b"0500"] * 1000
    found = parts(job, lines, tmp_path, reducers=6)
    hot = [part for part in found if any(pair.startswith(b"0500\t") for pair in part)]
    assert [len({*part}) for part in hot] == [1]


def test_sorted_input_far_larger_than_its_sample_makes_even_parts(tmp_path: Path) -> None:
    job = minimr.Job(
        "even", map=emit_lines, reduce=minimr.agg.count, partition=minimr.RangePartition()
    )
    lines = [b"%09d" % number for number in range(600_000)]
    found = parts(job, lines, tmp_path, reducers=5)
    assert sum(map(len, found)) == len(lines)
    assert max(map(len, found)) < 1.25 * len(lines) / 5


def test_input_of_which_only_whole_files_can_be_read_is_sampled_too(tmp_path: Path) -> None:
    import gzip

    for name in ("a", "b"):
        text = b"".join(b"%s%06d\n" % (name.encode(), n) for n in range(20_000))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text, 1))
    job = minimr.Job("packed", map=emit_lines, reduce=identity, partition=minimr.RangePartition())
    result = minimr.run(
        job, input=str(tmp_path / "*.gz"), output=str(tmp_path / "out"), reducers=2, processes=0
    )
    assert [part.record_count for part in result.parts] == [20_000, 20_000]


def test_a_record_that_the_sample_stumbles_over_fails_the_job_as_ever(tmp_path: Path) -> None:
    job = minimr.Job(
        "numbers", map=emit_numbers, reduce=identity, partition=minimr.RangePartition()
    )
    with pytest.raises(minimr.MinimrError, match=r"could not convert.* at byte 4"):
        parts(job, [b"1.5", b"wrong", b"2"], tmp_path, reducers=2)


def host_of(url: bytes) -> bytes:
    return url.split(b"/")[2]


def test_keys_that_share_what_is_hashed_share_a_part(tmp_path: Path) -> None:
    job = minimr.Job(
        "hosts", map=emit_lines, reduce=identity, partition=minimr.HashPartition(by=host_of)
    )
    lines = [b"http://host%d/%d" % (number % 20, number) for number in range(400)]
    found = parts(job, lines, tmp_path, reducers=4)
    hosts = [{host_of(pair) for pair in part} for part in found]
    assert sum(map(len, hosts)) == 20
    assert all(hosts), "and they are spread"


def test_a_job_without_reduce_has_nothing_to_partition() -> None:
    with pytest.raises(JobUsageError, match="without a reduce"):
        minimr.Job("x", map=emit_lines, partition=minimr.RangePartition())


def test_a_jobs_status_names_its_hottest_keys_and_its_largest_partition(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"hot\n" * 30 + b"warm\n" * 3 + b"cold\n")
    handle = submit(
        minimr.Job("skewed", map=emit_lines, reduce=identity),
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), reducers=2, split_size=40,
    )  # fmt: skip
    handle.wait()
    skew = handle.status().skew
    assert skew is not None
    assert [(hot.key, hot.record_count) for hot in skew.hot_keys] == [
        ("b'hot'", 30),
        ("b'warm'", 3),
    ]
    assert (skew.record_count, skew.partition_count) == (34, 2)
    largest = handle.status().parts[skew.largest_partition]
    assert skew.largest_record_count == largest.record_count >= 30
