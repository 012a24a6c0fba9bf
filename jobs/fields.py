"""Fields of lines as columns, at memory speed, whatever the bytes are.

Polars' CSV scanner finds separators and line ends. It wants UTF-8 and takes CRs for parts of line
ends, so bytes that are neither ASCII nor free of CRs are given to it in disguise (`to_text`), and
what it found is turned back (`to_binary`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

__all__ = ["first_fields", "scan_columns", "single_blanks", "to_binary", "to_text"]

_WINDOW_BYTES = 256 << 10  # the arrays made for one window stay in the processor's cache

_LF, _BLANK = 10, 32
_CR_STAND_IN = "\u0100"  # no byte decodes to it as Latin-1


def first_fields(block: bytes, *, count: int) -> "pa.Table":
    """The first fields of each line, split at runs of spaces and tabs: columns ``c0``, ``c1``, ...
    of bytes, null where a line has fewer."""
    import pyarrow as pa

    text, is_plain = to_text(single_blanks(block))
    if not text:
        return pa.table({f"c{i}": pa.array([], pa.binary()) for i in range(count)})
    frame = scan_columns(text, separator=" ", count=count).collect()
    return pa.table({name: to_binary(frame[name], is_plain=is_plain) for name in frame.columns})


def scan_columns(text: bytes, *, separator: str, count: int) -> "pl.LazyFrame":
    """Columns ``c0``, ``c1``, ... of each line; null where it has no such column, or an empty one.

    ``text`` is what `to_text` gave.
    """
    import polars as pl

    return pl.scan_csv(
        text,
        has_header=False,
        separator=separator,
        quote_char=None,
        schema={f"c{i}": pl.String for i in range(count)},
        truncate_ragged_lines=True,
        extra_columns="ignore",
        missing_columns="insert",
    )


def to_text(block: bytes) -> tuple[bytes, bool]:
    """A block as UTF-8 that means the same to the scanner; whether it is the block itself.

    One code point per byte, so that bytes that are not UTF-8 survive; carriage returns get another
    code point, because the scanner would take one at the end of a line for a part of the line end.
    """
    is_ascii = block.isascii()
    if is_ascii and b"\r" not in block:
        return block, True
    text = block if is_ascii else block.decode("latin-1").encode("utf-8")
    return text.replace(b"\r", _CR_STAND_IN.encode("utf-8")), False


def to_binary(column: "pl.Series", *, is_plain: bool) -> "pa.Array":
    """The bytes that a column of `to_text`'s text stands for; nulls stay nulls."""
    import pyarrow as pa

    if is_plain:
        return column.to_arrow().cast(pa.large_string()).cast(pa.large_binary()).cast(pa.binary())
    texts = column.to_list()
    return pa.array(
        [
            None if text is None else text.replace(_CR_STAND_IN, "\r").encode("latin-1")
            for text in texts
        ],
        pa.binary(),
    )


def single_blanks(block: bytes) -> bytes:
    """The lines with one space between their parts and none before the first.

    Searching two blanks in a row takes ``bytes.replace`` ten times as long as this.
    """
    import numpy as np

    if not block:
        return block
    if not block.endswith(b"\n"):
        block += b"\n"  # a last line of blanks alone stays a line
    block = block.replace(b"\t", b" ").lstrip(b" ")
    octets = np.frombuffer(block, np.uint8)
    kept: list[memoryview] = [octets[:1].data]
    for start in range(1, len(octets), _WINDOW_BYTES):
        window = octets[start : start + _WINDOW_BYTES]
        before = octets[start - 1 : start - 1 + len(window)]
        # Nearly all windows are done with this: no two blanks or control characters in a row.
        small = octets[start - 1 : start + len(window)] <= _BLANK
        if (small[1:] & small[:-1]).any():
            extra = ((before == _BLANK) | (before == _LF)) & (window == _BLANK)
            window = window[~extra]
        kept.append(window.data)
    is_unchanged = sum(map(len, kept)) == len(block)
    return block if is_unchanged else b"".join(kept)
