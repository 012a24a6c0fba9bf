"""The reader of a format, loaded when it is needed."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from minimr.formats.records import OnMalformed, Reader, Records, refuse
from minimr.formats.storage import Storage
from minimr.inputs import (
    ArrowIpc,
    Auto,
    Blocks,
    Csv,
    Files,
    FixedWidth,
    InputFormat,
    JsonLines,
    KeyValue,
    Lines,
    Parquet,
    file_format,
)
from minimr.messages import FileRange

__all__ = ["reader_of"]


def reader_of(chosen: InputFormat) -> Reader:
    """What reads this format."""
    match chosen:
        case Lines():
            from minimr.formats.line_records import LineReader

            return LineReader("lines")
        case Blocks():
            from minimr.formats.line_records import LineReader

            return LineReader("blocks")
        case KeyValue(separator=separator):
            from minimr.formats.line_records import KeyValueReader

            return KeyValueReader(separator)
        case FixedWidth(record_bytes=record_bytes):
            from minimr.formats.fixed_width import FixedWidthReader

            return FixedWidthReader(record_bytes)
        case Files(suffixes=suffixes):
            from minimr.formats.whole_files import FilesReader

            return FilesReader(suffixes)
        case Auto():
            return _ReaderBySuffix()
        case _:
            return _table_reader(chosen)


def _table_reader(chosen: InputFormat) -> Reader:
    """The reader of a format whose records have fields."""
    match chosen:
        case Csv():
            from minimr.formats.csv_input import CsvReader

            return CsvReader(chosen)
        case JsonLines():
            from minimr.formats.json_lines import JsonLinesReader

            return JsonLinesReader()
        case Parquet(columns=columns):
            from minimr.formats.columnar import ParquetReader

            return ParquetReader(columns)
        case ArrowIpc(columns=columns):
            from minimr.formats.columnar import ArrowIpcReader

            return ArrowIpcReader(columns)
        case custom:
            from minimr.formats.custom import CustomFormatReader

            return CustomFormatReader(custom)


class _ReaderBySuffix:
    """Each file by the reader that its name asks for; the order of files is kept."""

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for chosen, group in groupby(ranges, lambda each: file_format(Auto(), each.url)):
            yield from reader_of(chosen).read(
                list(group), storage, block_bytes=block_bytes, on_malformed=on_malformed
            )
