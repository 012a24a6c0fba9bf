"""``csv``: rows of RFC 4180, quoted line feeds included.

Lines are read in blocks and handed one by one to Python's parser, which takes more of them while a
quote is open: memory is bounded by a block and a row, whatever the file.
"""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Any

from minimr.formats.blocks import read_blocks
from minimr.formats.records import MalformedRecord, OnMalformed, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.table_records import ObjectRecords
from minimr.formats.text_input import split_lines
from minimr.inputs import Csv
from minimr.messages import FileRange

__all__ = ["CsvReader"]

_FIELD_CHARACTERS_MAX = 64 << 20  # an open quote swallows a file up to here, then it is an error


class CsvReader:
    """Rows as dictionaries if the file has a header, else as lists."""

    def __init__(self, options: Csv) -> None:
        self._options = options

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for each in ranges:
            yield from self._read_file(each, storage, block_bytes, on_malformed)

    def _read_file(
        self,
        wanted: FileRange,
        storage: Storage,
        block_bytes: int,
        on_malformed: OnMalformed,
    ) -> Iterator[Records]:
        columns: list[str] | None = None

        def on_no_row(error: MalformedRecord) -> None:
            if self._options.header and columns is None:
                refuse(error)  # leaving it out would make a header of the first row
            on_malformed(error)

        lines = _Lines(wanted, storage, block_bytes)
        rows = _rows(lines, wanted.url, self._options, on_no_row)
        if self._options.header:
            first = next(rows, None)
            if first is None:
                return
            offset, columns = first
            _check_header(columns, wanted.url, offset)
        found: list[Any] = []
        offsets: list[int] = []
        read_bytes = 0
        for offset, row in rows:
            if columns is None:
                columns = [f"c{index}" for index in range(len(row))]
            if len(row) != len(columns):
                why = f"this row has {len(row)} fields and not {len(columns)}"
                on_malformed(MalformedRecord(why, url=wanted.url, offset=offset, record=row))
                continue
            found.append(dict(zip(columns, row, strict=True)) if self._options.header else row)
            offsets.append(offset)
            if lines.read_bytes - read_bytes >= block_bytes:
                yield _records(found, offsets, wanted.url, lines.read_bytes - read_bytes, columns)
                found, offsets, read_bytes = [], [], lines.read_bytes
        if found:
            yield _records(found, offsets, wanted.url, lines.read_bytes - read_bytes, columns)


def _check_header(columns: list[str], url: str, offset: int) -> None:
    """Each name once: a row is a dictionary, where the last column of a name hides the others."""
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise MalformedRecord(
            f"the header has the column {twice!r} twice: rename one, or read without input.header",
            url=url,
            offset=offset,
            record=columns,
        )


def _records(
    rows: list[Any], offsets: list[int], url: str, stored_bytes: int, columns: list[str] | None
) -> ObjectRecords:
    return ObjectRecords(rows, offsets, url=url, stored_bytes=stored_bytes, columns=columns)


class _Lines:
    """The lines of a range as text, with their LFs."""

    def __init__(self, wanted: FileRange, storage: Storage, block_bytes: int) -> None:
        self._blocks = read_blocks([wanted], storage, block_bytes=block_bytes)
        self.row_offset: int | None = None  # of the first line since it was set to None
        self.read_bytes = 0
        self.last = b""  # as it stands in the file

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            offset = block.origin_of(0)[1]
            self.read_bytes += block.stored_bytes
            for line in split_lines(block):
                if self.row_offset is None:
                    self.row_offset = offset
                self.last = line
                text = line.removeprefix(BOM_UTF8) if offset == 0 else line
                yield text.decode("utf-8", "replace") + "\n"
                offset += len(line) + 1


class _LinesOfRow:
    """What the parser takes lines from. With ``ends_row`` it gets one a row, so that an open quote
    ends with its line: where files are cut, what follows may be another task's."""

    def __init__(self, lines: _Lines, *, ends_row: bool) -> None:
        self._lines = iter(lines)
        self._ends_row = ends_row
        self.is_given = False

    def __iter__(self) -> "_LinesOfRow":
        return self

    def __next__(self) -> str:
        if self.is_given and self._ends_row:
            raise StopIteration
        self.is_given = True
        return next(self._lines)


def _rows(
    lines: _Lines, url: str, options: Csv, on_malformed: OnMalformed
) -> Iterator[tuple[int, list[str]]]:
    """Each row and the offset it begins at. Empty lines are no rows."""
    csv.field_size_limit(_FIELD_CHARACTERS_MAX)
    source = _LinesOfRow(lines, ends_row=not options.multiline)
    parser = csv.reader(source, delimiter=options.separator, strict=True)
    while True:
        lines.row_offset, source.is_given = None, False
        try:
            row = next(parser)
        except StopIteration:
            return
        except csv.Error as error:
            why = f"the row that begins here is no CSV ({error})"
            offset = lines.row_offset or 0
            on_malformed(MalformedRecord(why, url=url, offset=offset, record=lines.last))
            continue
        if row:
            yield lines.row_offset or 0, row
