"""Kernels of the aggregations, on whole columns of values grouped by key.

A kernel gets ``values`` sorted by key and ``starts``, the row at which each key begins. It returns
new values, and None if there is one per key, else the number of each value's key.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from minimr.column_text import as_text
from minimr.column_types import BYTES, STR, stored, type_name
from minimr.columns import binary_scalar, from_numpy, to_numpy
from minimr.errors import UnsupportedType

__all__ = [
    "Kernel",
    "add",
    "add_sums_and_counts",
    "count",
    "distinct",
    "every",
    "first",
    "greatest",
    "join",
    "least",
    "mean",
    "sum_and_count",
]

Rows: TypeAlias = NDArray[np.int64]
Kernel: TypeAlias = Callable[[pa.Array, Rows], tuple[pa.Array, Rows | None]]


def add(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    if pa.types.is_floating(values.type):
        return from_numpy(np.add.reduceat(to_numpy(values), starts)), None
    if pa.types.is_integer(values.type):
        return from_numpy(_exact_sums(to_numpy(values), starts)), None
    raise UnsupportedType(
        f"minimr.agg.sum and mean need ints or floats; the values are {type_name(values.type)}"
    )


def _exact_sums(numbers: Rows, starts: Rows) -> Rows:
    """Sums per group; upper and lower halves apart where 64 bits might not be enough."""
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


def count(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    return from_numpy(np.diff(starts, append=len(values))), None


def least(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = to_numpy(values)
        return from_numpy(np.minimum.reduceat(numbers, starts)), None
    return _sorted_in_groups(values, starts)[0].take(from_numpy(starts)), None


def greatest(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = to_numpy(values)
        return from_numpy(np.maximum.reduceat(numbers, starts)), None
    last = np.append(starts[1:], len(values)) - 1
    return _sorted_in_groups(values, starts)[0].take(from_numpy(last)), None


def first(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    return values.take(from_numpy(starts)), None


def every(values: pa.Array, starts: Rows) -> tuple[pa.Array, Rows]:
    return values, np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))


def distinct(values: pa.Array, starts: Rows) -> tuple[pa.Array, Rows]:
    ordered, groups = _sorted_in_groups(values, starts)
    if not len(ordered):
        return ordered, groups
    plain = stored(ordered)
    differs = to_numpy(pc.not_equal(plain[1:], plain[:-1]))
    kept = np.concatenate(([True], differs | (groups[1:] != groups[:-1])))
    return ordered.take(from_numpy(np.flatnonzero(kept))), groups[kept]


def join(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    """The values of each key joined by one blank, as bytes (text stays text)."""
    if values.type != STR:
        values = as_text(values) if values.type == BYTES else as_text(values).cast(STR)
    ends = np.append(starts, len(values))
    lists = pa.LargeListArray.from_arrays(from_numpy(ends), values)
    return pc.binary_join(lists, binary_scalar(b" ").cast(values.type)), None


def sum_and_count(values: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    total, _ = add(values, starts)
    counts, _ = count(values, starts)
    return pa.StructArray.from_arrays([total, counts], names=["total", "count"]), None


def add_sums_and_counts(parts: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    total, _ = add(parts.field("total"), starts)
    counts, _ = add(parts.field("count"), starts)
    return pa.StructArray.from_arrays([total, counts], names=["total", "count"]), None


def mean(parts: pa.Array, starts: Rows) -> tuple[pa.Array, None]:
    assert len(starts) == len(parts), "merged: one part per key"
    totals = to_numpy(parts.field("total"))
    return from_numpy(totals / to_numpy(parts.field("count"))), None


def _sorted_in_groups(values: pa.Array, starts: Rows) -> tuple[pa.Array, Rows]:
    """Values in increasing order within each group, and the number of each one's group."""
    groups = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    table = pa.table({"group": groups, "value": stored(values)})
    order = pc.sort_indices(table, sort_keys=[("group", "ascending"), ("value", "ascending")])
    return values.take(order), groups
