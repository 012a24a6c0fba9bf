"""The same bytes each time: whatever the splits, the memory, the combiner and the partitions."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimr
from minimr.backends.key_sampling import sampled_split_points
from minimr.formats.storage import Storage
from tests.minimr.tasks.harness import Bench, splits_of

WORDS = st.sampled_from([b"", b"a", b"aa", b"prefix-8", b"prefix-80", b"prefix-81", b"z" * 40])
ROWS = st.lists(st.tuples(WORDS, st.integers(-5, 5)), max_size=120)


def emit(line: bytes) -> Iterator[tuple[bytes, int]]:
    key, _, value = line.partition(b" ")
    yield key, int(value)


def add(key: bytes, values: Iterator[int]) -> Iterator[tuple[bytes, int]]:
    yield key, sum(values)


def first_letter(key: bytes) -> bytes:
    return key[:1]


def by_length(key: bytes, count: int) -> int:
    return len(key) % count


PARTITIONS: list[Any] = [
    None,
    minimr.HashPartition(by=first_letter),
    minimr.RangePartition(),
    by_length,
]
COMBINERS = [(None, add), (add, add), (minimr.agg.sum, minimr.agg.sum), (None, minimr.agg.sum)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("same")


@pytest.mark.parametrize("partition", PARTITIONS, ids=["hash", "hash-by", "range", "function"])
@settings(max_examples=20)
@given(
    rows=ROWS,
    partition_count=st.integers(1, 4),
    data=st.data(),
)
def test_parts_do_not_depend_on_splits_memory_or_combiner(
    place: Path,
    partition: Any,
    rows: list[tuple[bytes, int]],
    partition_count: int,
    data: st.DataObject,
) -> None:
    directory = Path(tempfile.mkdtemp(dir=place))
    (directory / "in").write_bytes(b"".join(b"%s %d\n" % row for row in rows))
    sums: dict[bytes, int] = defaultdict(int)
    for key, value in rows:
        sums[key] += value
    wanted = b"".join(b"%s\t%d\n" % row for row in sorted(sums.items()))
    seen = set()
    for number in range(3):
        combine, reduce = data.draw(st.sampled_from(COMBINERS))
        bench = Bench(
            job=minimr.Job("same", map=emit, combine=combine, reduce=reduce, partition=partition),
            splits=splits_of([directory / "in"], data.draw(st.integers(3, 2000))),
            directory=directory / str(number),
            partition_count=partition_count,
            memory_bytes=data.draw(st.sampled_from([1 << 30, 1 << 16, 2048])),
        )
        (directory / str(number)).mkdir()
        bench.split_points = sampled_split_points(bench.job, bench.spec, Storage())
        parts = tuple(bench.run().values())
        seen.add(parts)
        assert b"".join(sorted(b"".join(parts).splitlines(keepends=True))) == b"".join(
            sorted(wanted.splitlines(keepends=True))
        )
        if isinstance(partition, minimr.RangePartition):
            assert b"".join(parts) == wanted
    assert len(seen) == 1
