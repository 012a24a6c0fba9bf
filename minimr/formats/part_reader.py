"""Parts of a job's output, in whatever format they were written, as one Arrow table."""

import gzip
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from minimr.errors import JobUsageError
from minimr.formats.csv_output import CSV_HEADER
from minimr.formats.text_parts import read_text_parts
from minimr.outputs import (
    ArrowIpc,
    Compression,
    Csv,
    JsonLines,
    Lines,
    OutputFormat,
    Parquet,
    Text,
)

__all__ = ["read_parts"]


def read_parts(parts: Sequence[bytes], chosen: OutputFormat, compression: Compression) -> pa.Table:
    """Columns ``key`` and ``value`` (``lines``: ``value``), in the order of the parts.

    What the text formats do not say is guessed: see `text_parts`, and Arrow's readers of CSV and
    JSON. `JobUsageError` for formats that nothing but their own reader can read.
    """
    if isinstance(chosen, Parquet | ArrowIpc):
        return _concatenated([_table(part, chosen) for part in parts])
    contents = [_unpacked(part, compression) for part in parts]
    match chosen:
        case Text(escape=escape):
            return read_text_parts(contents, escaped=escape)
        case Lines():
            lines = b"".join(contents).split(b"\n")[:-1]
            return pa.table({"value": pa.array(lines, pa.large_binary())})
        case Csv(header=header):
            head = CSV_HEADER if header else b""
            return _csv(b"".join(content.removeprefix(head) for content in contents))
        case JsonLines():
            return _json(b"".join(contents))
        case _:
            raise JobUsageError(
                f"output_format={type(chosen).__name__.lower()} has no columns: read the parts"
            )


def _unpacked(part: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.decompress(part)
    if compression == "zstd":
        with pa.CompressedInputStream(pa.BufferReader(part), "zstd") as stream:
            return bytes(stream.read())
    return part


def _table(part: bytes, chosen: Parquet | ArrowIpc) -> pa.Table:
    source = pa.BufferReader(part)
    if isinstance(chosen, ArrowIpc):
        return pa.ipc.open_file(source).read_all()
    import pyarrow.parquet as pq

    return pq.ParquetFile(source).read()


# The rows of all parts at once: a column's type is guessed from all of it.


def _csv(content: bytes) -> pa.Table:
    import pyarrow.csv

    if not content:
        return _concatenated([])
    return pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(column_names=["key", "value"]),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(null_values=[]),  # "NA" may be a word
    )


def _json(content: bytes) -> pa.Table:
    import msgspec

    rows = msgspec.json.Decoder().decode_lines(content)
    return pa.table({name: _column([row[name] for row in rows]) for name in ("key", "value")})


def _column(values: list[Any]) -> pa.Array:
    """What Arrow makes of them; JSON text of what has no type in common, such as tuples."""
    import msgspec

    if not values:
        return pa.array([], pa.string())
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([msgspec.json.encode(value).decode() for value in values])


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of those that have rows; empty parts do not know the types."""
    found = [table for table in tables if table.num_rows]
    if not found:
        return pa.table({"key": pa.array([], pa.string()), "value": pa.array([], pa.string())})
    return pa.concat_tables(found, promote_options="permissive")
