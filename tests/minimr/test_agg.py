"""Aggregations against plain Python, over any cut into partial results."""

import statistics
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr import agg
from minimr.errors import JobUsageError, UnsupportedType
from minimr.job import Job
from minimr.pairs import concat_pairs, from_python
from minimr.shuffle.combine import aggregate_partitioned, aggregate_stream, whole_groups
from minimr.shuffle.keys import sort_order
from minimr.shuffle.partitioners import hashed_partitions

EXAMPLES = settings(max_examples=40)
ORACLE: dict[agg.Aggregation, Callable[[list[int]], Any]] = {
    agg.sum: sum,
    agg.count: len,
    agg.min: min,
    agg.max: max,
    agg.first: lambda values: values[0],
    agg.mean: statistics.fmean,
    agg.collect_set: lambda values: " ".join(map(str, sorted(set(values)))),
}
ROWS = st.lists(
    st.tuples(st.sampled_from([b"", b"a", b"b", b"bb"]), st.integers(-(10**6), 10**6)), min_size=1
)


def grouped(rows: list[tuple[bytes, int]]) -> dict[bytes, list[int]]:
    values: dict[bytes, list[int]] = defaultdict(list)
    for key, value in rows:
        values[key].append(value)
    return values


def batches_of(rows: list[tuple[bytes, int]], cuts: list[int]) -> list[pa.RecordBatch]:
    bounds = sorted({0, len(rows), *(cut % len(rows) for cut in cuts)})
    return [
        from_python([key for key, _ in rows[a:b]], [value for _, value in rows[a:b]])
        for a, b in pairwise(bounds)
    ]


@pytest.mark.parametrize("aggregation", ORACLE, ids=str)
@EXAMPLES
@given(rows=ROWS, cuts=st.lists(st.integers(0, 50), max_size=4))
def test_reducing_a_sorted_stream_in_any_batches_gives_pythons_answer(
    aggregation: agg.Aggregation, rows: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    made = aggregate_stream(batches_of(rows, cuts), aggregation, is_partial=False, finish=True)
    found = {k: v for batch in made for k, v in zip(*batch.to_pydict().values(), strict=True)}
    want = {key: ORACLE[aggregation](values) for key, values in sorted(grouped(rows).items())}
    assert found == pytest.approx(want) if aggregation is agg.mean else found == want
    assert list(found) == list(want)


@pytest.mark.parametrize("aggregation", ORACLE, ids=str)
@EXAMPLES
@given(rows=ROWS, cuts=st.lists(st.integers(0, 50), max_size=4))
def test_combining_pieces_first_changes_nothing(
    aggregation: agg.Aggregation, rows: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    partial = [
        aggregate_partitioned(batch, aggregation.partial, hashed_partitions(1))
        for batch in batches_of(rows, cuts)
    ]
    together = concat_pairs([run.pairs for run in partial])
    together = together.take(pa.array(sort_order([together.column(0)])))
    made = list(aggregate_stream([together], aggregation, is_partial=True, finish=True))
    found = dict(zip(*concat_pairs(made).to_pydict().values(), strict=True))
    want = {key: ORACLE[aggregation](values) for key, values in sorted(grouped(rows).items())}
    assert found == pytest.approx(want) if aggregation is agg.mean else found == want


@EXAMPLES
@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1).map(sorted),
    cuts=st.lists(st.integers(0, 50), max_size=6),
)
def test_whole_groups_keeps_every_row_and_never_cuts_a_key(
    keys: list[bytes], cuts: list[int]
) -> None:
    rows = [(key, number) for number, key in enumerate(keys)]
    made = list(whole_groups(batches_of(rows, cuts)))
    assert [row for batch in made for row in zip(*batch.to_pydict().values(), strict=True)] == rows
    seen = [key for batch in made for key in set(batch.column(0).to_pylist())]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("values", [[2**62, 2**62], [-(2**63), -1], [2**63 - 1] * 5])
def test_a_sum_beyond_64_bits_is_an_error_not_another_number(values: list[int]) -> None:
    with pytest.raises(UnsupportedType, match="64 bits"):
        reduce_all(agg.sum, values)


@pytest.mark.parametrize(
    "values", [[2**62, 2**62 - 1], [2**63 - 1, -5], [-(2**63), 2**63 - 1, 1], [-(2**62)] * 2]
)
def test_sums_near_the_limit_are_exact(values: list[int]) -> None:
    assert reduce_all(agg.sum, values) == sum(values)


@pytest.mark.parametrize(("kind", "values"), [("min", ["b", "a", "ü"]), ("max", [b"\xff", b"a"])])
def test_least_and_greatest_of_text_and_bytes(kind: str, values: list[Any]) -> None:
    assert reduce_all(getattr(agg, kind), values) == {"min": min, "max": max}[kind](values)


def test_the_sum_of_text_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="the values are str"):
        reduce_all(agg.sum, ["a"])


def reduce_all(aggregation: agg.Aggregation, values: list[Any]) -> Any:
    pairs = from_python([b"k"] * len(values), values)
    made = list(aggregate_stream([pairs], aggregation, is_partial=False, finish=True))
    return made[0].column(1)[0].as_py()


@pytest.mark.parametrize(
    ("combine", "reduce"),
    [
        (agg.sum, agg.count),
        (agg.count, agg.max),
        (agg.mean, agg.sum),
        (agg.mean, lambda key, values: []),
    ],
)
def test_a_combiner_that_its_reducer_misreads_is_refused(combine: Any, reduce: Any) -> None:
    with pytest.raises(JobUsageError, match="combine="):
        Job("x", map=lambda line: [], combine=combine, reduce=reduce)


@pytest.mark.parametrize(
    ("combine", "reduce"),
    [(agg.count, agg.count), (agg.count, agg.sum), (agg.mean, agg.mean), (None, agg.count)],
)
def test_combiners_that_fit_are_accepted(combine: Any, reduce: Any) -> None:
    assert Job("x", map=lambda line: [], combine=combine, reduce=reduce)


@EXAMPLES
@given(rows=ROWS, cuts=st.lists(st.integers(0, 50), max_size=4))
def test_keep_gives_every_value_in_its_order(
    rows: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    made = aggregate_stream(batches_of(rows, cuts), agg.keep, is_partial=False, finish=True)
    found = [row for batch in made for row in zip(*batch.to_pydict().values(), strict=True)]
    assert found == rows
