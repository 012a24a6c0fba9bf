"""Outputs as text: ``key<TAB>value<LF>``, the default (DESIGN 5.4), ``value<LF>``, and ``raw``.

A tab in a key, or a line feed in either, would let one record read as others. Such a record fails
the task, unless the job runs with ``escape=true``: then backslash, tab and line feed are written as
``\\\\``, ``\\t`` and ``\\n`` in keys and values.
"""

import numpy as np
import pyarrow as pa

from minimr.column_text import as_text
from minimr.column_types import to_objects
from minimr.columns import binary_scalar
from minimr.errors import AmbiguousOutput
from minimr.pairs import Pairs, binary_parts

__all__ = ["content_of", "encode_lines", "encode_raw", "encode_text", "shown"]

_SHOWN_CHARACTERS = 120


def encode_text(pairs: Pairs, *, escape: bool) -> memoryview:
    """The pairs as text; `AmbiguousOutput` names the record that cannot be."""
    import pyarrow.compute as pc

    keys, values = (as_text(column) for column in pairs.columns)
    if escape:
        keys, values = _escaped(keys), _escaped(values)
    else:
        _check(pairs, keys, b"\t\n", "key")
        _check(pairs, values, b"\n", "value")
    records = pc.binary_join_element_wise(keys, values, binary_scalar(b"\t"))
    return _terminated(records)


def encode_lines(pairs: Pairs) -> memoryview:
    """The values, each with a line feed; `AmbiguousOutput` names one that has another in it."""
    values = as_text(pairs.column(1))
    _check(pairs, values, b"\n", "value")
    return _terminated(values)


def encode_raw(pairs: Pairs) -> memoryview:
    """The values' bytes and nothing else."""
    return content_of(as_text(pairs.column(1)))


def content_of(column: pa.Array) -> memoryview:
    """All bytes of a `large_binary` column, not copied."""
    offsets, data = binary_parts(column)
    return data[int(offsets[0]) : int(offsets[-1])].data


def _terminated(records: pa.Array) -> memoryview:
    import pyarrow.compute as pc

    return content_of(
        pc.binary_join_element_wise(records, binary_scalar(b""), binary_scalar(b"\n"))
    )


def _check(pairs: Pairs, text: pa.Array, forbidden: bytes, role: str) -> None:
    offsets, data = binary_parts(text)
    content = data[int(offsets[0]) : int(offsets[-1])]
    bad = np.zeros(0, np.int64)
    for byte in forbidden:
        bad = np.concatenate((bad, np.flatnonzero(content == byte)))
    if not bad.size:
        return
    at = int(bad.min()) + int(offsets[0])
    row = int(np.searchsorted(offsets, at, side="right")) - 1
    what = "a tab" if data[at] == 0x09 else "a line feed"
    key, value = (shown(to_objects(column[row : row + 1])[0]) for column in pairs.columns)
    raise AmbiguousOutput(
        f"the {role} of the record {key} -> {value} has {what} in it, so its line in a text file "
        "could be read as something else: run with --set escape=true or another output_format, "
        "or take it out in the job"
    )


def _escaped(text: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    for plain, written in ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n")):
        text = pc.replace_substring(text, pattern=plain, replacement=written)
    return text


def shown(value: object) -> str:
    """``repr``, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
