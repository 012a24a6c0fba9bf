"""A sealed chunk's file, open for verified reads."""

from collections.abc import Callable
from typing import TypeAlias

from minigfs.chunkserver.append_slots import SLOTS_BYTES, Slot, sealed_slot
from minigfs.chunkserver.checksum import SUM_BYTES, block_count, first_bad_block, table_slice
from minigfs.chunkserver.chunk_file import (
    HEADER_BYTES_MAX,
    ChunkHeader,
    ChunkLayout,
    StoredChunk,
    check_table,
    decode_header,
)
from minigfs.closing import ClosedOnExit
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, Unsupported
from minigfs.ids import ChunkHandle, ClusterId
from minigfs.ports import DiskFile, RealDiskFile

__all__ = ["OpenChunk", "stored_chunk"]

DamageFound: TypeAlias = Callable[[ChunkHandle, OSError], OSError]


class OpenChunk(ClosedOnExit):
    """A sealed chunk open for verified reads; a context manager."""

    def __init__(
        self,
        cluster_id: ClusterId,
        file: DiskFile,
        *,
        expected: StoredChunk | None = None,
        on_damage: DamageFound | None = None,
    ) -> None:
        """``expected``: what the file held when it was last looked at."""
        self._file = file
        self._on_damage = on_damage or _as_it_is
        try:
            self.header, self._layout, self.table = _read_head(file, cluster_id)
            if expected is not None and stored_chunk(self.header) != expected:
                raise CorruptChunk(
                    f"the file holds chunk {self.header.handle:x}, version {self.header.version}, "
                    f"{self.header.length_bytes} bytes, and was changed since it was written"
                )
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def data_offset_bytes(self) -> int:
        """Where the chunk's bytes begin in its file."""
        return self._layout.data_offset

    def reopen_to_read(self) -> int:
        """A read-only descriptor of this very file, which the caller closes; ``Unsupported`` if
        its bytes may still change in place, or if the disk is not the operating system's."""
        if not (self.header.sealed and isinstance(self._file, RealDiskFile)):
            raise Unsupported(f"chunk {self.header.handle:x} can be read by socket only")
        return self._file.reopen_to_read()

    def read_slot(self) -> Slot | None:
        """The records of a chunk that was appended to; None if it was not, or nobody knew them when
        this copy was made. Raises ``CorruptChunk`` when they are not what was written."""
        handle = self.header.handle
        if not self.header.has_slots:
            return None
        try:
            slots = self._file.read_at(self._layout.data_offset - SLOTS_BYTES, SLOTS_BYTES)
            return sealed_slot(slots, handle, self.header.length_bytes)
        except OSError as error:
            raise self._on_damage(handle, error) from error

    def read(self, start: int, end: int) -> bytes:
        """The bytes ``[start, end)``, which begin at a block's start and end at one's end.

        Raises ``CorruptChunk`` naming chunk and block when they are not what was written.
        """
        assert start % CHECKSUM_BLOCK_BYTES == 0 or start == end
        assert end % CHECKSUM_BLOCK_BYTES == 0 or end == self.header.length_bytes
        handle = self.header.handle
        try:
            data = self._file.read_at(self._layout.data_offset + start, end - start)
        except OSError as error:
            raise self._on_damage(handle, error) from error
        first_block = start // CHECKSUM_BLOCK_BYTES
        bad_block = first_bad_block(
            data,
            table_slice(self.table, first_block, end - start),
            handle=handle,
            first_block=first_block,
        )
        if bad_block is not None:
            raise self._on_damage(handle, CorruptChunk(f"block {bad_block} has a wrong sum"))
        return data


def _read_head(file: DiskFile, cluster_id: ClusterId) -> tuple[ChunkHeader, ChunkLayout, bytes]:
    prefix = file.read_at(0, HEADER_BYTES_MAX)
    header, layout = decode_header(prefix)
    if header.cluster_id != cluster_id:
        raise CorruptChunk(f"chunk {header.handle:x} belongs to cluster {header.cluster_id}")
    table_bytes = block_count(header.length_bytes) * SUM_BYTES
    table = file.read_at(layout.table_offset, table_bytes)
    check_table(header, table)
    if file.size_bytes() < layout.data_offset + header.length_bytes:
        raise CorruptChunk(f"chunk {header.handle:x}: the file was cut")
    return header, layout, table


def stored_chunk(header: ChunkHeader) -> StoredChunk:
    return StoredChunk(
        handle=header.handle,
        version=header.version,
        length_bytes=header.length_bytes,
        digest=header.digest,
    )


def _as_it_is(_handle: ChunkHandle, error: OSError) -> OSError:
    return error
