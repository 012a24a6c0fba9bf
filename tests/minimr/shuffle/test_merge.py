"""Merging sorted runs against sorting everything, within the memory it was given."""

import random
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.errors import UnsupportedType
from minimr.pairs import from_python
from minimr.shuffle.merge import MemoryMeter, SortedRun, merge_runs
from minimr.shuffle.segment import FRAME_BYTES

EXAMPLES = settings(max_examples=40)
KEYS = st.one_of(
    st.lists(st.sampled_from([b"", b"a", b"b", b"prefix-8a", b"prefix-8b"]), max_size=30),
    st.lists(st.binary(max_size=3), max_size=30),
)


def run_of(pairs: pa.RecordBatch, batch_rows: int) -> SortedRun:
    cut = [pairs.slice(start, batch_rows) for start in range(0, pairs.num_rows, batch_rows)]
    return SortedRun(
        size_bytes=pairs.nbytes,
        batch_bytes=max((b.nbytes for b in cut), default=0),
        batches=iter(cut),
    )


def merged(runs: list[SortedRun], budget_bytes: int, directory: Path) -> list[tuple[Any, Any]]:
    numbers = count()
    batches = merge_runs(
        runs,
        budget_bytes=budget_bytes,
        spill_path=lambda: directory / f"spill-{next(numbers)}",
        meter=MemoryMeter(),
    )
    return [pair for batch in batches for pair in zip(*batch.to_pydict().values(), strict=True)]


@pytest.mark.parametrize("budget_bytes", [1, 300, 1 << 30])
@EXAMPLES
@given(run_keys=st.lists(KEYS, max_size=6), batch_rows=st.integers(1, 7))
def test_a_merge_is_a_stable_sort_of_the_runs_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory,
    budget_bytes: int,
    run_keys: list[list[bytes]],
    batch_rows: int,
) -> None:
    directory = tmp_path_factory.mktemp("merge")
    run_keys = [sorted(keys) for keys in run_keys]
    rows = [(key, f"{r}.{i}") for r, keys in enumerate(run_keys) for i, key in enumerate(keys)]
    runs = [
        run_of(from_python(keys, [f"{r}.{i}" for i in range(len(keys))]), batch_rows)
        for r, keys in enumerate(run_keys)
        if keys
    ]
    assert merged(runs, budget_bytes, directory) == sorted(rows, key=lambda row: row[0])
    assert not list(directory.iterdir()), "a pass left its file behind"


@EXAMPLES
@given(run_keys=st.lists(st.lists(st.integers(-3, 3), min_size=1), min_size=1, max_size=4))
def test_number_keys_merge_as_well(
    tmp_path_factory: pytest.TempPathFactory, run_keys: list[list[int]]
) -> None:
    runs = [run_of(from_python(sorted(keys), sorted(keys)), 2) for keys in run_keys]
    found = merged(runs, 1, tmp_path_factory.mktemp("merge"))
    assert [key for key, _ in found] == sorted(key for keys in run_keys for key in keys)


@pytest.mark.parametrize("key_count", [1, 50_000])
def test_memory_stays_within_the_budget_even_with_one_key(key_count: int, tmp_path: Path) -> None:
    """20 runs of 2.4 MB merged in 8 MiB: 48 MB pass through."""
    row_count, run_count, budget_bytes = 40_000, 20, 8 << 20
    runs = []
    for _ in range(run_count):
        keys = sorted(b"key-%08d" % (number % key_count) for number in range(row_count))
        pairs = from_python(keys, [b"v" * 32] * row_count)
        runs.append(run_of(pairs, FRAME_BYTES // 60))
    meter, seen = MemoryMeter(), 0
    numbers = count()
    for batch in merge_runs(
        runs,
        budget_bytes=budget_bytes,
        spill_path=lambda: tmp_path / f"spill-{next(numbers)}",
        meter=meter,
    ):
        seen += batch.num_rows
    assert seen == row_count * run_count
    assert 0 < meter.peak_bytes <= budget_bytes
    assert meter.held_bytes == 0


@pytest.mark.parametrize("key_count", [1_000_000, 200, 1])
def test_steps_are_as_many_as_blocks_not_as_blocks_times_runs(
    key_count: int, tmp_path: Path
) -> None:
    """A step that emptied one run only would take a few rows of each of the others."""
    run_count, batch_count, batch_rows = 30, 20, 200
    draw, runs, rows = random.Random(1), [], []
    for run in range(run_count):
        numbers = sorted(draw.randrange(key_count) for _ in range(batch_count * batch_rows))
        pairs = from_python([b"%08d" % number for number in numbers], [run] * len(numbers))
        rows += zip(*pairs.to_pydict().values(), strict=True)
        runs.append(run_of(pairs, batch_rows))
    steps = list(
        merge_runs(
            runs,
            budget_bytes=4 * run_count * 2 * max(run.batch_bytes for run in runs),
            spill_path=lambda: tmp_path / "never",
            meter=MemoryMeter(),
        )
    )
    found = [row for step in steps for row in zip(*step.to_pydict().values(), strict=True)]
    assert found == sorted(rows, key=lambda row: row[0])
    most = {1_000_000: 3 * batch_count, 200: 200 * run_count, 1: run_count * batch_count}
    assert len(steps) <= most[key_count]


def test_runs_of_different_key_types_are_refused(tmp_path: Path) -> None:
    runs = [run_of(from_python([b"a"], [1]), 1), run_of(from_python(["a"], [1]), 1)]
    with pytest.raises(UnsupportedType, match="bytes in b'a' -> 1 and str in 'a' -> 1"):
        merged(runs, 1, tmp_path)
