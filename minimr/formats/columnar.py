"""``parquet`` and ``arrow``: files with a footer, read a row group or record batch at a time.

A row group belongs to the range in which its first byte lies. Arrow tells no offsets of record
batches, so batch ``i`` of ``n`` counts as standing ``i/n`` of the way into its file: every reader
computes the same, so each batch belongs to exactly one range. Rows are handed on as many as fit a
block, however large the groups are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Rows, their bytes as stored, and how many rows of the file stand before them."""

    rows: pa.RecordBatch
    stored_bytes: int
    rows_before: Callable[[], int]


class _TableReader(ABC):
    """Only ``columns`` are read, all if there are none."""

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
            for group in self._groups(each, storage, block_bytes):
                yield from _cut(group, each.url, block_bytes)

    @abstractmethod
    def _groups(self, wanted: FileRange, storage: Storage, block_bytes: int) -> Iterator["_Group"]:
        """The rows of a range; nothing else of the file is read."""

    def _names(self, names: list[str], url: str) -> list[str] | None:
        for name in self._columns:
            if name not in names:
                raise UnreadableInput(f"{url} has no column {name!r}: it has {', '.join(names)}")
        return list(self._columns) or None


class ParquetReader(_TableReader):
    def _groups(self, wanted: FileRange, storage: Storage, block_bytes: int) -> Iterator[_Group]:
        import pyarrow.parquet as pq

        row = 0
        with _opened(wanted, storage, "Parquet") as source:
            file = pq.ParquetFile(source)
            names = self._names(file.schema_arrow.names, wanted.url)
            for index in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(index)
                if not wanted.start <= _first_byte(group) < wanted.start + wanted.length:
                    row += group.num_rows
                    continue
                row_count = block_bytes * group.num_rows // max(group.total_byte_size, 1)
                row_count = min(max(row_count, 1), _ROWS_PER_BATCH)
                size_bytes = _stored_bytes(group)
                for batch in file.iter_batches(row_count, [index], names):
                    share = size_bytes * batch.num_rows // group.num_rows
                    yield _Group(rows=batch, stored_bytes=share, rows_before=partial(int, row))
                    row += batch.num_rows


def _stored_bytes(group: Any) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))


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

    def _groups(self, wanted: FileRange, storage: Storage, block_bytes: int) -> Iterator[_Group]:
        with _opened(wanted, storage, "Arrow IPC") as source:
            is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
            source.seek(0)
            if is_file:
                found = _file_groups(source, wanted, storage)
            else:
                found = _stream_groups(source) if wanted.start == 0 else iter(())
            for group in found:
                names = self._names(group.rows.schema.names, wanted.url)
                yield group if names is None else replace(group, rows=group.rows.select(names))


def _file_groups(source: pa.NativeFile, wanted: FileRange, storage: Storage) -> Iterator[_Group]:
    file = pa.ipc.open_file(source)
    count = file.num_record_batches
    for index in range(count):
        start = wanted.file_bytes * index // count
        if wanted.start <= start < wanted.start + wanted.length:
            yield _Group(
                rows=file.get_batch(index),
                stored_bytes=wanted.file_bytes // count,
                rows_before=partial(_rows_before, index, wanted, storage),
            )


def _rows_before(index: int, wanted: FileRange, storage: Storage) -> int:
    """The footer does not tell: all earlier batches are read, once somebody asks."""
    with _opened(wanted, storage, "Arrow IPC") as source:
        file = pa.ipc.open_file(source)
        return sum(file.get_batch(each).num_rows for each in range(index))


def _stream_groups(source: pa.NativeFile) -> Iterator[_Group]:
    row = 0
    for batch in pa.ipc.open_stream(source):
        yield _Group(rows=batch, stored_bytes=batch.nbytes, rows_before=partial(int, row))
        row += batch.num_rows


def _cut(group: _Group, url: str, block_bytes: int) -> Iterator[Records]:
    """The rows, as many at a time as fit a block."""
    all_count = group.rows.num_rows
    row_count = max(1, all_count * block_bytes // max(group.rows.nbytes, 1))
    for start in range(0, all_count, row_count):
        rows = group.rows.slice(start, row_count)
        yield BatchRecords(
            rows,
            url=url,
            first_row=start,
            stored_bytes=group.stored_bytes * rows.num_rows // all_count,
            rows_before=group.rows_before,
        )


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
