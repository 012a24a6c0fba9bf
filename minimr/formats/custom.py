"""Formats of users' own: objects with the methods of `minimr.inputs.CustomReader`."""

import io
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

import pyarrow as pa

from minimr.errors import JobUsageError
from minimr.formats.packed import PackedSource, unpacked
from minimr.formats.records import OnMalformed, Place, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.table_records import BatchRecords
from minimr.inputs import CustomReader, InputFormat
from minimr.messages import FileRange

__all__ = ["CustomFormatReader"]

_RECORDS_AT_A_TIME = 1024  # as objects; batches come one at a time


class CustomFormatReader:
    """Calls the user's reader, a file at a time."""

    def __init__(self, reader: InputFormat) -> None:
        assert isinstance(reader, CustomReader)
        self._reader = reader

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for each in ranges:
            with storage.open_input(each.url) as file:
                yield from self._read_file(each, file)

    def _read_file(self, wanted: FileRange, file: IO[bytes]) -> Iterator[Records]:
        end = wanted.start + wanted.length
        if wanted.compression:
            source = _PackedFile(unpacked(file, wanted.url, wanted.compression))
            file, end = cast("IO[bytes]", io.BufferedReader(source)), -1
        elif not self._reader.cuts_files:
            end = -1
        found: list[Any] = []
        count = 0
        for record in self._reader.read(file, wanted.start, end):
            if isinstance(record, pa.RecordBatch):
                yield BatchRecords(record, url=wanted.url, first_row=count, stored_bytes=0)
                count += record.num_rows
                continue
            found.append(record)
            if len(found) == _RECORDS_AT_A_TIME:
                yield _CustomRecords(found, wanted.url, count)
                count += len(found)
                found = []
        if found:
            yield _CustomRecords(found, wanted.url, count)


class _PackedFile(io.RawIOBase):
    def __init__(self, source: PackedSource) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._source.readinto(memoryview(buffer).cast("B"))


class _CustomRecords:
    """Whatever the user's reader gave."""

    stored_bytes = 0  # not known

    def __init__(self, records: list[Any], url: str, first: int) -> None:
        self._records = records
        self._url = url
        self._first = first

    @property
    def record_count(self) -> int:
        return len(self._records)

    def objects(self) -> list[Any]:
        return self._records

    def batch(self) -> pa.RecordBatch:
        raise JobUsageError(
            "this job maps batches, so its input format must yield pyarrow.RecordBatch"
        )

    def place_of(self, index: int) -> Place:
        return f"{self._url}, record {self._first + index}", -1

    def extent(self) -> str:
        last = self._first + len(self._records) - 1
        return f"records {self._first} to {last} of {self._url}"
