"""Pairs to the bytes of a part, in any output format: counted, summed, compressed.

::

    pairs --> encoder (format) --> packer (compression) --> sum, size, file

The bytes depend on the sequence of pairs alone, never on how it was cut into batches: what is
compressed, and the row groups of Parquet and Arrow files, are cut by rules of their own. So
attempts and backends that merge in different steps still write the same file.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol, cast

import pyarrow as pa
import xxhash

from minimr.column_types import least_and_greatest, to_objects
from minimr.formats.text_output import encode_lines, encode_raw, encode_text, shown
from minimr.outputs import (
    ArrowIpc,
    Compression,
    Csv,
    CustomWriter,
    JsonLines,
    Lines,
    OutputFormat,
    Parquet,
    Raw,
    Text,
)
from minimr.pairs import Pairs

__all__ = ["OutputSummary", "PartWriter"]

_WRITTEN_BYTES = 1 << 20  # at a time; also the unit of compression
_GZIP_LEVEL = 6
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # no time and no name in the header: the same bytes each time
_ZSTD_LEVEL = 3

Write = Callable[[memoryview | bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSummary:
    size_bytes: int
    xxh3: str
    record_count: int
    min_key: str | None
    max_key: str | None


class PartWriter:
    """Writes pairs to ``file`` and sums up what it wrote; the file stays open."""

    def __init__(
        self, file: IO[bytes], chosen: OutputFormat, compression: Compression = ""
    ) -> None:
        self._sink = _Sink(file)
        self._is_table = isinstance(chosen, Parquet | ArrowIpc)  # it packs itself
        self._packer = _packer(self._sink, "" if self._is_table else compression)
        self._encoder = _encoder(chosen, self._packer.write, compression)
        self._record_count = 0
        self._ends: pa.Array | None = None  # least and greatest key

    def write(self, pairs: Pairs) -> None:
        """Append the pairs; `AmbiguousOutput` names one that the format cannot hold. No pairs still
        tell the types of a table."""
        if pairs.num_rows or self._is_table:
            self._encoder.write(pairs)
        if not pairs.num_rows:
            return
        self._record_count += pairs.num_rows
        self._note_keys(pairs.column(0))

    def finish(self) -> OutputSummary:
        """Write what is left."""
        self._encoder.close()
        self._packer.close()
        self._sink.flush()
        least, greatest = (None, None) if self._ends is None else map(shown, to_objects(self._ends))
        return OutputSummary(
            size_bytes=self._sink.size_bytes,
            xxh3=self._sink.sum.hexdigest(),
            record_count=self._record_count,
            min_key=least,
            max_key=greatest,
        )

    def _note_keys(self, keys: pa.Array) -> None:
        ends = least_and_greatest(keys)
        if self._ends is not None:
            ends = least_and_greatest(pa.concat_arrays([self._ends, ends]))
        self._ends = ends


class _Sink:
    """The file: what goes into it is summed, and written a megabyte at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = bytearray()
        self.sum = xxhash.xxh3_64()
        self.size_bytes = 0

    def write(self, content: memoryview | bytes) -> None:
        self.sum.update(content)
        self.size_bytes += len(content)
        self._pending += content
        if len(self._pending) >= _WRITTEN_BYTES:
            self.flush()

    def flush(self) -> None:
        content = memoryview(self._pending)
        self._pending = bytearray()
        while content:
            content = content[self._file.write(content) :]


class _Packer(Protocol):
    def write(self, content: memoryview | bytes) -> None: ...

    def close(self) -> None: ...


class _Unpacked:
    def __init__(self, sink: _Sink) -> None:
        self.write = sink.write

    def close(self) -> None:
        """Nothing is held back."""


class _Packed:
    """Compresses a megabyte at a time: a gzip stream, or a sequence of zstd frames."""

    def __init__(self, sink: _Sink, compression: Compression) -> None:
        self._sink = sink
        self._pending = bytearray()
        self._is_empty = True
        if compression == "gzip":
            stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
            self._pack: Callable[[bytes], bytes] = stream.compress
            self._end: Callable[[], bytes] = stream.flush
        else:
            codec = pa.Codec("zstd", _ZSTD_LEVEL)
            self._pack = lambda content: bytes(codec.compress(content, asbytes=True))
            self._end = bytes

    def write(self, content: memoryview | bytes) -> None:
        self._pending += content
        start = 0
        while len(self._pending) - start >= _WRITTEN_BYTES:
            self._put(bytes(self._pending[start : start + _WRITTEN_BYTES]))
            start += _WRITTEN_BYTES
        del self._pending[:start]

    def close(self) -> None:
        if self._pending or self._is_empty:
            self._put(bytes(self._pending))
        self._sink.write(self._end())

    def _put(self, content: bytes) -> None:
        self._is_empty = False
        self._sink.write(self._pack(content))


def _packer(sink: _Sink, compression: Compression) -> _Packer:
    return _Packed(sink, compression) if compression else _Unpacked(sink)


class _Encoder(Protocol):
    def write(self, pairs: Pairs) -> None: ...

    def close(self) -> None: ...


class _RowEncoder:
    """A format whose records do not know of each other."""

    def __init__(self, encode: Callable[[Pairs], memoryview | bytes], write: Write) -> None:
        self._encode = encode
        self._write = write

    def write(self, pairs: Pairs) -> None:
        self._write(self._encode(pairs))

    def close(self) -> None:
        """Nothing is held back."""


def _encoder(chosen: OutputFormat, write: Write, compression: Compression) -> _Encoder:
    match chosen:
        case Text(escape=escape):
            return _RowEncoder(lambda pairs: encode_text(pairs, escape=escape), write)
        case Lines():
            return _RowEncoder(encode_lines, write)
        case Raw():
            return _RowEncoder(encode_raw, write)
        case Csv(header=header):
            from minimr.formats.csv_output import CSV_HEADER, encode_csv

            if header:
                write(CSV_HEADER)
            return _RowEncoder(encode_csv, write)
        case JsonLines():
            from minimr.formats.json_output import encode_json_lines

            return _RowEncoder(encode_json_lines, write)
        case Parquet() | ArrowIpc():
            from minimr.formats.table_output import TableEncoder

            return TableEncoder(
                "parquet" if isinstance(chosen, Parquet) else "arrow", write, compression
            )
        case custom:
            assert isinstance(custom, CustomWriter)
            from minimr.formats.table_output import WriteOnlyFile

            return custom.open(cast("IO[bytes]", WriteOnlyFile(write)))
