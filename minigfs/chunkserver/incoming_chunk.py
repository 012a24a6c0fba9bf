"""A chunk on its way into the store.

A file is written, synced, and then takes its place: by a rename and a sync of its directory, or, if
it was made ahead (``blank_files``), by a second name beside the durable one that it has.
"""

from collections.abc import Callable
from contextlib import suppress

from minigfs.chunkserver.append_slots import SLOTS_BYTES
from minigfs.chunkserver.blank_files import BlankFile, BlankFiles
from minigfs.chunkserver.checksum import digest_of_table, first_bad_block
from minigfs.chunkserver.chunk_file import (
    ChunkHeader,
    StoredChunk,
    encode_header,
    plan_layout,
)
from minigfs.chunkserver.messages import WriteChunk
from minigfs.chunkserver.sealed_chunk import stored_chunk
from minigfs.closing import ClosedOnExit
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, ProtocolError, Unsupported
from minigfs.ids import ChunkHandle, ClusterId
from minigfs.ports import Buffer, Disk

__all__ = ["CHUNKS", "INCOMING", "IncomingChunk", "chunk_path", "file_name"]

INCOMING = "incoming"
CHUNKS = "chunks"
_SUFFIX = ".chunk"
_WRITE_BEHIND_BYTES = 8 << 20  # the disk works while more arrives; the sync has the rest to do


class IncomingChunk(ClosedOnExit):
    """A chunk being written, by one thread: not sealed inside its block, it is gone."""

    def __init__(
        self,
        disk: Disk,
        request: WriteChunk,
        number: int,
        *,
        cluster_id: ClusterId,
        blanks: BlankFiles,
        sealed: Callable[[StoredChunk], None],
        slot: bytes | None = None,
        is_small: bool = False,
        blank: BlankFile | None = None,
    ) -> None:
        """``number`` is no other's; ``sealed`` hears of it once it is durable. ``is_small``: one
        block will come, in one piece; it is written into ``blank`` if that is given."""
        self._disk = disk
        self._cluster_id = cluster_id
        self._blanks = blanks
        self._sealed = sealed
        self._request = request
        self._slot = slot
        self._is_small = is_small
        self._whole: Buffer = b""  # of a small chunk, which is written by one step
        self._layout = plan_layout(
            cluster_id,
            request.path_hint,
            CHECKSUM_BLOCK_BYTES if is_small else request.chunk_bytes,
            has_slots=slot is not None,
        )
        self._blank = blank
        self._path = f"{INCOMING}/{request.handle:016x}.{number}"
        if blank is None:
            self._file = disk.open(self._path, create=True, exclusive=True)
        else:
            self._path, self._file = blank.path, blank.file
        self._sums: list[bytes] = []
        self._length_bytes = 0
        self._behind_bytes = 0  # on their way to the disk already, or there
        self._is_sealed = False

    def close(self) -> None:
        """Also remove what was not sealed."""
        self._file.close()
        if not self._is_sealed and self._disk.exists(self._path):
            self._disk.remove(self._path)

    def append(self, offset_bytes: int, data: Buffer, sums: bytes) -> None:
        """Verify the next blocks and write them. Only the last piece may end inside a block."""
        end_bytes = offset_bytes + len(data)
        in_order = offset_bytes == self._length_bytes and offset_bytes % CHECKSUM_BLOCK_BYTES == 0
        if not in_order or end_bytes > self._request.chunk_bytes:
            raise ProtocolError(
                f"chunk {self._request.handle:x}: {len(data)} bytes at {offset_bytes} do not fit"
                f" after {self._length_bytes} of {self._request.chunk_bytes}"
            )
        bad_block = first_bad_block(
            data,
            sums,
            handle=self._request.handle,
            first_block=self._length_bytes // CHECKSUM_BLOCK_BYTES,
        )
        if bad_block is not None:
            raise CorruptChunk(
                f"chunk {self._request.handle:x}: block {bad_block} was damaged on its way here"
            )
        if self._is_small:
            self._whole = data
        else:
            self._file.write_at(self._layout.data_offset + self._length_bytes, data)
        self._sums.append(bytes(sums))
        self._length_bytes = end_bytes
        if end_bytes - self._behind_bytes >= _WRITE_BEHIND_BYTES:
            self._file.write_behind(
                self._layout.data_offset + self._behind_bytes, end_bytes - self._behind_bytes
            )
            self._behind_bytes = end_bytes

    def seal(self) -> tuple[int, int]:
        """Make the chunk durable and known; gives (length, digest). Nothing is known on error."""
        table = b"".join(self._sums)
        request = self._request
        header = ChunkHeader(
            cluster_id=self._cluster_id,
            file_id=request.file_id,
            path_hint=request.path_hint,
            handle=request.handle,
            version=request.version,
            index=request.index,
            chunk_bytes=request.chunk_bytes,
            length_bytes=self._length_bytes,
            digest=digest_of_table(table),
            has_slots=self._slot is not None,
            is_small=self._is_small,
        )
        head = encode_header(header) + table
        if self._is_small:
            self._file.write_at(0, head.ljust(self._layout.data_offset, b"\0"), self._whole)
        else:
            self._file.write_at(0, head)
        if self._slot:
            self._file.write_at(self._layout.data_offset - SLOTS_BYTES, self._slot)
        self._file.sync()
        self._take_place(chunk_path(request.handle))
        self._sealed(stored_chunk(header))
        self._is_sealed = True
        return self._length_bytes, header.digest

    def _take_place(self, path: str) -> None:
        """A name is part of what is promised: without one a crash could lose the whole file."""
        if self._blank is not None:
            with suppress(Unsupported):
                self._disk.link(self._path, path)
                # What is left of the zeros is no byte of the chunk, and may come back in a crash.
                self._file.truncate(self._layout.data_offset + self._length_bytes)
                self._blanks.used(self._blank)
                return
        self._disk.rename(self._path, path)
        self._disk.sync_dir(CHUNKS)


def file_name(handle: ChunkHandle) -> str:
    return f"{handle:016x}{_SUFFIX}"


def chunk_path(handle: ChunkHandle) -> str:
    """Where the file of a sealed chunk lies."""
    return f"{CHUNKS}/{file_name(handle)}"
