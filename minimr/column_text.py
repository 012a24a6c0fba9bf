"""Columns as text, one way for each type: what text output and joined sets show.

bytes and str are themselves; ints and floats as Python writes them (``1``, ``1.0``, ``1e+16``,
``inf``, ``nan``); bools ``true`` and ``false``; dates, times and datetimes in ISO 8601 as Python
writes them (``2024-05-01T12:00:00``, with ``+00:00`` if they have a time zone); None is nothing; a
tuple is a JSON array on one line, with dates and bytes in it as strings (bytes as UTF-8, those that
are not as ``\\xff``), and floats that JSON does not know as strings.
"""

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from minimr.column_types import BYTES, FLOAT, INT, STR, NoneType, TupleType, to_objects
from minimr.columns import from_bytes

__all__ = ["as_text"]


def as_text(column: pa.Array) -> pa.Array:
    """The column as `large_binary`."""
    if column.type == BYTES:
        return column
    if column.type in (INT, STR):
        return column.cast(STR).cast(BYTES)
    if pa.types.is_boolean(column.type):
        return column.cast(STR).cast(BYTES)
    rows = to_objects(column)
    if column.type == FLOAT:
        return from_bytes([repr(number).encode() for number in rows])
    if isinstance(column.type, NoneType):
        return from_bytes([b""] * len(rows))
    write: Callable[[Any], str] = _tuple_text if isinstance(column.type, TupleType) else _iso
    return from_bytes([write(row).encode() for row in rows])


def _tuple_text(row: tuple[Any, ...]) -> str:
    return json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":"))


def _plain(element: Any) -> Any:
    if isinstance(element, tuple):
        return [_plain(each) for each in element]
    if isinstance(element, bytes):
        return element.decode("utf-8", "backslashreplace")
    if isinstance(element, float) and not math.isfinite(element):
        return repr(element)
    return _iso(element) if isinstance(element, date | time) else element


def _iso(moment: date | time | datetime) -> str:
    return moment.isoformat()
