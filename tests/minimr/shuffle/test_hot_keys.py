"""The most frequent keys of a sorted stream, however it is cut into batches."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.pairs import from_python
from minimr.shuffle.hot_keys import HotKeys


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 12), max_size=80),
    st.lists(st.integers(1, 80), max_size=6),
    st.integers(1, 4),
)
def test_counts_are_exact_wherever_batches_end(
    numbers: list[int], cuts: list[int], wanted: int
) -> None:
    keys = [(number, "k") for number in sorted(numbers)]
    edges = sorted({0, len(keys), *(cut for cut in cuts if cut < len(keys))})
    hot = HotKeys(wanted)
    for start, end in itertools.pairwise(edges):
        hot.note(from_python(keys[start:end], keys[start:end]))
    best = hot.best()
    counts = Counter(keys)
    frequent = sorted((count for count in counts.values() if count > 1), reverse=True)
    assert [count for _, count in best] == frequent[:wanted]
    assert all(counts[key] == count for key, count in best)
    assert len({key for key, _ in best}) == len(best)
