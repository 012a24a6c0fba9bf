"""The map-side buffer: a small budget changes where pairs lie, never what comes out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr import agg
from minimr.errors import UnsupportedType
from minimr.pairs import Pairs, from_python
from minimr.shuffle.buffer import MapOutputBuffer
from minimr.shuffle.combine import aggregate_stream
from minimr.shuffle.keys import partitions_of
from minimr.shuffle.partitioners import hashed_partitions
from minimr.shuffle.segment import SegmentReader

EXAMPLES = settings(max_examples=15)
BATCHES = st.lists(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"cc", b"prefix-8"]), st.integers(0, 9)), min_size=1
    ),
    max_size=8,
)
PARTITION_COUNT = 3


def write(
    path: Path, batches: list[list[tuple[bytes, int]]], combine: Any, budget_bytes: int
) -> tuple[int, list[list[tuple[bytes, Any]]]]:
    buffer = MapOutputBuffer(
        path,
        partitioner=hashed_partitions(PARTITION_COUNT),
        combine=combine,
        budget_bytes=budget_bytes,
    )
    for batch in batches:
        buffer.add(from_python([key for key, _ in batch], [value for _, value in batch]))
    spill_count = buffer.spill_count
    buffer.finish()
    with SegmentReader(path) as reader:
        return spill_count, [
            [
                pair
                for pairs in reader.read_pairs(partition)
                for pair in zip(*pairs.to_pydict().values(), strict=True)
            ]
            for partition in range(PARTITION_COUNT)
        ]


def count_by_hand(pairs: Pairs) -> Pairs:
    """A combine function as tasks hand it over: sums values of each key."""
    (made,) = aggregate_stream([pairs], agg.sum, is_partial=False, finish=True)
    return made


@pytest.mark.parametrize("combine", [None, agg.sum, agg.count, agg.first, agg.collect_set])
@EXAMPLES
@given(batches=BATCHES)
def test_a_tiny_budget_gives_the_same_segment(
    tmp_path_factory: pytest.TempPathFactory, combine: Any, batches: list[Any]
) -> None:
    directory = tmp_path_factory.mktemp("buffer")
    _, roomy = write(directory / "roomy", batches, combine, 1 << 30)
    spill_count, tight = write(directory / "tight", batches, combine, 40)
    assert tight == roomy
    assert spill_count > 0 or sum(map(len, batches)) < 20
    assert sorted(each.name for each in directory.iterdir()) == ["roomy", "tight"]


@EXAMPLES
@given(batches=BATCHES)
def test_without_a_combiner_every_pair_is_there_in_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[bytes, int]]]
) -> None:
    path = tmp_path_factory.mktemp("buffer") / "x"
    rows = [row for batch in batches for row in batch]
    for partition, found in enumerate(write(path, batches, None, 40)[1]):
        mine = [
            row
            for row in rows
            if partitions_of(from_python([row[0]], [0]).column(0), PARTITION_COUNT)[0] == partition
        ]
        assert found == sorted(mine, key=lambda row: row[0])


@pytest.mark.parametrize("budget_bytes", [40, 1 << 30])
@EXAMPLES
@given(batches=BATCHES)
def test_the_combiner_counts_each_value_once(
    tmp_path_factory: pytest.TempPathFactory, budget_bytes: int, batches: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("buffer") / "x"
    found = [row for rows in write(path, batches, agg.count, budget_bytes)[1] for row in rows]
    assert dict(found) == Counter(key for batch in batches for key, _ in batch)
    assert len(dict(found)) == len(found)


@EXAMPLES
@given(batches=BATCHES)
def test_a_combine_function_runs_on_sorted_pairs_of_one_partition(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Any]
) -> None:
    directory = tmp_path_factory.mktemp("buffer")
    _, by_hand = write(directory / "hand", batches, count_by_hand, 1 << 30)
    _, built_in = write(directory / "agg", batches, agg.sum, 1 << 30)
    assert by_hand == built_in


def test_a_combiner_that_shrinks_well_needs_no_spill(tmp_path: Path) -> None:
    batches = [[(b"a", 1)] * 100 for _ in range(50)]
    spill_count, found = write(tmp_path / "x", batches, agg.sum, 10_000)
    assert spill_count == 0
    assert [row for rows in found for row in rows] == [(b"a", 5_000)]


def test_the_type_of_keys_may_not_change_on_the_way(tmp_path: Path) -> None:
    buffer = MapOutputBuffer(
        tmp_path / "x",
        partitioner=hashed_partitions(1),
        combine=None,
        budget_bytes=1 << 20,
    )
    buffer.add(from_python([b"a"], [1]))
    with pytest.raises(UnsupportedType, match=r"bytes in .* and int in "):
        buffer.add(from_python([1], [1]))


def test_a_few_rows_of_a_large_batch_do_not_keep_it_alive(tmp_path: Path) -> None:
    buffer = MapOutputBuffer(
        tmp_path / "x",
        partitioner=hashed_partitions(1),
        combine=None,
        budget_bytes=1 << 30,
    )
    before = pa.total_allocated_bytes()
    for _ in range(5):
        large = from_python([b"k" * 1000] * 10_000, [1] * 10_000)
        buffer.add(large.slice(0, 1))
        del large
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert buffer.finish().record_count == 5
