"""``parquet`` and ``arrow``: files with a footer, read a row group or record batch at a time.

A row group belongs to the range in which its first byte lies. Arrow tells no offsets of record
batches, so batch ``i`` of ``n`` counts as standing ``i/n`` of the way into its file: every reader
computes the same, so each batch belongs to exactly one range. Rows are handed on as many as fit a
block, however large the groups are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, ClassVar

import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.records import OnMalformed, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.table_records import BatchRecords
from minimr.messages import FileRange

__all__ = ["ArrowIpcReader", "ParquetReader"]

_ROWS_PER_BATCH = 64 << 10
_ARROW_MAGIC = b"ARROW1"


class _TableReader(ABC):
    """Only ``columns`` are read, all if there are none."""

    _kind: ClassVar[str]

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
            with _opened(each, storage, self._kind) as source:
                for first_row, batch, stored_bytes in self._batches(each, source, block_bytes):
                    yield from _cut(batch, each.url, first_row, stored_bytes, block_bytes)

    @abstractmethod
    def _batches(
        self, wanted: FileRange, source: pa.NativeFile, block_bytes: int
    ) -> Iterator[tuple[int, pa.RecordBatch, int]]:
        """The batches of a range: the number of the first row, the rows, their bytes as stored."""

    def _names(self, names: list[str], url: str) -> list[str] | None:
        for name in self._columns:
            if name not in names:
                raise UnreadableInput(f"{url} has no column {name!r}: it has {', '.join(names)}")
        return list(self._columns) or None


class ParquetReader(_TableReader):
    _kind = "Parquet"

    def _batches(
        self, wanted: FileRange, source: pa.NativeFile, block_bytes: int
    ) -> Iterator[tuple[int, pa.RecordBatch, int]]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(source)
        names = self._names(file.schema_arrow.names, wanted.url)
        row = 0
        for index in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(index)
            if not (wanted.start <= _first_byte(group) < wanted.start + wanted.length):
                row += group.num_rows
                continue
            size = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
            row_count = block_bytes * group.num_rows // max(group.total_byte_size, 1)
            row_count = min(max(row_count, 1), _ROWS_PER_BATCH)
            for batch in file.iter_batches(row_count, [index], names):
                yield row, batch, size * batch.num_rows // max(group.num_rows, 1)
                row += batch.num_rows


def _first_byte(group: Any) -> int:
    if not group.num_columns:
        return 0
    column = group.column(0)
    offset: int = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        offset = min(offset, column.dictionary_page_offset)
    return offset


class ArrowIpcReader(_TableReader):
    """IPC files, and IPC streams, which are one piece."""

    _kind = "Arrow IPC"

    def _batches(
        self, wanted: FileRange, source: pa.NativeFile, block_bytes: int
    ) -> Iterator[tuple[int, pa.RecordBatch, int]]:
        is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
        source.seek(0)
        if not is_file and wanted.start:
            return
        row = 0
        for start, batch, stored_bytes in (
            _file_batches(source, wanted.file_bytes) if is_file else _stream_batches(source)
        ):
            if wanted.start <= start < wanted.start + wanted.length:
                names = self._names(batch.schema.names, wanted.url)
                yield row, batch if names is None else batch.select(names), stored_bytes
            row += batch.num_rows


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


def _cut(
    batch: pa.RecordBatch, url: str, first_row: int, stored_bytes: int, block_bytes: int
) -> Iterator[Records]:
    """The rows, as many at a time as fit a block."""
    row_count = max(1, batch.num_rows * block_bytes // max(batch.nbytes, 1))
    for start in range(0, batch.num_rows, row_count):
        rows = batch.slice(start, row_count)
        share = stored_bytes * rows.num_rows // batch.num_rows
        yield BatchRecords(rows, url=url, first_row=first_row + start, stored_bytes=share)


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
        except MemoryError:  # Arrow's is an ArrowException, too
            raise
        except pa.ArrowException as error:
            raise UnreadableInput(f"{wanted.url} is no whole {kind} file: {error}") from error
