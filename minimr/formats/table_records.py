"""Records with fields: rows, as dictionaries or as an Arrow batch."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.records import Place

__all__ = ["BatchRecords", "ObjectRecords"]


class ObjectRecords:
    """Python objects and the byte offsets they begin at."""

    def __init__(
        self,
        objects: list[Any],
        offsets: list[int],
        *,
        url: str,
        stored_bytes: int,
        columns: "list[str] | None" = None,
    ) -> None:
        self._objects = objects
        self._offsets = offsets
        self._url = url
        self._columns = columns  # of objects that are lists
        self.stored_bytes = stored_bytes

    @property
    def record_count(self) -> int:
        return len(self._objects)

    def objects(self) -> list[Any]:
        return self._objects

    def batch(self) -> pa.RecordBatch:
        if self._columns is None:
            rows = [row if isinstance(row, dict) else {"value": row} for row in self._objects]
            names = list(dict.fromkeys(name for row in rows for name in row))
            columns = [self._inferred(name, [row.get(name) for row in rows]) for name in names]
            return pa.RecordBatch.from_arrays(columns, names=names)
        if self._objects and isinstance(self._objects[0], dict):
            fields = [[row[name] for row in self._objects] for name in self._columns]
        else:
            fields = [list(column) for column in zip(*self._objects, strict=True)]
        return pa.RecordBatch.from_arrays(
            [pa.array(values, pa.string()) for values in fields], names=self._columns
        )

    def _inferred(self, name: str, values: list[Any]) -> pa.Array:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            raise UnreadableInput(
                f"{self.extent()}: the values of {name!r} do not fit one column ({error}): give "
                "them one type, or map records instead of batches"
            ) from error

    def place_of(self, index: int) -> Place:
        return self._url, self._offsets[index]

    def extent(self) -> str:
        return f"{len(self._objects)} records of {self._url} from byte {self._offsets[0]} on"


class BatchRecords:
    """Rows of an Arrow batch; the first is row ``first_row`` of those behind ``rows_before``, which
    is asked only if somebody wants to know."""

    def __init__(
        self,
        batch: pa.RecordBatch,
        *,
        url: str,
        first_row: int,
        stored_bytes: int,
        rows_before: Callable[[], int] = int,
    ) -> None:
        self._batch = batch
        self._url = url
        self._first_row = first_row
        self._rows_before = rows_before
        self.stored_bytes = stored_bytes

    @property
    def record_count(self) -> int:
        count: int = self._batch.num_rows
        return count

    def objects(self) -> list[Any]:
        rows: list[Any] = self._batch.to_pylist()
        return rows

    def batch(self) -> pa.RecordBatch:
        return self._batch

    def place_of(self, index: int) -> Place:
        return f"{self._url}, row {self._rows_before() + self._first_row + index}", -1

    def extent(self) -> str:
        first = self._rows_before() + self._first_row
        return f"rows {first} to {first + self.record_count - 1} of {self._url}"
