"""Intermediate pairs as Arrow: one record batch with a column ``key`` and a column ``value``.

Where values of a key have an order of their own (``Job(sort_values=...)``) a column ``order`` says
which: a third one, or the values themselves, which are called so then.

Each column has one of the types of `minimr.column_types`, whatever the user's functions returned.
What cannot be brought into this form without changing its meaning is refused: `UnsupportedType`.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minimr.column_types import (
    FLOAT,
    from_objects,
    is_binary,
    stored,
    stored_as,
    to_objects,
    type_name,
    typed,
)
from minimr.columns import from_numpy
from minimr.errors import UnsupportedType

__all__ = [
    "KEY",
    "VALUE",
    "Pairs",
    "binary_parts",
    "check_same_types",
    "concat_pairs",
    "example_of",
    "from_arrow",
    "from_python",
    "make_pairs",
    "sort_columns",
    "take_rows",
    "with_order",
    "without_order",
]

Pairs: TypeAlias = pa.RecordBatch

KEY = "key"
VALUE = "value"
ORDER = "order"

_KEPT_BYTES_MAX = 4096  # a copy of a row takes longer than all else that a tiny task does
_SHOWN_CHARACTERS = 80


def make_pairs(keys: pa.Array, values: pa.Array) -> Pairs:
    """A batch of two columns that have their final types already."""
    return pa.RecordBatch.from_arrays([keys, values], names=[KEY, VALUE])


def check_same_types(first: Pairs, second: Pairs) -> None:
    """Keys of one job have one type, and values too (DESIGN 5.2). Both batches have rows."""
    if first.schema.equals(second.schema):
        return
    for index, name in enumerate((KEY, VALUE, "sort value")[: first.num_columns]):
        one, other = first.schema.field(index).type, second.schema.field(index).type
        if one != other:
            raise UnsupportedType(
                f"{name}s of one job must have one type; found {type_name(one)} in "
                f"{_shown(first)} and {type_name(other)} in {_shown(second)}: "
                "convert one of them in the function that emits it"
            )


def example_of(pairs: Pairs) -> Pairs:
    """One row, which keeps next to nothing else in memory."""
    if pairs.get_total_buffer_size() <= _KEPT_BYTES_MAX:
        return pairs.slice(0, 1)
    return pairs.slice(0, 1).take(from_numpy(np.zeros(1, np.int64)))


def _shown(pairs: Pairs) -> str:
    key, value = (repr(to_objects(column.slice(0, 1))[0]) for column in pairs.columns[:2])
    return " -> ".join(
        text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
        for text in (key, value)
    )


def with_order(pairs: Pairs, order: "pa.Array | None" = None) -> Pairs:
    """The pairs in an order of values: that of the column ``order``, else their own."""
    keys, values = pairs.columns[:2]
    if order is None:
        order = typed(values, KEY)
        if values.type != FLOAT:  # there 0.0 stands for -0.0, which is to be kept as a value
            return pa.RecordBatch.from_arrays([keys, order], names=[KEY, ORDER])
    return pa.RecordBatch.from_arrays([keys, values, order], names=[KEY, VALUE, ORDER])


def without_order(pairs: Pairs) -> Pairs:
    """Keys and values only."""
    return make_pairs(*pairs.columns[:2])


def sort_columns(pairs: Pairs) -> list[pa.Array]:
    """What rows are sorted by: the key, then the order of values if they have one."""
    columns = pairs.columns
    return [columns[0], *columns[-1:]] if pairs.schema.names[-1] == ORDER else columns[:1]


def concat_pairs(batches: Sequence[Pairs]) -> Pairs:
    """All rows in order as one batch with contiguous columns."""
    assert batches, "no batch to take the types from"
    if len(batches) == 1:
        return batches[0]
    for batch in batches[1:]:
        check_same_types(batches[0], batch)
    return pa.RecordBatch.from_arrays(
        [
            pa.concat_arrays([batch.column(index) for batch in batches])
            for index in range(batches[0].num_columns)
        ],
        schema=batches[0].schema,
    )


def take_rows(pairs: Pairs, rows: NDArray[np.int64]) -> Pairs:
    """The rows of these numbers, in this order, in memory of their own."""
    columns = [_taken(column, rows) for column in pairs.columns]
    return pa.RecordBatch.from_arrays(columns, schema=pairs.schema)


def _taken(column: pa.Array, rows: NDArray[np.int64]) -> pa.Array:
    """Bytes of one length, as sorts have them, are moved as such: in half of Arrow's time."""
    plain = stored(column)
    if not is_binary(plain.type) or not len(plain):
        return column.take(from_numpy(rows))
    offsets, data = binary_parts(plain)
    width = int(offsets[1] - offsets[0])
    if not width or (np.diff(offsets) != width).any():
        return column.take(from_numpy(rows))
    content = data[int(offsets[0]) : int(offsets[-1])].view(f"V{width}")
    taken = np.take(content, rows).view(np.uint8)
    ends = np.arange(0, taken.size + 1, width, dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(taken)]
    return stored_as(pa.Array.from_buffers(plain.type, len(rows), buffers), column.type)


def from_arrow(table: "pa.RecordBatch | pa.Table") -> Pairs:
    """Pairs out of what a batch function returned."""
    names = table.schema.names
    if sorted(names) != [KEY, VALUE]:
        raise UnsupportedType(
            f"a batch function must return columns 'key' and 'value'; it returned {names}"
        )
    return make_pairs(typed(table.column(KEY), KEY), typed(table.column(VALUE), VALUE))


def from_python(keys: Sequence[Any], values: Sequence[Any]) -> Pairs:
    """Pairs out of Python objects, all keys of one type and all values of one type."""
    return make_pairs(from_objects(keys, KEY), from_objects(values, VALUE))


def binary_parts(column: pa.Array) -> "tuple[np.ndarray, np.ndarray]":
    """Offsets (int64, one more than rows) and data (uint8) of a stored column, not copied.

    The first offset need not be 0, nor the last the length of the data.
    """
    assert is_binary(column.type), column.type
    _, offset_buffer, data_buffer = column.buffers()
    if offset_buffer is None or len(column) == 0:
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    offsets = np.frombuffer(
        offset_buffer, np.int64, count=len(column) + 1, offset=8 * column.offset
    )
    data = np.empty(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return offsets, data
