"""Read what `text_output` wrote: parts of a job's output as one Arrow table."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minimr.columns import from_numpy

__all__ = ["read_text_parts"]

_BINARY = pa.large_binary()
_STRING = pa.large_string()
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_UNESCAPED = {b"t": b"\t", b"n": b"\n", b"\\": b"\\"}


def read_text_parts(parts: Sequence[bytes], *, escaped: bool) -> pa.Table:
    """Columns ``key`` and ``value``, in the order of the parts.

    Text does not say what its types were. A column is `large_string`, or `large_binary` if any of
    it is not UTF-8; values that are all decimal integers become `int64`.
    """
    tables = [_split(part) for part in parts]
    keys = pa.concat_arrays([keys for keys, _ in tables] or [pa.array([], _BINARY)])
    values = pa.concat_arrays([values for _, values in tables] or [pa.array([], _BINARY)])
    if escaped:
        keys, values = _unescape(keys), _unescape(values)
    return pa.table({"key": _as_text(keys), "value": _as_numbers(_as_text(values))})


def _split(content: bytes) -> tuple[pa.Array, pa.Array]:
    """Cut lines at their first tab: key, tab, value and line feed of each line are four
    neighbours in the buffer, so one array of offsets describes them all."""
    data = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n")).astype(np.int64)
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
    tabs = np.flatnonzero(data == ord("\t")).astype(np.int64)
    first = tabs[np.searchsorted(tabs, starts)] if len(ends) else ends
    pieces = np.stack([starts, first, first + 1, ends], axis=1).ravel()
    offsets = np.append(pieces, ends[-1] + 1 if len(ends) else 0)
    array = pa.LargeBinaryArray.from_buffers(
        _BINARY, len(pieces), [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    )
    rows = np.arange(len(ends)) * 4
    return array.take(from_numpy(rows)), array.take(from_numpy(rows + 2))


def _unescape(column: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring(column, b"\\")).as_py():
        return column
    plain = [_ESCAPE.sub(lambda found: _UNESCAPED[found[1]], text) for text in column.to_pylist()]
    return pa.array(plain, _BINARY)


def _as_text(column: pa.Array) -> pa.Array:
    try:
        return column.cast(_STRING)
    except pa.ArrowInvalid:
        return column


def _as_numbers(column: pa.Array) -> pa.Array:
    if column.type != _STRING or not len(column):
        return column
    if not pc.all(pc.match_substring_regex(column, r"^(0|-?[1-9][0-9]*)$")).as_py():
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        return column
