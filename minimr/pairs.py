"""Intermediate pairs as Arrow: one record batch with a column ``key`` and a column ``value``.

Each column has one of four types, whatever the user's functions returned: bytes (`large_binary`),
str (`large_string`), int (`int64`) or float (`float64`). Offsets are wide, so that no batch can
overflow them. There are no nulls and no NaN keys; a key of -0.0 is 0.0. Whatever cannot be brought
into this form without changing its meaning is refused with `UnsupportedType`.
"""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from minimr.columns import from_bytes, from_numpy, from_texts, to_numpy
from minimr.errors import UnsupportedType

__all__ = [
    "KEY",
    "VALUE",
    "Pairs",
    "binary_parts",
    "check_same_types",
    "concat_pairs",
    "from_arrow",
    "from_python",
    "is_binary",
    "make_pairs",
    "type_name",
]

Pairs: TypeAlias = pa.RecordBatch

KEY = "key"
VALUE = "value"

_BYTES = pa.large_binary()
_STR = pa.large_string()
_INT = pa.int64()
_FLOAT = pa.float64()
_NAMES = {_BYTES: "bytes", _STR: "str", _INT: "int", _FLOAT: "float"}
_ALLOWED = "keys and values are bytes, str, int (64 bits) or float"


def type_name(arrow_type: pa.DataType) -> str:
    """What a user calls the type of a column."""
    return _NAMES.get(arrow_type, str(arrow_type))


def is_binary(arrow_type: pa.DataType) -> bool:
    return arrow_type in (_BYTES, _STR)


def make_pairs(keys: pa.Array, values: pa.Array) -> Pairs:
    """A batch of two columns that have their final types already."""
    return pa.RecordBatch.from_arrays([keys, values], names=[KEY, VALUE])


def check_same_types(first: pa.Schema, second: pa.Schema) -> None:
    """Keys of one job have one type, and values too (DESIGN 5.2)."""
    for name in (KEY, VALUE):
        one, other = first.field(name).type, second.field(name).type
        if one != other:
            raise UnsupportedType(
                f"{name}s of one job must have one type; found {type_name(one)} and "
                f"{type_name(other)}: convert one of them in the function that emits it"
            )


def concat_pairs(batches: Sequence[Pairs]) -> Pairs:
    """All rows in order as one batch with contiguous columns."""
    assert batches, "no batch to take the types from"
    if len(batches) == 1:
        return batches[0]
    for batch in batches[1:]:
        check_same_types(batches[0].schema, batch.schema)
    return make_pairs(
        pa.concat_arrays([batch.column(0) for batch in batches]),
        pa.concat_arrays([batch.column(1) for batch in batches]),
    )


def from_arrow(table: "pa.RecordBatch | pa.Table") -> Pairs:
    """Pairs out of what a batch function returned."""
    names = table.schema.names
    if sorted(names) != [KEY, VALUE]:
        raise UnsupportedType(
            f"a batch function must return columns 'key' and 'value'; it returned {names}"
        )
    return make_pairs(_key_column(table.column(KEY)), _column(table.column(VALUE), VALUE))


def from_python(keys: Sequence[Any], values: Sequence[Any]) -> Pairs:
    """Pairs out of Python objects, all keys of one type and all values of one type."""
    return make_pairs(_normal_keys(_from_objects(keys, KEY)), _from_objects(values, VALUE))


def binary_parts(column: pa.Array) -> "tuple[np.ndarray, np.ndarray]":
    """Offsets (int64, one more than rows) and data (uint8) of a bytes or str column, not copied.

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


def _key_column(column: "pa.Array | pa.ChunkedArray") -> pa.Array:
    return _normal_keys(_column(column, KEY))


def _normal_keys(keys: pa.Array) -> pa.Array:
    if keys.type != _FLOAT:
        return keys
    numbers_ = to_numpy(keys)
    if np.isnan(numbers_).any():
        raise UnsupportedType("a key is NaN: it equals nothing, so it cannot be grouped")
    return from_numpy(numbers_ + 0.0)  # -0.0 equals 0.0, so both are one key


def _column(column: "pa.Array | pa.ChunkedArray", name: str) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks splits what overflows 32-bit offsets
        column = pa.concat_arrays([chunk.cast(_wide(chunk.type, name)) for chunk in column.chunks])
    if column.null_count:
        raise UnsupportedType(f"a {name} is null: {_ALLOWED}")
    wanted = _wide(column.type, name)
    if column.type == wanted:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise UnsupportedType(f"a {name} does not fit: {error}; {_ALLOWED}") from error


def _wide(arrow_type: pa.DataType, name: str) -> pa.DataType:
    """The one of our four types that holds everything of ``arrow_type``."""
    types = pa.types
    if types.is_dictionary(arrow_type):
        return _wide(arrow_type.value_type, name)
    if types.is_integer(arrow_type):
        return _INT
    if types.is_floating(arrow_type):
        return _FLOAT
    if arrow_type in (pa.binary(), _BYTES) or types.is_fixed_size_binary(arrow_type):
        return _BYTES
    if arrow_type in (pa.string(), _STR):
        return _STR
    if str(arrow_type) in ("binary_view", "string_view"):
        return _BYTES if str(arrow_type) == "binary_view" else _STR
    raise UnsupportedType(f"a {name} column of type {arrow_type}: {_ALLOWED}")


def _from_objects(objects: Sequence[Any], name: str) -> pa.Array:
    wanted = _type_of_objects(set(map(type, objects)), name)
    try:
        if wanted == _BYTES:
            return from_bytes(objects)
        if wanted == _STR:
            return from_texts(objects)
        if wanted == _INT:
            return from_numpy(np.fromiter(map(int, objects), np.int64, len(objects)))
        return from_numpy(np.fromiter(map(float, objects), np.float64, len(objects)))
    except OverflowError as error:
        raise UnsupportedType(f"a {name} does not fit: {error}; {_ALLOWED}") from error
    except UnicodeEncodeError as error:
        raise UnsupportedType(f"a {name} is no valid Unicode text: {error}; use bytes") from error


def _type_of_objects(classes: Iterable[type], name: str) -> pa.DataType:
    found = {_type_of_class(each, name): each.__name__ for each in sorted(classes, key=str)}
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise UnsupportedType(
            f"{name}s of one job must have one type; found {one} and {other}: "
            "convert one of them in the function that emits it"
        )
    return next(iter(found), _BYTES)


def _type_of_class(kind: type, name: str) -> pa.DataType:
    is_bool: bool = kind is bool  # an int to Python, but no number to a user
    if issubclass(kind, bytes):
        return _BYTES
    if issubclass(kind, str):
        return _STR
    if issubclass(kind, numbers.Integral) and not is_bool:
        return _INT
    if issubclass(kind, numbers.Real) and not is_bool:
        return _FLOAT
    raise UnsupportedType(f"a {name} of type {kind.__name__}: {_ALLOWED}")
