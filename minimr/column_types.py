"""The types that keys and values can have, as Arrow columns and as Python objects.

==========  ==============================  =====================================================
type        column                          order of keys
==========  ==============================  =====================================================
bytes       ``large_binary``                byte by byte
str         ``large_string``                by code point, which is byte by byte in UTF-8
int         ``int64``                       by value; an int over 64 bits is refused
float       ``float64``                     by value; -0.0 is 0.0 as a key; NaN is refused as a key
bool        ``bool``                        False, True
date        ``date32[day]``                 by day
time        ``time64[us]``                  by time of day; with a time zone it is refused
datetime    ``timestamp[us]``               as the calendar shows it
instant     ``timestamp[us, UTC]``          a datetime with a time zone: by instant, back in UTC
tuple       `TupleType` (ordered bytes)     element by element, a shorter one first; elements of
                                            different types by type (`minimr.ordered_bytes`)
None        `NoneType` (ordered bytes)      there is only one
==========  ==============================  =====================================================

Offsets are wide, so that no batch can overflow them; there are no nulls. A column has one type: a
1, a 1.0 and a True are different, and None beside other values needs a tuple around it.
"""

import numbers
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minimr.columns import from_bytes, from_numpy, from_texts, to_numpy
from minimr.errors import UnsupportedType
from minimr.ordered_bytes import (
    ALLOWED_TYPES,
    decode_all,
    encode,
    encode_all,
    refuse_nanoseconds,
)

__all__ = [
    "BYTES",
    "FLOAT",
    "INT",
    "STR",
    "NoneType",
    "TupleType",
    "dictionary_of",
    "from_objects",
    "is_binary",
    "least_and_greatest",
    "stored",
    "stored_as",
    "to_objects",
    "type_name",
    "typed",
]

BYTES = pa.large_binary()
STR = pa.large_string()
INT = pa.int64()
FLOAT = pa.float64()
_BOOL = pa.bool_()
_DATE = pa.date32()
_TIME = pa.time64("us")
_DATETIME = pa.timestamp("us")
_INSTANT = pa.timestamp("us", tz="UTC")

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose
_EPOCH_DAY = _EPOCH.toordinal()


class _OrderedBytes(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A `large_binary` column of `minimr.ordered_bytes`."""

    NAME = ""

    def __init__(self) -> None:
        super().__init__(BYTES, self.NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, content: bytes) -> "_OrderedBytes":
        return cls()

    def __hash__(self) -> int:
        return hash(self.NAME)


class TupleType(_OrderedBytes):
    """Tuples, each as its elements one after the other."""

    NAME = "minimr.tuple"


class NoneType(_OrderedBytes):
    """None, in every row."""

    NAME = "minimr.none"


_TUPLE = TupleType()
_NONE = NoneType()
for _each in (_TUPLE, _NONE):
    pa.register_extension_type(_each)  # so that the types survive the way through a file

_NAMES = {
    BYTES: "bytes",
    STR: "str",
    INT: "int",
    FLOAT: "float",
    _BOOL: "bool",
    _DATE: "date",
    _TIME: "time",
    _DATETIME: "datetime without time zone",
    _INSTANT: "datetime with time zone",
    _TUPLE: "tuple",
    _NONE: "None",
}


def type_name(arrow_type: pa.DataType) -> str:
    """What a user calls the type of a column."""
    return _NAMES.get(arrow_type, str(arrow_type))


def is_binary(arrow_type: pa.DataType) -> bool:
    """Whether a *stored* column has offsets and bytes; else it has 64-bit numbers."""
    return arrow_type in (BYTES, STR)


def stored(column: pa.Array) -> pa.Array:
    """The same rows as `large_binary`, `large_string`, `int64` or `float64`, of the same order.

    Nothing is copied but bools and dates.
    """
    arrow_type = column.type
    if isinstance(arrow_type, _OrderedBytes):
        return column.storage
    if arrow_type in (_TIME, _DATETIME, _INSTANT):
        return column.view(INT)
    if arrow_type == _DATE:
        return from_numpy(to_numpy(column.view(pa.int32())).astype(np.int64))
    if arrow_type == _BOOL:
        return from_numpy(to_numpy(column).astype(np.int64))
    return column


def stored_as(column: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    """The column of ``arrow_type`` whose `stored` form this is."""
    if isinstance(arrow_type, _OrderedBytes):
        return pa.ExtensionArray.from_storage(arrow_type, column)
    if arrow_type in (_TIME, _DATETIME, _INSTANT):
        return column.view(arrow_type)
    if arrow_type in (_DATE, _BOOL):
        return _of_numbers(arrow_type, to_numpy(column))
    return column


def dictionary_of(column: pa.Array) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different rows, and the number of each row's."""
    encoded = stored(column).dictionary_encode()
    return stored_as(encoded.dictionary, column.type), to_numpy(encoded.indices)


def least_and_greatest(column: pa.Array) -> pa.Array:
    """Two rows of a column that has some. Python's order is not ours: it has none for tuples whose
    elements are of different types."""
    import pyarrow.compute as pc

    found = pc.min_max(stored(column))
    ends = pa.concat_arrays([_row(found["min"]), _row(found["max"])])
    return stored_as(ends, column.type)


def _row(scalar: pa.Scalar) -> pa.Array:
    return from_objects([scalar.as_py()], "value")


def to_objects(column: pa.Array) -> list[Any]:
    """The rows as Python objects."""
    if column.type == _TUPLE:
        return list(map(decode_all, column.storage.to_pylist()))
    if column.type == _NONE:
        return [None] * len(column)
    rows: list[Any] = column.to_pylist()
    if column.type == _INSTANT:
        return [row.replace(tzinfo=UTC) for row in rows]  # not pytz's or zoneinfo's, as it came
    return rows


def from_objects(objects: Sequence[Any], name: str) -> pa.Array:
    """A column of Python objects of one type.

    ``name`` is "key" or "value": floats in keys are made such that equal ones are the same.
    """
    wanted = _type_of_objects(set(map(type, objects)), name)
    try:
        return _CONVERTERS[wanted](objects, name)
    except OverflowError as error:
        raise UnsupportedType(f"a {name} does not fit: {error}; {ALLOWED_TYPES}") from error
    except UnicodeEncodeError as error:
        raise UnsupportedType(f"a {name} is no valid Unicode text: {error}; use bytes") from error


def typed(column: "pa.Array | pa.ChunkedArray", name: str) -> pa.Array:
    """A column of one of our types out of what a batch function returned."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks splits what overflows 32-bit offsets
        column = pa.concat_arrays([chunk.cast(_wide(chunk.type, name)) for chunk in column.chunks])
    if pa.types.is_null(column.type):
        return from_objects([None] * len(column), name)
    wanted = _wide(column.type, name)
    if column.type != wanted:
        try:
            column = column.cast(wanted)
        except pa.ArrowInvalid as error:
            raise UnsupportedType(f"a {name} does not fit: {error}; {ALLOWED_TYPES}") from error
    if column.null_count:  # not before the cast: a dictionary's nulls may be among its values
        raise UnsupportedType(
            f"a {name} is null beside others that are not: fill it, or put it into a tuple"
        )
    return _normal_floats(column) if name == "key" and wanted == FLOAT else column


def _wide(arrow_type: pa.DataType, name: str) -> pa.DataType:
    """The one of our types that holds everything of ``arrow_type``."""
    types = pa.types
    if arrow_type in _NAMES:
        return arrow_type
    if types.is_dictionary(arrow_type):
        return _wide(arrow_type.value_type, name)
    if types.is_integer(arrow_type):
        return INT
    if types.is_floating(arrow_type):
        return FLOAT
    if types.is_date(arrow_type):
        return _DATE
    if types.is_time(arrow_type):
        return _TIME
    if types.is_timestamp(arrow_type):
        return _DATETIME if arrow_type.tz is None else _INSTANT
    if arrow_type == pa.binary() or types.is_fixed_size_binary(arrow_type):
        return BYTES
    if arrow_type == pa.string():
        return STR
    if str(arrow_type) in ("binary_view", "string_view"):
        return BYTES if str(arrow_type) == "binary_view" else STR
    raise UnsupportedType(f"a {name} column of type {arrow_type}: {ALLOWED_TYPES}")


def _type_of_objects(classes: Iterable[type], name: str) -> pa.DataType:
    found = {_type_of_class(each, name): each.__name__ for each in sorted(classes, key=str)}
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise UnsupportedType(
            f"{name}s of one job must have one type; found {one} and {other}: "
            "convert one of them in the function that emits it"
        )
    return next(iter(found), BYTES)


def _type_of_class(kind: type, name: str) -> pa.DataType:
    for classes, arrow_type in _TYPE_OF_CLASS:
        if issubclass(kind, classes):
            return arrow_type
    raise UnsupportedType(
        f"a {name} of type {kind.__name__}: {ALLOWED_TYPES}; for others give the job a codec"
    )


# The first that fits: a bool is an int to Python, and a datetime a date.
_TYPE_OF_CLASS: tuple[tuple[type | tuple[type, ...], pa.DataType], ...] = (
    (bytes, BYTES),
    (str, STR),
    ((bool, np.bool_), _BOOL),
    (numbers.Integral, INT),
    (numbers.Real, FLOAT),
    (tuple, _TUPLE),
    (datetime, _DATETIME),
    (date, _DATE),
    (time, _TIME),
    (type(None), _NONE),
)


def _floats(objects: Sequence[Any], name: str) -> pa.Array:
    column = from_numpy(np.fromiter(map(float, objects), np.float64, len(objects)))
    return _normal_floats(column) if name == "key" else column


def _normal_floats(keys: pa.Array) -> pa.Array:
    numbers_ = to_numpy(keys)
    if np.isnan(numbers_).any():
        raise UnsupportedType("a key is NaN: it equals nothing, so it cannot be grouped")
    return from_numpy(numbers_ + 0.0)  # -0.0 equals 0.0, so both are one key


def _datetimes(objects: Sequence[datetime], name: str) -> pa.Array:
    for each in objects:
        refuse_nanoseconds(each)
    zoned = sum(each.tzinfo is not None for each in objects)
    if zoned not in (0, len(objects)):
        raise UnsupportedType(
            f"{name}s of one job must have one type; found datetimes with and without a time zone: "
            "convert one of them in the function that emits it"
        )
    epoch = _EPOCH.replace(tzinfo=UTC) if zoned else _EPOCH
    return _of_numbers(
        _INSTANT if zoned else _DATETIME,
        _ints(((each - epoch) for each in objects), len(objects), _microseconds),
    )


def _microseconds(delta: Any) -> int:
    microseconds: int = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return microseconds


def _time_of_day(of_day: time) -> int:
    if of_day.tzinfo is not None:
        raise UnsupportedType("a time with a time zone has no place in an order: use a datetime")
    seconds = (of_day.hour * 60 + of_day.minute) * 60 + of_day.second
    return seconds * 1_000_000 + of_day.microsecond


def _tuples(objects: Sequence[tuple[Any, ...]], name: str) -> pa.Array:
    if name == "key":
        objects = [_normal_tuple(each) for each in objects]
    try:
        encoded = list(map(encode_all, objects))
    except UnsupportedType as error:
        raise UnsupportedType(f"in a {name} that is a tuple: {error.message}") from error
    return pa.ExtensionArray.from_storage(_TUPLE, from_bytes(encoded))


def _normal_tuple(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_normal_element, key))


def _normal_element(element: Any) -> Any:
    if isinstance(element, tuple):
        return _normal_tuple(element)
    if isinstance(element, numbers.Real) and not isinstance(element, numbers.Integral):
        if element != element:
            raise UnsupportedType("a key has NaN in it: it equals nothing, so it cannot be grouped")
        return float(element) + 0.0
    return element


def _nones(objects: Sequence[None], name: str) -> pa.Array:
    return pa.ExtensionArray.from_storage(_NONE, from_bytes([encode(None)] * len(objects)))


def _ints(
    objects: Iterable[Any], count: int, convert: Callable[[Any], int] = int
) -> NDArray[np.int64]:
    return np.fromiter(map(convert, objects), np.int64, count)


def _of_numbers(arrow_type: pa.DataType, rows: NDArray[np.int64]) -> pa.Array:
    if arrow_type == _BOOL:
        data: NDArray[Any] = np.packbits(rows.astype(np.bool_), bitorder="little")
    else:
        data = rows.astype(np.int32) if arrow_type == _DATE else rows
    return pa.Array.from_buffers(arrow_type, len(rows), [None, pa.py_buffer(data)])


_CONVERTERS: dict[pa.DataType, Callable[[Sequence[Any], str], pa.Array]] = {
    BYTES: lambda objects, _: from_bytes(objects),
    STR: lambda objects, _: from_texts(objects),
    INT: lambda objects, _: from_numpy(_ints(objects, len(objects))),
    FLOAT: _floats,
    _BOOL: lambda objects, _: _of_numbers(_BOOL, _ints(objects, len(objects))),
    _DATE: lambda objects, _: _of_numbers(
        _DATE, _ints(objects, len(objects), lambda day: day.toordinal() - _EPOCH_DAY)
    ),
    _TIME: lambda objects, _: _of_numbers(_TIME, _ints(objects, len(objects), _time_of_day)),
    _DATETIME: _datetimes,
    _TUPLE: _tuples,
    _NONE: _nones,
}
