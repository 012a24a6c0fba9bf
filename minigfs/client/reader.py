"""Reading a published file: bytes at a position, verified, from any of its replicas."""

import io
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from minigfs.client.locations import ChunkMap
from minigfs.client.read_ahead import ReadAhead
from minigfs.client.replica_reads import ReplicaReader
from minigfs.errors import InvalidPath
from minigfs.master.messages import FileStatus

__all__ = ["FileReader"]


class FileReader:
    """One open file; made by ``MinigfsClient.open_reader``.

    The file is immutable: size and bytes are those of the moment it was opened. Thread-safe; reads
    that follow one another are fetched ahead.
    """

    def __init__(self, chunk_map: ChunkMap, replicas: ReplicaReader) -> None:
        self._map = chunk_map
        self._replicas = replicas
        self._ahead = ReadAhead(self._pieces, chunk_map.status.size_bytes)

    @property
    def status(self) -> FileStatus:
        return self._map.status

    @property
    def size_bytes(self) -> int:
        return self._map.status.size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes ``[offset, offset + length)``, fewer only where the file ends.

        Raises ``CorruptChunk`` (naming the path) if no replica has the right bytes, ``Unreachable``
        if no server that has them answers before the deadline.
        """
        content = io.BytesIO()  # grows in place: a large read is never in memory twice
        for piece in self._ahead.pieces(offset, offset + self._clip(offset, length)):
            content.write(piece)
        return content.getvalue()

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes were there to give."""
        target = memoryview(buffer).cast("B")
        length = self._clip(offset, len(target))
        filled = 0
        for piece in self._ahead.pieces(offset, offset + length):
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        assert filled == length
        return length

    def close(self) -> None:
        """Nothing is held that others wait for; here so that a reader closes like any file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _clip(self, offset: int, length: int) -> int:
        if offset < 0 or length < 0:
            raise InvalidPath(f"cannot read {length} bytes at {offset}: both must be 0 or more")
        return max(0, min(length, self.size_bytes - offset))

    def _pieces(self, offset: int, end: int) -> Iterator[memoryview]:
        chunk_bytes = self._map.chunk_bytes
        while offset < end:
            index, start = divmod(offset, chunk_bytes)
            stop = min(chunk_bytes, start + end - offset)
            yield from self._replicas.pieces(index, start, stop)
            offset += stop - start
