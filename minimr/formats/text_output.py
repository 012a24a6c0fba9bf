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

from minimr.column_text import as_text
from minimr.column_types import least_and_greatest, to_objects
from minimr.columns import binary_scalar
from minimr.errors import AmbiguousOutput
from minimr.pairs import Pairs, binary_parts

__all__ = ["OutputSummary", "TextOutput"]

_SHOWN_CHARACTERS = 120
_WRITTEN_BYTES = 1 << 20  # at a time


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
        self._ends: tuple[Any, Any] | None = None  # least and greatest key

    def write(self, pairs: Pairs) -> None:
        """Append the pairs as text; `AmbiguousOutput` names the record that cannot be."""
        if not pairs.num_rows:
            return
        import pyarrow.compute as pc

        keys, values = map(as_text, pairs.columns)
        if self._escape:
            keys, values = _escaped(keys), _escaped(values)
        else:
            _check(pairs, keys, b"\t\n", "key")
            _check(pairs, values, b"\n", "value")
        records = pc.binary_join_element_wise(keys, values, binary_scalar(b"\t"))
        lines = pc.binary_join_element_wise(records, binary_scalar(b""), binary_scalar(b"\n"))
        offsets, data = binary_parts(lines)
        self._append(data[int(offsets[0]) : int(offsets[-1])].data, pairs.num_rows)
        self._note_keys(*least_and_greatest(pairs.column(0)))

    def finish(self) -> OutputSummary:
        """Write what is left; the file stays open."""
        self._flush()
        return OutputSummary(
            size_bytes=self._size_bytes,
            xxh3=self._sum.hexdigest(),
            record_count=self._record_count,
            min_key=None if self._ends is None else _shown(self._ends[0]),
            max_key=None if self._ends is None else _shown(self._ends[1]),
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

    def _note_keys(self, least: Any, greatest: Any) -> None:
        if self._ends is not None and least is not None:
            least, greatest = min(self._ends[0], least), max(self._ends[1], greatest)
        self._ends = least, greatest


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
    key, value = (_shown(to_objects(column[row : row + 1])[0]) for column in pairs.columns)
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
