"""``fixed``: records of a fixed number of bytes; columns stand on the bytes as they were read."""

from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from minimr.formats.byte_source import ByteSource, fill
from minimr.formats.packed import unpacked
from minimr.formats.prefetch import prefetched
from minimr.formats.records import MalformedRecord, OnMalformed, Place, Records, refuse, shrunk
from minimr.formats.storage import Storage, is_local
from minimr.messages import FileRange

__all__ = ["FixedWidthReader"]

_PREFETCHED_BLOCKS = 2


class FixedRecords:
    """Whole records, one after the other in one buffer; ``malformed`` is what follows them."""

    def __init__(
        self, buffer: pa.Buffer, width: int, url: str, offset: int, stored_bytes: int
    ) -> None:
        self._buffer = buffer
        self._width = width
        self._url = url
        self._offset = offset
        self.stored_bytes = stored_bytes
        self.malformed: MalformedRecord | None = None

    @property
    def record_count(self) -> int:
        count: int = self._buffer.size // self._width
        return count

    def objects(self) -> list[Any]:
        records: list[Any] = self.batch().column(0).to_pylist()
        return records

    def batch(self) -> pa.RecordBatch:
        column = pa.Array.from_buffers(
            pa.binary(self._width), self.record_count, [None, self._buffer]
        )
        return pa.RecordBatch.from_arrays([column], names=["record"])

    def place_of(self, index: int) -> Place:
        return self._url, self._offset + index * self._width

    def extent(self) -> str:
        return f"bytes {self._offset} to {self._offset + self._buffer.size - 1} of {self._url}"


class FixedWidthReader:
    """A record belongs to the range in which it begins."""

    def __init__(self, record_bytes: int) -> None:
        self._width = record_bytes

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        blocks = self._read(ranges, storage, max(block_bytes // self._width, 1) * self._width)
        if any(each.compression or not is_local(each.url) for each in ranges):
            blocks = prefetched(blocks, _PREFETCHED_BLOCKS)
        for found in blocks:
            if found.record_count:
                yield found
            if found.malformed is not None:
                on_malformed(found.malformed)

    def _read(
        self, ranges: Sequence[FileRange], storage: Storage, block_bytes: int
    ) -> Iterator[FixedRecords]:
        for each in ranges:
            with storage.open_input(each.url) as file:
                if each.compression:
                    yield from self._read_packed(each, file, block_bytes)
                else:
                    yield from self._read_range(each, file, block_bytes)

    def _read_range(
        self, wanted: FileRange, file: IO[bytes], block_bytes: int
    ) -> Iterator[FixedRecords]:
        position = -(-wanted.start // self._width) * self._width
        end = -(-(wanted.start + wanted.length) // self._width) * self._width
        end = min(end, wanted.file_bytes)  # nothing that was added since is read
        if position:
            file.seek(position)
        while position < end:
            size = min(block_bytes, end - position)
            buffer = _filled(file, size, wanted.url)
            if buffer.size < size:
                raise shrunk(wanted, position + buffer.size)
            yield self._records(buffer, wanted, position, size)
            position += size

    def _read_packed(
        self, wanted: FileRange, file: IO[bytes], block_bytes: int
    ) -> Iterator[FixedRecords]:
        source = unpacked(file, wanted.url, wanted.compression)
        position = stored = 0
        while (buffer := _filled(source, block_bytes, wanted.url)).size:
            yield self._records(buffer, wanted, position, source.packed_bytes - stored)
            position += buffer.size
            stored = source.packed_bytes

    def _records(
        self, buffer: pa.Buffer, wanted: FileRange, position: int, stored_bytes: int
    ) -> FixedRecords:
        rest = buffer.size % self._width
        whole = buffer.slice(0, buffer.size - rest)
        found = FixedRecords(whole, self._width, wanted.url, position, stored_bytes)
        if rest:
            found.malformed = MalformedRecord(
                f"the file ends with {rest} bytes that are no whole record of {self._width}",
                url=wanted.url,
                offset=position + whole.size,
                record=buffer.slice(whole.size).to_pybytes(),
            )
        return found


def _filled(source: ByteSource | IO[bytes], size: int, url: str) -> pa.Buffer:
    """The next ``size`` bytes, fewer only at the end."""
    buffer = pa.allocate_buffer(size)
    return buffer.slice(0, fill(source, memoryview(buffer).cast("B"), url))
