"""``parquet`` and ``arrow``: rows in groups that do not depend on how they arrived."""

import io
from collections.abc import Callable
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa

from minimr.column_text import as_text
from minimr.column_types import NoneType, TupleType
from minimr.columns import from_numpy
from minimr.outputs import ArrowIpc, Compression, Parquet
from minimr.pairs import KEY, VALUE, Pairs

__all__ = ["TableEncoder", "WriteOnlyFile", "read_types", "table_without_rows"]

_GROUP_ROWS = 128 << 10
_GROUP_BYTES = 16 << 20  # a group is held until it is full

_NARROW = {pa.large_binary(): pa.binary(), pa.large_string(): pa.string()}


class WriteOnlyFile(io.RawIOBase):
    """What libraries take for a file that is written from its beginning to its end."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        view = memoryview(content).cast("B")
        self._write(bytes(view))
        self._position += len(view)
        return len(view)

    def tell(self) -> int:
        return self._position


def read_types(file: IO[bytes], chosen: Parquet | ArrowIpc) -> pa.Schema:
    """The columns of a finished file."""
    if isinstance(chosen, ArrowIpc):
        return pa.ipc.open_file(file).schema
    import pyarrow.parquet as pq

    return pq.read_schema(file).remove_metadata()


def table_without_rows(
    types: pa.Schema, chosen: Parquet | ArrowIpc, compression: Compression
) -> bytes:
    """A whole file with these columns."""
    content = bytearray()
    form: Literal["parquet", "arrow"] = "parquet" if isinstance(chosen, Parquet) else "arrow"
    encoder = TableEncoder(form, content.extend, compression)
    encoder.write(
        pa.RecordBatch.from_arrays([pa.array([], field.type) for field in types], schema=types)
    )
    encoder.close()
    return bytes(content)


class TableEncoder:
    """Holds rows back until a group is full, then writes it. Pairs without rows tell the types of
    a file that gets none."""

    def __init__(
        self,
        form: Literal["parquet", "arrow"],
        write: Callable[[bytes], None],
        compression: Compression,
    ) -> None:
        self._form = form
        self._compression = compression
        self._file = pa.PythonFile(WriteOnlyFile(write), mode="w")
        self._writer: Any = None
        self._types = _NO_ROWS  # of a file without rows
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0

    def write(self, pairs: Pairs) -> None:
        batch = pa.RecordBatch.from_arrays(list(map(_plain, pairs.columns)), names=[KEY, VALUE])
        self._types = batch.schema
        while batch.num_rows:
            sizes = self._held_bytes + np.cumsum(_row_bytes(batch))
            fits = int(np.searchsorted(sizes, _GROUP_BYTES)) + 1  # the row that fills it is in it
            fits = min(fits, _GROUP_ROWS - self._held_rows, batch.num_rows)
            self._held.append(batch.slice(0, fits))
            self._held_rows += fits
            self._held_bytes = int(sizes[fits - 1])
            if self._held_rows >= _GROUP_ROWS or self._held_bytes >= _GROUP_BYTES:
                self._write_group()
            batch = batch.slice(fits)

    def close(self) -> None:
        if self._held or self._writer is None:
            self._write_group()
        self._writer.close()
        self._file.close()

    def _write_group(self) -> None:
        types = [(field.name, _NARROW.get(field.type, field.type)) for field in self._types]
        schema = pa.schema(types)
        table = pa.Table.from_batches(self._held, self._types).cast(schema)
        # Fresh arrays: the writers' bytes tell where a slice began and a chunk ended.
        table = table.combine_chunks().take(from_numpy(np.arange(table.num_rows)))
        if self._writer is None:
            self._writer = self._open(schema)
        if self._form == "parquet":
            self._writer.write_table(table, row_group_size=_GROUP_ROWS)
        else:
            self._writer.write_table(table.combine_chunks(), max_chunksize=_GROUP_ROWS)
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _open(self, schema: pa.Schema) -> Any:
        if self._form == "parquet":
            import pyarrow.parquet as pq

            return pq.ParquetWriter(
                self._file, schema, compression=self._compression or "none", store_schema=True
            )
        if self._compression == "gzip":
            from minimr.errors import JobUsageError

            raise JobUsageError("compression=gzip is not for output_format=arrow: use zstd")
        options = pa.ipc.IpcWriteOptions(compression=self._compression or None)
        return pa.ipc.new_file(self._file, schema, options=options)


_NO_ROWS = pa.schema([(KEY, pa.large_binary()), (VALUE, pa.large_binary())])


def _plain(column: pa.Array) -> pa.Array:
    """A column of a type that other tools know: tuples as JSON text, None as null."""
    if isinstance(column.type, TupleType):
        return as_text(column).cast(pa.large_string())
    return pa.nulls(len(column)) if isinstance(column.type, NoneType) else column


def _row_bytes(batch: pa.RecordBatch) -> "np.ndarray":
    """About what each row takes in memory."""
    sizes = np.full(batch.num_rows, 16, np.int64)
    for column in batch.columns:
        if column.type in _NARROW:
            offsets = np.frombuffer(
                column.buffers()[1], np.int64, count=len(column) + 1, offset=8 * column.offset
            )
            sizes += np.diff(offsets)
    return sizes
