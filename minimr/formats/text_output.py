"""The default output: ``key<TAB>value<LF>``, bytes as they are (DESIGN 5.4).

A tab in a key, or a line feed in either, would let one record read as others. Such a record fails
the task, unless the job runs with ``escape=true``: then backslash, tab and line feed are written as
``\\\\``, ``\\t`` and ``\\n`` in keys and values.
"""

from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import xxhash

from minimr.columns import binary_scalar
from minimr.errors import AmbiguousOutput
from minimr.pairs import Pairs, binary_parts

__all__ = ["OutputSummary", "TextOutput"]

_SHOWN_CHARACTERS = 120
_WRITTEN_BYTES = 1 << 20  # at a time
_BINARY = pa.large_binary()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSummary:
    size_bytes: int
    xxh3: str
    record_count: int
    min_key: str | None
    max_key: str | None


class TextOutput:
    """Writes pairs to ``file`` and sums up what it wrote."""

    def __init__(self, file: IO[bytes], *, escape: bool) -> None:
        self._file = file
        self._escape = escape
        self._sum = xxhash.xxh3_64()
        self._size_bytes = 0
        self._record_count = 0
        self._pending = bytearray()
        self._least: Any = None
        self._greatest: Any = None

    def write(self, pairs: Pairs) -> None:
        """Append the pairs as text; `AmbiguousOutput` names the record that cannot be."""
        if not pairs.num_rows:
            return
        import pyarrow.compute as pc

        keys, values = (_as_text(column) for column in pairs.columns)
        if self._escape:
            keys, values = _escaped(keys), _escaped(values)
        else:
            _check(pairs, keys, b"\t\n", "key")
            _check(pairs, values, b"\n", "value")
        records = pc.binary_join_element_wise(keys, values, binary_scalar(b"\t"))
        lines = pc.binary_join_element_wise(records, binary_scalar(b""), binary_scalar(b"\n"))
        offsets, data = binary_parts(lines)
        self._append(data[int(offsets[0]) : int(offsets[-1])].data, pairs.num_rows)
        self._note_keys(pc.min_max(pairs.column(0)).as_py())

    def finish(self) -> OutputSummary:
        """Write what is left; the file stays open."""
        self._flush()
        return OutputSummary(
            size_bytes=self._size_bytes,
            xxh3=self._sum.hexdigest(),
            record_count=self._record_count,
            min_key=None if self._least is None else _shown(self._least),
            max_key=None if self._greatest is None else _shown(self._greatest),
        )

    def _append(self, text: memoryview, record_count: int) -> None:
        self._sum.update(text)
        self._size_bytes += len(text)
        self._record_count += record_count
        self._pending += text
        if len(self._pending) >= _WRITTEN_BYTES:
            self._flush()

    def _flush(self) -> None:
        text = memoryview(self._pending)
        self._pending = bytearray()
        while text:
            text = text[self._file.write(text) :]

    def _note_keys(self, found: dict[str, Any]) -> None:
        if self._least is None:
            self._least, self._greatest = found["min"], found["max"]
            return
        self._least = min(self._least, found["min"])
        self._greatest = max(self._greatest, found["max"])


def _as_text(column: pa.Array) -> pa.Array:
    if column.type == _BINARY:
        return column
    if pa.types.is_floating(column.type):
        return pa.array([repr(number).encode() for number in column.to_pylist()], _BINARY)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.large_string())
    return column.cast(_BINARY)


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
    key, value = (_shown(column[row].as_py()) for column in pairs.columns)
    raise AmbiguousOutput(
        f"the {role} of the record {key} -> {value} has {what} in it, so its line in a text file "
        "could be read as something else: run with --set escape=true, or take it out in the job"
    )


def _escaped(text: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    for plain, written in ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n")):
        text = pc.replace_substring(text, pattern=plain, replacement=written)
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
