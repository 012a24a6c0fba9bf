"""Points of range partitions: as even as the sample allows, frequent keys alone, any sample."""

from bisect import bisect_right
from collections import Counter
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.messages import SplitPoint
from minimr.plan.range_partition import WHOLE, place_of, split_points

EXAMPLES = settings(max_examples=200)
KEYS = st.lists(st.integers(0, 30).map(lambda number: b"%02d" % number), max_size=200)


def loads(sample: list[bytes], points: tuple[SplitPoint, ...], count: int) -> list[Counter[bytes]]:
    """What each partition gets of the sample, all values of which come from the first map task."""
    edges = [(point.key, point.share > 0) for point in points]
    found: list[Counter[bytes]] = [Counter() for _ in range(count)]
    for key in sample:
        found[sum(key > edge or (key == edge and not is_behind) for edge, is_behind in edges)][
            key
        ] += 1
    return found


def lightest_maximum(weights: list[int], count: int) -> int:
    """By trying every capacity."""
    before = [0, *accumulate(weights)]
    for capacity in range(max(weights), sum(weights) + 1):
        at, pieces = 0, 0
        while at < len(weights):
            at = bisect_right(before, before[at] + capacity) - 1
            pieces += 1
        if pieces <= count:
            return capacity
    raise AssertionError


@EXAMPLES
@given(KEYS, st.integers(1, 12))
def test_the_heaviest_partition_is_as_light_as_can_be(sample: list[bytes], count: int) -> None:
    points = split_points(sample, count, splits_keys=False)
    assert len(points) < count
    assert all((a.key, a.share) < (b.key, b.share) for a, b in pairwise(points))
    if sample:
        weights = [weight for _, weight in sorted(Counter(sample).items())]
        heaviest = max(load.total() for load in loads(sample, points, count))
        assert heaviest == lightest_maximum(weights, count)


@EXAMPLES
@given(KEYS, st.integers(4, 12))
def test_a_key_that_fills_a_partition_is_alone_if_there_are_enough(
    sample: list[bytes], count: int
) -> None:
    sample += [b"15"] * 2 * len(sample)
    points = split_points(sample, count, splits_keys=False)
    for load in loads(sample, points, count):
        assert b"15" not in load or len(load) == 1


def test_a_frequent_key_is_left_alone_by_keys_that_the_sample_missed() -> None:
    points = split_points([b"a", *[b"m"] * 50, b"z"], 3, splits_keys=False)
    assert points == (SplitPoint(key=b"m", share=0), SplitPoint(key=b"m", share=WHOLE))


def test_constant_keys_fill_one_partition() -> None:
    assert split_points([b"k"] * 100, 8, splits_keys=False) == ()


def test_constant_keys_are_cut_by_map_task_where_the_job_allows_it() -> None:
    points = split_points([b"k"] * 100, 4, splits_keys=True)
    assert [point.share for point in points] == [WHOLE // 4, WHOLE // 2, 3 * WHOLE // 4]
    before = [sum(point.share <= place_of(index, 8) for point in points) for index in range(8)]
    assert before == [0, 0, 1, 1, 2, 2, 3, 3]


def test_many_partitions_of_a_large_sample_are_even() -> None:
    sample = [b"%06d" % (number * 7919 % 100_003) for number in range(50_000)]
    points = split_points(sample, 2_000, splits_keys=False)
    assert len(points) == 1_999
    edges = [point.key for point in points]
    counts = Counter(bisect_right(edges, key) for key in sample)
    assert max(counts.values()) <= 26


def test_no_sample_makes_no_points() -> None:
    assert split_points([], 4, splits_keys=True) == ()
