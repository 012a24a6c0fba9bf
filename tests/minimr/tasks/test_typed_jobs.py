"""Jobs whose keys and values have any of the types, against a plain oracle."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_hexdigest

from minimr import Job, agg, run
from minimr.column_text import as_text
from minimr.pairs import from_python
from minimr.partition import HashPartition
from minimr.verify import verify_output
from tests.minimr.tasks.harness import Bench, splits_of

EPOCH = datetime.fromisoformat("2024-01-01")
TYPES: dict[str, Callable[[int], Any]] = {
    "bytes": lambda n: b"%d" % n,
    "str": lambda n: "é" * (n % 3) + str(n),
    "int": lambda n: n - 3,
    "float": lambda n: (n - 3) / 2,
    "bool": lambda n: n % 2 == 0,
    "date": lambda n: date(2024, 1, 1 + n),
    "time": lambda n: time(n, 59),
    "datetime": lambda n: EPOCH - timedelta(hours=n),
    "instant": lambda n: EPOCH.replace(tzinfo=UTC) + timedelta(hours=n),
    "tuple": lambda n: ("ab"[n % 2], n // 2, (n == 4, None)),
    "none": lambda n: None,
}


def identity(key: Any, values: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    return ((key, value) for value in values)


def text_of(value: Any) -> bytes:
    text: bytes = as_text(from_python([value], [value]).column(0))[0].as_py()
    return text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("typed")


@pytest.mark.parametrize("key_type", TYPES)
@settings(max_examples=6)
@given(
    st.lists(st.integers(0, 9), max_size=30),
    st.sampled_from(sorted(TYPES)),
    st.integers(1, 3),
    st.integers(4, 40),
    st.sampled_from([1 << 30, 4096]),
)
def test_values_come_grouped_by_key_in_order(
    place: Path,
    key_type: str,
    numbers: list[int],
    value_type: str,
    partition_count: int,
    split_bytes: int,
    memory_bytes: int,
) -> None:
    key_of, value_of = TYPES[key_type], TYPES[value_type]
    place = Path(tempfile.mkdtemp(dir=place))
    (place / "in").write_bytes(b"".join(b"%d\n" % number for number in numbers))
    job = Job(
        "typed",
        map=lambda line: [(key_of(int(line)), value_of((int(line) * 7) % 10))],
        reduce=identity,
        partition=HashPartition(by=lambda key: (key,)),
    )
    bench = Bench(
        job=job, splits=splits_of([place / "in"], split_bytes), directory=place,
        partition_count=partition_count, memory_bytes=memory_bytes,
    )  # fmt: skip
    found = bench.run()
    groups: dict[Any, list[Any]] = defaultdict(list)
    for number in numbers:
        groups[key_of(number)].append(value_of((number * 7) % 10))
    wanted = {
        key: [text_of(key) + b"\t" + text_of(value) + b"\n" for value in values]
        for key, values in sorted(groups.items())
    }
    seen = []
    for content in found.values():
        lines = content.splitlines(keepends=True)
        keys_here = [key for key, rows in wanted.items() if rows[0] in lines]
        assert lines == [row for key in keys_here for row in wanted[key]]
        seen += keys_here
    assert sorted(seen, key=list(wanted).index) == list(wanted)


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize("aggregation", [agg.min, agg.max, agg.first, agg.count, agg.collect_set])
def test_aggregations_take_every_type(
    tmp_path: Path, value_type: str, aggregation: agg.Aggregation
) -> None:
    value_of = TYPES[value_type]
    (tmp_path / "in").write_bytes(b"4\n2\n8\n2\n")
    job = Job(
        "typed",
        map=lambda line: [("k", value_of(int(line)))],
        combine=aggregation,
        reduce=aggregation,
    )
    bench = Bench(job=job, splits=splits_of([tmp_path / "in"], 4), directory=tmp_path)
    values = [value_of(number) for number in (4, 2, 8, 2)]
    wanted = {
        "min": lambda: text_of(min(values)) if values[0] is not None else b"",
        "max": lambda: text_of(max(values)) if values[0] is not None else b"",
        "first": lambda: text_of(values[0]),
        "count": lambda: b"4",
        "collect_set": lambda: b" ".join(
            text_of(value) for value in (sorted({*values}) if values[0] is not None else [None])
        ),
    }[aggregation.name]()
    assert bench.run() == {"part-r-00000": b"k\t" + wanted + b"\n"}


AGGREGATIONS: dict[str, tuple[Any, Any]] = {  # combine, reduce
    "sum": (agg.sum, agg.sum),
    "count": (agg.count, agg.count),
    "max": (agg.max, agg.max),
    "mean": (agg.mean, agg.mean),
    "first": (None, agg.first),
    "collect_set": (agg.collect_set, agg.collect_set),
    "keep": (None, agg.keep),
}


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parts_without_rows_have_the_types_of_the_others(
    tmp_path: Path, name: str, form: str
) -> None:
    """Readers of directories take the types of the first file for those of all."""
    (tmp_path / "in").write_bytes(b"a\nb\n")
    combine, reduce = AGGREGATIONS[name]
    job = Job(
        "types",
        map=lambda line: [(line.decode(), 1)],
        combine=combine,
        reduce=reduce,
        partition=lambda key, count: 2,
    )
    bench = Bench(
        job=job,
        splits=splits_of([tmp_path / "in"]),
        directory=tmp_path,
        partition_count=4,
        settings=(("output_format", form),),
    )
    bench.run()
    schemas = [ds.dataset(part, format=form).schema for part in sorted(bench.output.glob("part-*"))]
    assert schemas == [schemas[2]] * 4
    assert ds.dataset(bench.output, format=form, ignore_prefixes=["_"]).to_table().num_rows == 2


def function_job(*, is_map_only: bool) -> Job:
    def map_line(line: bytes) -> list[tuple[str, float]]:
        return [(line.decode(), 0.5)] if line != b"none" else []

    def total(key: str, values: Iterator[float]) -> list[tuple[str, float]]:
        return [(key, sum(values))]

    if is_map_only:
        return Job("typed", map=map_line)
    return Job("typed", map=map_line, reduce=total, partition=lambda key, count: 2)


@pytest.mark.parametrize("is_map_only", [False, True])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parts_without_rows_have_the_types_of_the_others_behind_functions_too(
    tmp_path: Path, is_map_only: bool, form: str
) -> None:
    for name, content in (("1", b"none\n"), ("2", b"none\n"), ("3", b"a\nb\n"), ("4", b"none\n")):
        (tmp_path / name).write_bytes(content)
    bench = Bench(
        job=function_job(is_map_only=is_map_only),
        splits=splits_of([tmp_path / name for name in "1234"]),
        directory=tmp_path,
        partition_count=0 if is_map_only else 4,
        settings=(("output_format", form),),
    )
    parts = bench.parts()
    bench.publish(parts)
    files = sorted(bench.output.glob("part-*"))
    assert len(files) == 4
    assert {str(ds.dataset(file, format=form).schema) for file in files} == {
        "key: string\nvalue: double"
    }
    table = ds.dataset(bench.output, format=form, ignore_prefixes=["_"]).to_table()
    assert table.to_pydict() == {"key": ["a", "b"], "value": [0.5, 0.5]}
    assert verify_output(f"file://{bench.output}").is_whole, "the manifest has what is there"
    before = {file.name: file.read_bytes() for file in bench.output.iterdir()}
    bench.publish(parts)  # by an attempt that finds it published
    assert {file.name: file.read_bytes() for file in bench.output.iterdir()} == before


def test_what_a_run_says_of_its_parts_is_what_they_are(tmp_path: Path) -> None:
    """Also of those that publishing wrote anew."""
    (tmp_path / "in").write_bytes(b"a\nb\n")
    result = run(
        function_job(is_map_only=False),
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        reducers=4,
        settings={"output_format": "parquet"},
    )
    assert [part.record_count for part in result.parts] == [0, 0, 2, 0]
    for part in result.parts:
        content = (tmp_path / "out" / part.name).read_bytes()
        assert (part.size_bytes, part.xxh3) == (len(content), xxh3_64_hexdigest(content))
    assert result.to_arrow().num_rows == 2


def test_a_reduce_may_not_change_the_type_of_its_keys(tmp_path: Path) -> None:
    from minimr.tasks.attempt import AttemptFailed

    (tmp_path / "in").write_bytes(b"1\n2\n")
    job = Job(
        "typed",
        map=lambda line: [(int(line), 1)],
        reduce=lambda key, values: [(key if key == 1 else str(key), sum(values))],
    )
    with pytest.raises(
        AttemptFailed, match="keys of one job must have one type; found int and str"
    ):
        Bench(job=job, splits=splits_of([tmp_path / "in"]), directory=tmp_path).run()


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("reducers", [1, 3])
def test_tuples_that_only_python_takes_for_equal_are_different_keys(
    tmp_path: Path, reducers: int, *, combined: bool
) -> None:
    def total(key: Any, values: Iterator[int]) -> Iterator[tuple[Any, int]]:
        yield key, sum(values)

    keys = [(True,), (1,), (1.0,), ("a", (True,)), ("a", (1,))]
    (tmp_path / "in").write_bytes(b"".join(b"%d\n" % index for index in range(len(keys))) * 2)
    job = Job(
        "equals",
        map=lambda line: [(keys[int(line)], 1)],
        combine=total if combined else None,
        reduce=total,
    )
    run(
        job,
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        reducers=reducers,
        processes=0,
    )
    lines = b"".join(part.read_bytes() for part in (tmp_path / "out").glob("part-*"))
    assert sorted(lines.splitlines()) == [
        b'["a",[1]]\t2', b'["a",[true]]\t2', b"[1.0]\t2", b"[1]\t2", b"[true]\t2",
    ]  # fmt: skip
