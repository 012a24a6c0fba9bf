"""Whole jobs, attempt by attempt, against a Counter."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr import agg, increment
from minimr.job import Job
from tests.minimr.tasks.harness import Bench, splits_of

WORDS = st.lists(st.sampled_from([b"a", b"bb", b"the", b"\xff\xfe", b"prefix-8-one", b"\r"]))
TEXT = st.lists(WORDS.map(b" ".join)).map(b"\n".join)


def map_words(line: bytes) -> Iterator[tuple[bytes, int]]:
    for word in line.split():
        yield word, 1


def map_sevens(line: bytes) -> Iterator[tuple[bytes, int]]:
    """For counting: what the values are must not matter."""
    for word in line.split():
        yield word, 7


def add_up(key: bytes, values: Iterator[int]) -> Iterator[tuple[bytes, int]]:
    yield key, sum(values)


def map_words_batch(batch: pa.RecordBatch) -> pa.Table:
    text = b"\n".join(batch.column(0).to_pylist())
    counts = Counter(text.split())
    return pa.table(
        {
            "key": pa.array(list(counts), pa.binary()),
            "value": pa.array(list(counts.values()), pa.int64()),
        }
    )


def add_up_batch(table: pa.Table) -> Iterable[pa.Table]:
    sums = table.group_by("key", use_threads=False).aggregate([("value", "sum")])
    yield sums.select(["key", "value_sum"]).rename_columns(["key", "value"])


JOBS = {
    "records": Job("words", map=map_words, reduce=add_up),
    "records-combined": Job("words", map=map_words, combine=add_up, reduce=add_up),
    "aggregated": Job("words", map=map_words, combine=agg.sum, reduce=agg.sum),
    "counted": Job("words", map=map_sevens, combine=agg.count, reduce=agg.count),
    "lines": Job("words", map_batches=map_words_batch, reduce_batches=add_up_batch),
    "blocks": Job(
        "words", map_batches=map_words_batch, combine=agg.sum, reduce=agg.sum, input_format="blocks"
    ),
}


def check_counts(parts: dict[str, bytes], want: Counter[bytes], partition_count: int) -> None:
    assert list(parts) == [f"part-r-{index:05d}" for index in range(partition_count)]
    found: Counter[bytes] = Counter()
    for text in parts.values():
        records = [line.split(b"\t") for line in text.split(b"\n")[:-1]]
        assert [key for key, _ in records] == sorted(key for key, _ in records)
        assert not set(found) & {key for key, _ in records}, "a key in two partitions"
        found.update({key: int(value) for key, value in records})
    assert found == want


@pytest.mark.parametrize("name", JOBS)
@settings(max_examples=25)
@given(
    texts=st.lists(TEXT, max_size=3),
    cut_bytes=st.integers(3, 100),
    partition_count=st.integers(1, 4),
)
def test_word_count_equals_a_counter_for_any_splits_and_partitions(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    texts: list[bytes],
    cut_bytes: int,
    partition_count: int,
) -> None:
    directory = tmp_path_factory.mktemp("job")
    paths = []
    for number, text in enumerate(texts):
        paths.append(directory / f"in-{number}")
        paths[-1].write_bytes(text)
    bench = Bench(
        job=JOBS[name],
        splits=splits_of(paths, cut_bytes),
        directory=directory,
        partition_count=partition_count,
    )
    parts = bench.run()
    want: Counter[bytes] = Counter()
    for text in texts:
        want.update(text.split())
    check_counts(parts, want, partition_count)
    lines = [line for text in texts for line in re.findall(rb"[^\n]*\n|[^\n]+", text)]
    assert bench.counters["map.input_records"] == len(lines)
    assert bench.counters["input.bytes.local"] == sum(map(len, texts))
    assert bench.counters["output.records"] == len(want)


@pytest.mark.parametrize("name", ["records", "records-combined", "aggregated", "lines"])
def test_little_memory_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"".join(b"word-%d the the\n" % (n % 5000) for n in range(20_000)))
    outcomes = []
    for memory_bytes in (1 << 30, 200_000):
        directory = tmp_path / str(memory_bytes)
        bench = Bench(
            job=JOBS[name],
            splits=splits_of([path], 150_000),
            directory=directory,
            partition_count=2,
            memory_bytes=memory_bytes,
        )
        outcomes.append(bench.run())
        assert [each.suffix for each in (bench.scratch / bench.job_id).iterdir()] == [
            ".segment"
        ] * len(bench.splits), "temporary files were left behind"
    assert outcomes[0] == outcomes[1]


def test_gzip_input_counts_like_the_plain_text(tmp_path: Path) -> None:
    text = b"".join(b"word-%d the\n" % (n % 100) for n in range(50_000))
    (tmp_path / "in.gz").write_bytes(gzip.compress(text[:300_003]) + gzip.compress(text[300_003:]))
    bench = Bench(
        job=JOBS["aggregated"], splits=splits_of([tmp_path / "in.gz"]), directory=tmp_path
    )
    check_counts(bench.run(), Counter(text.split()), 1)
    assert bench.counters["map.input_records"] == 50_000


def test_values_of_a_key_arrive_in_order_of_split_and_position(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"".join(b"%03d\n" % n for n in range(500)))

    def keep(line: bytes) -> Iterator[tuple[str, bytes]]:
        yield "all", line

    def join(key: str, values: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        yield key, b" ".join(values)

    bench = Bench(
        job=Job("order", map=keep, reduce=join),
        splits=splits_of([tmp_path / "in"], 150),
        directory=tmp_path,
        memory_bytes=3000,
    )
    want = b"all\t" + b" ".join(b"%03d" % n for n in range(500)) + b"\n"
    assert bench.run() == {"part-r-00000": want}


def test_a_map_only_job_keeps_the_order_of_its_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"c\nb\na\nc\n")

    def number(line: bytes) -> list[tuple[bytes, float]]:
        return [(line, 0.5)]

    bench = Bench(
        job=Job("copy", map=number),
        splits=splits_of([tmp_path / "in"], 4),
        directory=tmp_path,
        partition_count=0,
    )
    assert bench.run() == {"part-m-00000": b"c\t0.5\nb\t0.5\n", "part-m-00001": b"a\t0.5\nc\t0.5\n"}


def test_a_job_without_input_publishes_an_empty_output(tmp_path: Path) -> None:
    for partition_count, names in ((2, ["part-r-00000", "part-r-00001"]), (0, [])):
        directory = tmp_path / str(partition_count)
        bench = Bench(
            job=JOBS["aggregated"], splits=(), directory=directory, partition_count=partition_count
        )
        assert bench.run() == dict.fromkeys(names, b"")
        assert json.loads((bench.output / "_manifest.json").read_bytes())["job_id"] == bench.job_id


class Top:
    """A reducer with state: the largest value of a partition, when it ends."""

    def __init__(self) -> None:
        self.best: tuple[int, bytes] | None = None

    def __call__(self, table: pa.Table) -> None:
        for key, value in zip(*table.to_pydict().values(), strict=True):
            self.best = max(self.best or (value, key), (value, key))

    def close(self) -> pa.Table | None:
        if self.best is None:
            return None
        return pa.table({"key": [self.best[1]], "value": [self.best[0]]})


def test_a_reducer_with_state_is_new_for_each_partition(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"".join(b"w%d " % n * n + b"\n" for n in range(9)))
    bench = Bench(
        job=Job("top", map=map_words, combine=agg.sum, reduce_batches=Top()),
        splits=splits_of([tmp_path / "in"]),
        directory=tmp_path,
        partition_count=3,
    )
    found = [line for text in bench.run().values() for line in text.splitlines()]
    assert len(found) == 3
    assert b"w8\t8" in found


def test_a_partition_function_decides_where_a_key_goes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a b c d\n")

    def partition(key: bytes, count: int) -> int:
        return ord(key) % count

    job = Job("p", map=map_words, reduce=agg.sum, partition=partition)
    bench = Bench(
        job=job, splits=splits_of([tmp_path / "in"]), directory=tmp_path, partition_count=2
    )
    assert bench.run() == {"part-r-00000": b"b\t1\nd\t1\n", "part-r-00001": b"a\t1\nc\t1\n"}


def test_counters_of_user_functions_count_in_every_phase(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a b\nc\n")

    def map_counted(line: bytes) -> Iterator[tuple[bytes, int]]:
        increment("lines")
        yield from map_words(line)

    def reduce_counted(key: bytes, values: Iterator[int]) -> Any:
        increment("keys", 10)
        return add_up(key, values)

    bench = Bench(
        job=Job("c", map=map_counted, reduce=reduce_counted),
        splits=splits_of([tmp_path / "in"]),
        directory=tmp_path,
    )
    bench.run()
    assert bench.counters["lines"] == 2
    assert bench.counters["keys"] == 30


def test_progress_ends_at_its_total_and_never_goes_back(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some words\n" * 300_000)
    bench = Bench(job=JOBS["aggregated"], splits=splits_of([tmp_path / "in"]), directory=tmp_path)
    output = bench.map(0).output
    assert output is not None
    assert len(bench.progress) >= 3
    assert bench.progress == sorted(bench.progress)
    assert bench.progress[-1] == (3_300_000, 3_300_000)
    bench.progress.clear()
    bench.reduce(0, [output])
    assert bench.progress[-1][0] == bench.progress[-1][1] == bench.counters["shuffle.bytes"]


def test_the_manifest_describes_each_part(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"b a\nc a\n")
    bench = Bench(job=JOBS["records"], splits=splits_of([tmp_path / "in"]), directory=tmp_path)
    text = bench.run()["part-r-00000"]
    manifest = json.loads((bench.output / "_manifest.json").read_bytes())
    assert manifest["job_id"] == bench.job_id
    assert manifest["counters"]["map.input_records"] == 2
    assert manifest["parts"] == [
        {
            "name": "part-r-00000",
            "size_bytes": len(text),
            "xxh3": xxhash.xxh3_64_hexdigest(text),
            "records": 3,
            "min_key": "b'a'",
            "max_key": "b'c'",
            "attempt": "test-00000001/r-00000.1-1",
        }
    ]
