"""The usual aggregations, for ``combine=`` and ``reduce=``; they run vectorised in both places.

An aggregation is three kernels over groups of values (all values of one key, in order):

- ``partial`` turns values into partial results, on the map side if the aggregation is the job's
  combiner, else on the reduce side;
- ``merge`` turns partial results of one key into fewer, and may run any number of times;
- ``finish`` turns the partial results of one key into the value that is written.

So ``combine=agg.count, reduce=agg.count`` counts values: the combiner counts, the reducer adds the
counts up. For the same reason ``combine=agg.count, reduce=agg.sum`` is the same job. A reducer that
is an aggregation takes only what the job's combiner makes (`check_combination`); a reduce
*function* behind a combining aggregation gets partial results as its values.

Sums of ints are exact, or fail when the result needs more than 64 bits. Sums and means of floats
depend in their last digits on how the input was split: they are outside the promise of the same
bytes from every run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from minimr.errors import JobUsageError, UnsupportedType

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Rows: TypeAlias = NDArray[np.int64]

__all__ = [
    "Aggregation",
    "check_combination",
    "collect_set",
    "count",
    "first",
    "max",
    "mean",
    "min",
    "sum",
]

Kernel: TypeAlias = "Callable[[pa.Array, Rows], tuple[pa.Array, Rows | None]]"


@dataclass(frozen=True, slots=True, eq=False)
class Aggregation:
    """A named way to make one value out of all values of a key.

    Kernels get ``values`` sorted by key and ``starts``, the row at which each key begins. They
    return new values, and None if there is one per key, else the number of each value's key.
    """

    name: str
    partial: Kernel
    merge: Kernel
    finish: "Kernel | None" = None
    is_combiner: bool = True  # its partial results are ordinary values, so it may be ``combine=``
    takes: tuple[str, ...] = ()  # other combiners whose partial results this one understands

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aggregation) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"minimr.agg.{self.name}"


def check_combination(combine: object, reduce: object) -> None:
    """Refuse aggregations that compute neither of what their names say.

    Raises `JobUsageError` for a reducing aggregation that misreads the combining one's results,
    and for a combiner whose partial results are no ordinary values behind any other reducer. A
    *function* cannot be judged: that it fits is its author's promise.
    """
    if not isinstance(combine, Aggregation) or combine == reduce:
        return
    if isinstance(reduce, Aggregation) and combine.name not in reduce.takes:
        raise JobUsageError(
            f"combine={combine!r} with reduce={reduce!r} computes neither: "
            "use the same aggregation for both, or leave combine= out"
        )
    if not combine.is_combiner:
        raise JobUsageError(f"combine={combine!r} needs reduce={combine!r}")


def _sum(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import numpy as np
    import pyarrow as pa

    if pa.types.is_floating(values.type):
        return pa.array(np.add.reduceat(values.to_numpy(zero_copy_only=False), starts)), None
    if pa.types.is_integer(values.type):
        return pa.array(_exact_sums(values.to_numpy(zero_copy_only=False), starts)), None
    raise UnsupportedType(
        "minimr.agg.sum and mean need ints or floats; the values are "
        f"{'str' if values.type == pa.large_string() else 'bytes'}"
    )


def _exact_sums(numbers: "NDArray[np.int64]", starts: "Rows") -> "NDArray[np.int64]":
    """Sums per group; upper and lower halves apart where 64 bits might not be enough."""
    import numpy as np

    largest = np.abs(numbers.astype(np.float64)).max(initial=0.0)
    if largest * numbers.size < 2.0**62:
        return np.add.reduceat(numbers, starts)
    low = np.add.reduceat(numbers & 0xFFFFFFFF, starts)
    high = np.add.reduceat(numbers >> 32, starts) + (low >> 32)
    if ((high < -(1 << 31)) | (high >= 1 << 31)).any():
        raise UnsupportedType(
            "a sum of ints does not fit 64 bits: emit floats, or use a reduce function with "
            "values as text"
        )
    exact: NDArray[np.int64] = (high << 32) | (low & 0xFFFFFFFF)
    return exact


def _count(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import numpy as np
    import pyarrow as pa

    return pa.array(np.diff(starts, append=len(values))), None


def _min(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import numpy as np
    import pyarrow as pa

    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        return pa.array(np.minimum.reduceat(numbers, starts)), None
    return _sorted_in_groups(values, starts)[0].take(pa.array(starts)), None


def _max(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import numpy as np
    import pyarrow as pa

    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        return pa.array(np.maximum.reduceat(numbers, starts)), None
    last = np.append(starts[1:], len(values)) - 1
    return _sorted_in_groups(values, starts)[0].take(pa.array(last)), None


def _first(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import pyarrow as pa

    return values.take(pa.array(starts)), None


def _distinct(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, Rows]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ordered, groups = _sorted_in_groups(values, starts)
    differs = pc.not_equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
    kept = np.concatenate(([True], differs | (groups[1:] != groups[:-1])))
    return ordered.filter(pa.array(kept)), groups[kept]


def _joined(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    """The values of each key joined by one blank, as bytes (text stays text)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type)):
        values = values.cast(pa.large_string())
    ends = np.append(starts, len(values))
    lists = pa.LargeListArray.from_arrays(pa.array(ends), values)
    return pc.binary_join(lists, pa.scalar(b" ").cast(values.type)), None


def _mean_parts(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import pyarrow as pa

    total, _ = _sum(values, starts)
    counts, _ = _count(values, starts)
    return pa.StructArray.from_arrays([total, counts], names=["total", "count"]), None


def _mean_merged(parts: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import pyarrow as pa

    total, _ = _sum(parts.field("total"), starts)
    counts, _ = _sum(parts.field("count"), starts)
    return pa.StructArray.from_arrays([total, counts], names=["total", "count"]), None


def _mean(parts: "pa.Array", starts: "Rows") -> "tuple[pa.Array, None]":
    import pyarrow as pa

    assert len(starts) == len(parts), "merged: one part per key"
    totals = parts.field("total").to_numpy(zero_copy_only=False)
    return pa.array(totals / parts.field("count").to_numpy()), None


def _sorted_in_groups(values: "pa.Array", starts: "Rows") -> "tuple[pa.Array, Rows]":
    """Values in increasing order within each group, and the number of each one's group."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    groups = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    table = pa.table({"group": groups, "value": values})
    order = pc.sort_indices(table, sort_keys=[("group", "ascending"), ("value", "ascending")])
    return values.take(order), groups


sum = Aggregation("sum", _sum, _sum, takes=("count",))  # noqa: A001 - named as users call it
"""The sum of all values: ints or floats."""

count = Aggregation("count", _count, _sum)
"""The number of values, whatever they are."""

min = Aggregation("min", _min, _min)  # noqa: A001 - named as users call it
"""The least value."""

max = Aggregation("max", _max, _max)  # noqa: A001 - named as users call it
"""The greatest value."""

mean = Aggregation("mean", _mean_parts, _mean_merged, _mean, is_combiner=False)
"""The arithmetic mean of ints or floats, a float."""

first = Aggregation("first", _first, _first)
"""The first value in the order (split index, position)."""

collect_set = Aggregation("collect_set", _distinct, _distinct, _joined)
"""The different values in increasing order, joined by one blank."""
