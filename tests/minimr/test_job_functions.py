"""Order of values, codecs, hooks and files: what a job may say beside its functions."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimr
from minimr.errors import InputMissing, JobFailed, JobUsageError
from tests.minimr.tasks.harness import Bench, splits_of


def pair(line: bytes) -> Iterator[tuple[bytes, int]]:
    key, _, value = line.partition(b" ")
    yield key, int(value)


def identity(key: Any, values: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    return ((key, value) for value in values)


def run(job: minimr.Job, lines: list[bytes], place: Path, **options: Any) -> list[list[bytes]]:
    (place / "in").write_bytes(b"".join(line + b"\n" for line in lines))
    options = {"processes": 0, **options}
    result = minimr.run(
        job, input=str(place / "in"), output=str(place / "out"), overwrite=True, **options
    )
    return [(place / "out" / part.name).read_bytes().splitlines() for part in result.parts]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("functions")


KEYS = [b"", b"a", b"longer-than-8", b"longer-than-9"]
ORDERS: dict[str, tuple[Any, Any]] = {
    "values": (True, lambda value: value),
    "descending": (lambda value: -value, lambda value: -value),
    "coarse": (lambda value: ("x" if value % 2 else "y", None), lambda value: value % 2 == 0),
}


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.integers(-9, 9)), max_size=60),
    st.integers(1, 3),
    st.integers(8, 200),
    st.sampled_from([1 << 30, 2048]),
)  # fmt: skip
def test_values_come_in_their_order_whatever_the_splits_and_the_memory(
    place: Path,
    order: str,
    rows: list[tuple[bytes, int]],
    partition_count: int,
    split_bytes: int,
    memory_bytes: int,
) -> None:
    sort_values, oracle = ORDERS[order]
    directory = place / f"{len(list(place.iterdir()))}"
    directory.mkdir()
    (directory / "in").write_bytes(b"".join(b"%s %d\n" % row for row in rows))
    bench = Bench(
        job=minimr.Job("ordered", map=pair, reduce=identity, sort_values=sort_values),
        splits=splits_of([directory / "in"], split_bytes), directory=directory,
        partition_count=partition_count, memory_bytes=memory_bytes,
    )  # fmt: skip
    groups: dict[bytes, list[int]] = defaultdict(list)
    for key, value in rows:
        groups[key].append(value)
    found = [line for part in bench.run().values() for line in part.splitlines()]
    wanted = [
        b"%s\t%d" % (key, value)
        for key, values in sorted(groups.items())
        for value in sorted(values, key=oracle)
    ]
    assert sorted(found, key=lambda line: line.partition(b"\t")[0]) == wanted


def test_the_first_value_in_its_order_is_what_an_aggregation_takes(tmp_path: Path) -> None:
    job = minimr.Job("best", map=pair, reduce=minimr.agg.first, sort_values=lambda value: -value)
    lines = [b"a 1", b"b 7", b"a 9", b"b 2"]
    assert run(job, lines, tmp_path, split_size=4) == [[b"a\t9", b"b\t7"]]


def test_an_order_function_that_raises_is_to_blame(tmp_path: Path) -> None:
    job = minimr.Job("bad", map=pair, reduce=identity, sort_values=lambda value: 1 // value)
    with pytest.raises(JobFailed, match="sort_values raised ZeroDivisionError"):
        run(job, [b"a 0"], tmp_path)


def test_values_that_are_sorted_stay_what_they_are(tmp_path: Path) -> None:
    job = minimr.Job(
        "floats", map=lambda line: [(b"k", float(line))], reduce=identity, sort_values=True
    )
    assert run(
        job, [b"1", b"-0.0", b"0.0", b"-1", b"-0.0"], tmp_path, split_size=5, reducers=1
    ) == [[b"k\t-1.0", b"k\t-0.0", b"k\t0.0", b"k\t-0.0", b"k\t1.0"]]


def test_a_combiner_would_undo_the_order_of_values() -> None:
    with pytest.raises(JobUsageError, match="forbids combine="):
        minimr.Job("x", map=pair, combine=minimr.agg.sum, reduce=minimr.agg.sum, sort_values=True)


def test_a_codec_carries_types_of_the_users(tmp_path: Path) -> None:
    def emit(line: bytes) -> Iterator[tuple[Decimal, Fraction]]:
        key, _, value = line.partition(b" ")
        yield Decimal(key.decode()), Fraction(value.decode())

    def add(key: Decimal, values: Iterator[Fraction]) -> Iterator[tuple[Any, Any]]:
        assert isinstance(key, Decimal)
        yield key, sum(values)

    job = minimr.Job(
        "coded",
        map=emit,
        combine=add,
        reduce=lambda key, values: [(str(key), str(next(iter(add(key, values)))[1]))],
        partition=minimr.HashPartition(by=int),
        key_codec=minimr.Codec(encode=float, decode=Decimal),
        value_codec=minimr.Codec(
            encode=lambda value: (value.numerator, value.denominator),
            decode=lambda parts: Fraction(*parts),
        ),
    )
    lines = [b"0.5 1/3", b"-2.25 1/7", b"0.50 1/6", b"7 2"]
    assert run(job, lines, tmp_path, split_size=8, reducers=1) == [
        [b"-2.25\t1/7", b"0.5\t1/2", b"7\t2"]
    ]
    with pytest.raises(JobFailed, match=r"a key of type Decimal.*codec"):
        run(minimr.Job("uncoded", map=emit, reduce=identity), lines, tmp_path)


def ends_at_two(value: int) -> int:
    if value == 2:
        next(iter(()))  # a slip that must not look like the end of something else
    return value


def test_a_stop_iteration_of_a_users_function_is_not_the_end_of_the_values(tmp_path: Path) -> None:
    lines = [b"a 1", b"a 2", b"a 3"]
    coded = minimr.Job(
        "coded", map=pair, reduce=identity,
        value_codec=minimr.Codec(encode=lambda value: value, decode=ends_at_two),
    )  # fmt: skip
    with pytest.raises(JobFailed, match="reduce raised RuntimeError: generator raised Stop"):
        run(coded, lines, tmp_path)
    ordered = minimr.Job("ordered", map=pair, reduce=identity, sort_values=ends_at_two)
    with pytest.raises(JobFailed, match="sort_values raised StopIteration"):
        run(ordered, lines, tmp_path)


class CountHere:
    """Combines in the map function, and gives its counts at the end."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self.is_ready = False

    def setup(self) -> None:
        assert not self.counts
        self.is_ready = True

    def __call__(self, line: bytes) -> Iterator[tuple[bytes, int]]:
        assert self.is_ready
        self.counts[line] = self.counts.get(line, 0) + 1
        yield from ()

    def teardown(self) -> Iterator[tuple[bytes, int]]:
        yield from self.counts.items()


class AddAndTotal:
    def setup(self) -> None:
        self.total = 0

    def __call__(self, key: bytes, values: Iterator[int]) -> Iterator[tuple[bytes, int]]:
        count = sum(values)
        self.total += count
        yield key, count

    def teardown(self) -> list[tuple[bytes, int]]:
        return [(b"total", self.total)]


@pytest.mark.parametrize("processes", [0, 2])
def test_hooks_run_once_an_attempt_with_a_state_of_its_own(tmp_path: Path, processes: int) -> None:
    job = minimr.Job("hooks", map=CountHere(), reduce=AddAndTotal())
    lines = [b"a", b"b", b"a"] * 5
    assert run(job, lines, tmp_path, split_size=6, processes=processes, reducers=1) == [
        [b"a\t10", b"b\t5", b"total\t15"]
    ]


def test_teardown_is_called_for_an_attempt_that_fails(tmp_path: Path) -> None:
    class Fails:
        def __call__(self, line: bytes) -> Any:
            raise ValueError("no")

        def teardown(self) -> None:
            (tmp_path / "closed").touch()

    with pytest.raises(JobFailed, match="ValueError: no"):
        run(minimr.Job("fails", map=Fails(), reduce=identity), [b"a"], tmp_path)
    assert (tmp_path / "closed").exists()


def test_teardown_is_called_once_if_it_is_what_fails(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.touch()

    class Fails:
        def setup(self) -> None:
            calls.write_text(calls.read_text() + "setup ")

        def __call__(self, line: bytes) -> Any:
            return []

        def teardown(self) -> None:
            calls.write_text(calls.read_text() + "teardown ")
            raise ValueError("no")

    with pytest.raises(JobFailed, match="teardown of map raised ValueError: no"):
        run(minimr.Job("fails", map=Fails(), reduce=identity), [b"a"], tmp_path)
    made = calls.read_text().split()
    assert made == ["setup", "teardown"] * (len(made) // 2)


class Keep:
    def setup(self) -> None:
        self.words = set(minimr.file("words.txt").read_bytes().split())

    def __call__(self, line: bytes) -> Iterator[tuple[bytes, int]]:
        if line in self.words:
            yield line, 1


@pytest.mark.parametrize("processes", [0, 2])
def test_a_broadcast_file_is_there_for_every_task(tmp_path: Path, processes: int) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(b"b d\n")
    job = minimr.Job("kept", map=Keep(), reduce=minimr.agg.sum, files=(str(words),))
    found = run(job, [b"a", b"b", b"c", b"d"], tmp_path, split_size=4, processes=processes)
    assert found == [[b"b\t1", b"d\t1"]]


def test_a_file_that_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    missing = minimr.Job("x", map=Keep(), reduce=minimr.agg.sum, files=(str(tmp_path / "none"),))
    with pytest.raises(InputMissing, match="none"):
        run(missing, [b"a"], tmp_path)
    with pytest.raises(JobFailed, match=r"file\('words.txt'\): the job's files are: none"):
        run(minimr.Job("x", map=Keep(), reduce=minimr.agg.sum), [b"a"], tmp_path)
    with pytest.raises(JobUsageError, match="while a job runs"):
        minimr.file("words.txt")


def test_a_file_that_changes_under_a_job_fails_it(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(b"b\n")

    def change(line: bytes) -> Iterator[tuple[bytes, int]]:
        words.write_bytes(line)
        yield minimr.file("words.txt").read_bytes(), 1

    job = minimr.Job("x", map=change, reduce=minimr.agg.sum, files=(str(words),))
    with pytest.raises(JobFailed, match="has changed since the job was submitted"):
        run(job, [b"a"], tmp_path)


def test_a_file_is_read_once_however_often_a_task_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(b"b d\n")
    asked: list[Path] = []
    read_bytes = Path.open

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == words:
            asked.append(path)
        return read_bytes(path, *arguments, **options)

    def look(line: bytes) -> Iterator[tuple[bytes, int]]:
        minimr.file("words.txt")
        yield line, 1

    job = minimr.Job("asks", map=look, reduce=minimr.agg.sum, files=(str(words),))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", counted)
        run(job, [b"a"] * 100, tmp_path)
    assert len(asked) <= 2  # once for its sum when the job begins, once by the task


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_packed_map_outputs_give_the_same_output(tmp_path: Path, compression: str) -> None:
    job = minimr.Job("packed", map=pair, reduce=identity)
    lines = [b"%03d %d" % (number % 100, number) for number in range(3000)]
    plain = run(job, lines, tmp_path, split_size=10_000, reducers=2)
    packed = run(
        job, lines, tmp_path, split_size=10_000, reducers=2,
        settings={"shuffle_compression": compression},
    )  # fmt: skip
    assert packed == plain
    with pytest.raises(JobUsageError, match="none of lz4, zstd, none"):
        run(job, lines, tmp_path, settings={"shuffle_compression": "gzip"})


def test_a_broadcast_file_of_this_machine_goes_where_the_output_will_be(tmp_path: Path) -> None:
    """Workers of other machines can read there; with the staging directory it goes again."""
    import fsspec

    (tmp_path / "words.txt").write_bytes(b"b\n")
    (tmp_path / "in").write_bytes(b"a\nb\n")
    job = minimr.Job(
        "kept", map=Keep(), reduce=minimr.agg.sum, files=(str(tmp_path / "words.txt"),)
    )
    result = minimr.run(
        job, input=str(tmp_path / "in"), output="memory://broadcast/out", backend="local"
    )
    assert result.to_arrow().to_pydict() == {"key": ["b"], "value": [1]}
    found = fsspec.filesystem("memory").find("/broadcast")
    assert [name.rpartition("/")[2] for name in sorted(found)] == ["_manifest.json", "part-r-00000"]
