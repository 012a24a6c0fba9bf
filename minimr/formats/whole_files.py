"""``files``: each record is a whole file, its path below the input and its bytes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from minimr.formats.byte_source import fill
from minimr.formats.packed import unpacked
from minimr.formats.prefetch import prefetched
from minimr.formats.records import OnMalformed, Place, Records, refuse, shrunk
from minimr.formats.storage import Storage, is_local
from minimr.messages import FileRange

__all__ = ["FilesReader"]

_CHUNK_BYTES = 1 << 20
_PREFETCHED_BLOCKS = 2


class FileRecords:
    """Some whole files, as many as fit a block."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str, bytes]] = []  # URL, name, content
        self.content_bytes = 0
        self.stored_bytes = 0

    def add(self, file: FileRange, content: bytes) -> None:
        self.files.append((file.url, file.url[file.name_start :], content))
        self.content_bytes += len(content)
        self.stored_bytes += file.length

    @property
    def record_count(self) -> int:
        return len(self.files)

    def objects(self) -> list[Any]:
        return [(name, content) for _, name, content in self.files]

    def batch(self) -> pa.RecordBatch:
        contents = [content for _, _, content in self.files]
        offsets = np.zeros(len(contents) + 1, np.int64)
        np.cumsum([len(content) for content in contents], out=offsets[1:])
        column = pa.Array.from_buffers(
            pa.large_binary(),
            len(contents),
            [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(contents))],
        )
        names = pa.array([name for _, name, _ in self.files], pa.string())
        return pa.record_batch({"name": names, "content": column})

    def place_of(self, index: int) -> Place:
        return self.files[index][0], 0

    def extent(self) -> str:
        first, last = self.files[0][0], self.files[-1][0]
        return first if first == last else f"{len(self.files)} files from {first} to {last}"


class FilesReader:
    """Files whose names end in one of ``suffixes``; all, if there are none."""

    def __init__(self, suffixes: tuple[str, ...]) -> None:
        self._suffixes = suffixes

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        records = self._read(ranges, storage, block_bytes)
        if any(each.compression or not is_local(each.url) for each in ranges):
            return prefetched(records, _PREFETCHED_BLOCKS)
        return records

    def _read(
        self, ranges: Sequence[FileRange], storage: Storage, block_bytes: int
    ) -> Iterator[Records]:
        found = FileRecords()
        for each in ranges:
            if self._suffixes and not each.url.endswith(self._suffixes):
                continue
            if found.files and found.content_bytes + each.file_bytes > block_bytes:
                yield found
                found = FileRecords()
            found.add(each, _content(each, storage))
        if found.files:
            yield found


def _content(wanted: FileRange, storage: Storage) -> bytes:
    with storage.open_input(wanted.url) as file:
        if wanted.compression:
            source = unpacked(file, wanted.url, wanted.compression)
            pieces = []
            piece = bytearray(_CHUNK_BYTES)
            while count := source.readinto(memoryview(piece)):
                pieces.append(bytes(piece[:count]))
            return b"".join(pieces)
        content = bytearray(wanted.length)
        filled = fill(file, memoryview(content), wanted.url)
        if filled < len(content):
            raise shrunk(wanted, filled)
        return bytes(content)
