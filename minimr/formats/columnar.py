"""``parquet`` and ``arrow``: files with a footer, read a row group or record batch at a time.

A row group belongs to the range in which its first byte lies. Arrow tells no offsets of record
batches, so batch ``i`` of ``n`` counts as standing ``i/n`` of the way into its file: every reader
computes the same, so each batch belongs to exactly one range.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.records import OnMalformed, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.table_records import BatchRecords
from minimr.messages import FileRange

__all__ = ["ArrowIpcReader", "ParquetReader"]

_ROWS_PER_BATCH = 64 << 10
_ARROW_MAGIC = b"ARROW1"


class ParquetReader:
    """Only the wanted columns are read."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for each in ranges:
            with _opened(each, storage, "Parquet") as source:
                yield from self._read_file(each, source)

    def _read_file(self, wanted: FileRange, source: pa.NativeFile) -> Iterator[Records]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(source)
        names = _checked(self._columns, file.schema_arrow.names, wanted.url)
        first_row = 0
        for index in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(index)
            if group.num_rows and wanted.start <= _first_byte(group) < wanted.start + wanted.length:
                size = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
                row = first_row
                for batch in file.iter_batches(_ROWS_PER_BATCH, [index], names):
                    share = size * batch.num_rows // group.num_rows
                    yield BatchRecords(batch, url=wanted.url, first_row=row, stored_bytes=share)
                    row += batch.num_rows
            first_row += group.num_rows


def _first_byte(group: Any) -> int:
    if not group.num_columns:
        return 0
    column = group.column(0)
    offset: int = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        offset = min(offset, column.dictionary_page_offset)
    return offset


class ArrowIpcReader:
    """IPC files, and IPC streams, which are one piece."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for each in ranges:
            with _opened(each, storage, "Arrow IPC") as source:
                yield from self._read_file(each, source)

    def _read_file(self, wanted: FileRange, source: pa.NativeFile) -> Iterator[Records]:
        is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
        source.seek(0)
        first_row = 0
        for start, batch, stored_bytes in (
            _file_batches(source, wanted.file_bytes) if is_file else _stream_batches(source)
        ):
            if batch.num_rows and wanted.start <= start < wanted.start + wanted.length:
                names = _checked(self._columns, batch.schema.names, wanted.url)
                kept = batch if names is None else batch.select(names)
                yield BatchRecords(
                    kept, url=wanted.url, first_row=first_row, stored_bytes=stored_bytes
                )
            elif not is_file and wanted.start:
                return
            first_row += batch.num_rows


def _file_batches(
    source: pa.NativeFile, file_bytes: int
) -> Iterator[tuple[int, pa.RecordBatch, int]]:
    file = pa.ipc.open_file(source)
    count = file.num_record_batches
    for index in range(count):
        yield file_bytes * index // count, file.get_batch(index), file_bytes // count


def _stream_batches(source: pa.NativeFile) -> Iterator[tuple[int, pa.RecordBatch, int]]:
    for batch in pa.ipc.open_stream(source):
        yield 0, batch, batch.nbytes


def _checked(columns: tuple[str, ...], names: list[str], url: str) -> list[str] | None:
    for name in columns:
        if name not in names:
            raise UnreadableInput(f"{url} has no column {name!r}: it has {', '.join(names)}")
    return list(columns) or None


@contextmanager
def _opened(wanted: FileRange, storage: Storage, kind: str) -> Iterator[pa.NativeFile]:
    if wanted.compression:
        raise UnreadableInput(
            f"{wanted.url}: {kind} files are read from their end, so they cannot be packed as a "
            f"whole: unpack it first ({kind} packs its own pages)"
        )
    file: IO[bytes]
    with storage.open_input(wanted.url) as file:
        try:
            yield pa.PythonFile(file, mode="r")
        except pa.ArrowException as error:
            raise UnreadableInput(f"{wanted.url} is no whole {kind} file: {error}") from error
