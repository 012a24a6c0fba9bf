from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimr.errors import JobUsageError
from minimr.messages import Split
from minimr.plan.splits import (
    SPLIT_BYTES_MAX,
    SPLIT_BYTES_MIN,
    SPLIT_COUNT_MAX,
    InputFile,
    StoredRange,
    default_partition_count,
    default_split_bytes,
    plan_splits,
)

MIB = 1 << 20


def files_of(*sizes: int, compression: str = "") -> list[InputFile]:
    return [
        InputFile(url=f"/in/{i:03d}", size_bytes=size, compression=compression)
        for i, size in enumerate(sizes)
    ]


def pieces(splits: tuple[Split, ...]) -> list[list[tuple[str, int, int]]]:
    return [[(r.url, r.start, r.length) for r in split.ranges] for split in splits]


@given(
    sizes=st.lists(st.integers(0, 5_000), max_size=20),
    packed=st.lists(st.booleans(), min_size=20, max_size=20),
    split_bytes=st.none() | st.integers(1, 3_000),
    slots=st.integers(0, 64),
)
def test_every_byte_is_in_exactly_one_split_in_order(
    sizes: list[int], packed: list[bool], split_bytes: int | None, slots: int
) -> None:
    files = [
        InputFile(url=str(i), size_bytes=size, compression="gzip" if gz else "")
        for i, (size, gz) in enumerate(zip(sizes, packed, strict=False))
    ]
    splits = plan_splits(files, split_bytes=split_bytes, slots=slots)

    position = {file.url: 0 for file in files}
    order = []
    for split in splits:
        assert split.size_bytes == sum(r.length for r in split.ranges)
        for r in split.ranges:
            assert r.start == position[r.url]
            assert r.length > 0
            position[r.url] += r.length
            order.append(int(r.url))
    assert position == {file.url: file.size_bytes for file in files}
    assert order == sorted(order)
    assert [split.index for split in splits] == list(range(len(splits)))
    assert splits


def test_a_big_file_is_cut_at_multiples_of_the_split_size() -> None:
    splits = plan_splits(files_of(250), split_bytes=100, slots=1)
    assert pieces(splits) == [
        [("/in/000", 0, 100)],
        [("/in/000", 100, 100)],
        [("/in/000", 200, 50)],
    ]


def test_a_small_rest_joins_the_split_before_it() -> None:
    splits = plan_splits(files_of(205), split_bytes=100, slots=1)
    assert pieces(splits) == [[("/in/000", 0, 100)], [("/in/000", 100, 105)]]


def test_small_files_share_splits() -> None:
    splits = plan_splits(files_of(*[MIB] * 20), split_bytes=None, slots=4)
    assert [len(split.ranges) for split in splits] == [7, 7, 6]


def test_a_thousand_tiny_files_need_few_splits_but_not_one() -> None:
    splits = plan_splits(files_of(*[100] * 1000), split_bytes=None, slots=4)
    assert 2 <= len(splits) <= 20


def test_a_packed_file_is_one_range_and_fills_its_split() -> None:
    splits = plan_splits(files_of(90 * MIB, 2 * MIB, compression="gzip"), split_bytes=None, slots=2)
    assert pieces(splits) == [[("/in/000", 0, 90 * MIB)], [("/in/001", 0, 2 * MIB)]]
    assert splits[0].ranges[0].compression == "gzip"


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_an_empty_input_is_one_empty_split(sizes: tuple[int, ...]) -> None:
    (split,) = plan_splits(files_of(*sizes), split_bytes=None, slots=2)
    assert split.ranges == ()
    assert split.size_bytes == 0


def test_default_split_size_is_a_power_of_two_between_its_bounds() -> None:
    assert default_split_bytes(0, 2) == SPLIT_BYTES_MIN
    assert default_split_bytes(100 << 30, 2) == SPLIT_BYTES_MAX
    middle = default_split_bytes(300 * MIB, 4)
    assert SPLIT_BYTES_MIN < middle < SPLIT_BYTES_MAX
    assert middle & (middle - 1) == 0


def test_a_split_size_below_one_byte_is_refused() -> None:
    with pytest.raises(JobUsageError, match="split size 0"):
        plan_splits(files_of(1), split_bytes=0, slots=1)


def test_hosts_are_those_that_store_most_of_the_split() -> None:
    stored = (
        StoredRange(start=0, length=100, hosts=("a", "b")),
        StoredRange(start=100, length=100, hosts=("b", "c")),
        StoredRange(start=200, length=50, hosts=("d",)),
    )
    file = InputFile(url="/x", size_bytes=250, stored=stored)
    by_chunk = plan_splits([file], split_bytes=100, slots=1)
    assert [split.hosts for split in by_chunk] == [("a", "b"), ("b", "c"), ("d",)]
    (whole,) = plan_splits([file], split_bytes=1000, slots=1)
    assert whole.hosts == ("b", "a", "c", "d")


def test_partitions_grow_with_the_input_up_to_the_slots() -> None:
    assert default_partition_count(0, 8) == 1
    assert default_partition_count(110 * MIB, 8) == 1
    assert default_partition_count(1 << 30, 8) == 4
    assert default_partition_count(1 << 40, 8) == 8
    assert default_partition_count(1 << 40, 0) == 1


def test_a_split_size_that_makes_too_many_tasks_is_refused_with_one_that_does_not() -> None:
    files = files_of(SPLIT_COUNT_MAX * 2)
    with pytest.raises(JobUsageError, match=r"200,000 map tasks.*use at least 2 bytes"):
        plan_splits(files, split_bytes=1, slots=2)
    assert len(plan_splits(files, split_bytes=2, slots=2)) == SPLIT_COUNT_MAX


def test_where_a_file_of_very_many_chunks_lies_is_found_without_going_through_all_of_them() -> None:
    count = 30_000
    stored = tuple(
        StoredRange(start=number * 100, length=100, hosts=(f"host-{number % 7}",))
        for number in range(count)
    )
    file = InputFile(url="/x", size_bytes=count * 100, stored=stored)
    began_s = process_time()
    splits = plan_splits([file], split_bytes=100, slots=4)
    assert process_time() - began_s < 10  # all ranges for each split: minutes
    assert [split.hosts for split in splits] == [(f"host-{number % 7}",) for number in range(count)]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abc")), min_size=1, max_size=20),
    st.integers(1, 80),
)
def test_hosts_are_those_of_all_ranges_that_a_split_touches(
    lengths: list[tuple[int, str]], split_bytes: int
) -> None:
    stored = []
    end = 0
    for length, host in lengths:
        stored.append(StoredRange(start=end, length=length, hosts=(host,)))
        end += length
    file = InputFile(url="/x", size_bytes=end, stored=tuple(stored))
    for split in plan_splits([file], split_bytes=split_bytes, slots=4):
        (piece,) = split.ranges
        touched = {
            one.hosts[0]
            for one in stored
            if one.start < piece.start + piece.length and piece.start < one.start + one.length
        }
        assert set(split.hosts) == touched
