"""Reading a published file: bytes at a position, verified, from any of its replicas."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minigfs.client.locations import ChunkMap
from minigfs.client.read_ahead import ReadAhead
from minigfs.client.replica_reads import ReplicaReader
from minigfs.closing import ClosedOnExit
from minigfs.errors import InvalidPath
from minigfs.master.messages import FileStatus

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FileReader"]

_DIRECT_BYTES_MIN = 1024 * 1024  # larger reads keep a socket busy by themselves
_JOINED_BYTES_MIN = 1024 * 1024
_JOINED_COUNT_MAX = 64  # chunks, each of which is mapped meanwhile: 4 GiB of the usual size
_VIEW_BYTES_MIN = 64 * 1024  # less is copied: a whole mapping is not kept alive for a few bytes


class FileReader(ClosedOnExit):
    """One open file; made by ``MinigfsClient.open_reader``.

    The file is immutable: size and bytes are those of the moment it was opened. Thread-safe; reads
    that follow one another are fetched ahead.
    """

    def __init__(self, chunk_map: ChunkMap, replicas: ReplicaReader) -> None:
        self._map = chunk_map
        self._replicas = replicas
        self._ahead = ReadAhead(self._fetch, chunk_map.status.size_bytes)

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
        length = self._clip(offset, length)
        if not length:
            return b""
        first, last = self._map.place(offset)[0], self._map.place(offset + length - 1)[0]
        few = last - first < _JOINED_COUNT_MAX
        if few and length >= _JOINED_BYTES_MIN and self._replicas.is_lent(first):
            return b"".join(self.buffers(offset, length))  # copied once, out of the page cache
        content = io.BytesIO()  # what it is filled with becomes its bytes without a copy
        content.seek(length - 1)
        content.write(b"\0")
        with content.getbuffer() as target:
            self._fill(offset, target)
        return content.getvalue()

    def read_into(self, offset: int, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes were there to give."""
        with memoryview(buffer).cast("B") as target:
            length = self._clip(offset, len(target))
            self._fill(offset, target[:length])
        return length

    def read_buffer(self, offset: int, length: int) -> memoryview:
        """The bytes ``[offset, offset + length)``, fewer only where the file ends, in one piece.

        A range inside one chunk that lies on this machine is not copied: the view is of the page
        cache, read-only and verified, and keeps what it shows alive (``pyarrow.py_buffer`` makes an
        Arrow buffer of it). Any other range comes in memory of its own. Errors as ``read_at``.
        """
        length = self._clip(offset, length)
        index, start, chunk_end = self._map.place(offset)
        if length >= _VIEW_BYTES_MIN and start + length <= chunk_end:
            view = self._replicas.view(index, start, start + length)
            if view is not None:
                return view
        memory = memoryview(bytearray(length))
        self._fill(offset, memory)
        return memory.toreadonly()

    def buffers(self, offset: int, length: int) -> Iterator[memoryview]:
        """The bytes of a range, cut where chunks end so that nothing of this machine is copied."""
        end = offset + self._clip(offset, length)
        while offset < end:
            _, start, chunk_end = self._map.place(offset)
            stop = min(end, offset - start + chunk_end)
            yield self.read_buffer(offset, stop - offset)
            offset = stop

    def close(self) -> None:
        """Give back what is borrowed of chunkservers; views of it stay good."""
        self._replicas.close()

    def _clip(self, offset: int, length: int) -> int:
        if offset < 0 or length < 0:
            raise InvalidPath(f"cannot read {length} bytes at {offset}: both must be 0 or more")
        return max(0, min(length, self.size_bytes - offset))

    def _fill(self, offset: int, target: memoryview) -> None:
        """Put the bytes from ``offset`` on into ``target``, all of which the file has."""
        if not target:
            return
        is_large = len(target) >= _DIRECT_BYTES_MIN
        if is_large or self._replicas.is_lent(self._map.place(offset)[0]):
            self._fetch(offset, target)
        else:
            self._ahead.fill(offset, target)

    def _fetch(self, offset: int, target: memoryview) -> None:
        while target:
            index, start, chunk_end = self._map.place(offset)
            count = min(chunk_end - start, len(target))
            self._replicas.fill(index, start, target[:count])
            offset, target = offset + count, target[count:]
