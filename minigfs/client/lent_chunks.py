"""Reading a chunk of this machine from its file, which the chunkserver lends (DESIGN 6.3).

The chunkserver passes a read-only descriptor over its Unix socket; sums and the valid length come
in its reply, and the sums are held against the digest in the master's log before they are trusted.
From then on the bytes of the chunk pass through no socket and no other process: they are read into
the caller's memory, or mapped, and verified block by block where they then lie.

A lender that cannot be reached (another machine, another user, a dead server) is left alone for a
while; whoever wanted to borrow reads by socket instead.
"""

import errno
import mmap
import os
from pathlib import Path

from minigfs.chunkserver.checksum import (
    digest_of_table,
    first_bad_block,
    table_slice,
    widen_to_blocks,
)
from minigfs.chunkserver.messages import ChunkFile, OpenChunkFile
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, DeadlineExceeded, MinigfsError, ProtocolError
from minigfs.ids import ChunkHandle
from minigfs.master.messages import LocatedChunk, Replica
from minigfs.ports import Clock, SystemClock
from minigfs.transport.address import Address, UnixAddress, parse_address
from minigfs.transport.client import ConnectionPool

__all__ = ["Lenders", "LentChunk", "check_blocks", "check_table"]

_STRIDE_BYTES = 2 * 1024 * 1024  # a multiple of the block: large enough that its own costs vanish
_LEFT_ALONE_MS = 5_000
_LENDING_TIMEOUT_MS = 1_000  # a lender that hangs costs a reader no more than this, and once


def check_table(chunk: LocatedChunk, table: bytes) -> bytes:
    """The table, if it is the one whose digest the masters logged; else ``CorruptChunk``."""
    if digest_of_table(table) != chunk.digest:
        raise CorruptChunk(f"chunk {chunk.handle:x}: the sums are not those that were published")
    return table


def check_blocks(handle: ChunkHandle, data: memoryview, table: bytes, offset: int) -> None:
    """Raise ``CorruptChunk`` unless ``data`` is what the chunk has from ``offset`` on, which is
    the start of a block."""
    assert offset % CHECKSUM_BLOCK_BYTES == 0
    first_block = offset // CHECKSUM_BLOCK_BYTES
    expected = table_slice(table, first_block, len(data))
    bad_block = first_bad_block(data, expected, handle=handle, first_block=first_block)
    if bad_block is not None:
        raise CorruptChunk(f"chunk {handle:x}: block {bad_block} arrived damaged")


class LentChunk:
    """One chunk's file, open for reading. Thread-safe; the file is closed with its last user."""

    def __init__(self, descriptor: int, chunk: LocatedChunk, lent: ChunkFile) -> None:
        self._descriptor = descriptor
        self._handle = chunk.handle
        self._data_offset = lent.data_offset_bytes
        self._length_bytes = chunk.length_bytes
        self._table = check_table(chunk, lent.table)
        if lent.length_bytes != chunk.length_bytes or lent.data_offset_bytes < 0:
            raise CorruptChunk(f"chunk {chunk.handle:x}: has {lent.length_bytes} bytes")
        self._mapping: memoryview | None = None

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fill(self, start: int, target: memoryview) -> None:
        """Read ``[start, start + len(target))`` of the chunk into ``target`` and verify it there.

        Raises ``CorruptChunk``; what ``target`` holds then is undefined.
        """
        end = start + len(target)
        while start < end:
            inside = start % CHECKSUM_BLOCK_BYTES
            whole_end = end if end == self._length_bytes else end - end % CHECKSUM_BLOCK_BYTES
            if not inside and start < whole_end:
                stop = min(start + _STRIDE_BYTES, whole_end)
                self._read_blocks(start, target[: stop - start])
            else:  # a block of which only a part is wanted
                block_start = start - inside
                block_end = min(block_start + CHECKSUM_BLOCK_BYTES, self._length_bytes)
                stop = min(block_end, end)
                block = memoryview(bytearray(block_end - block_start))
                self._read_blocks(block_start, block)
                target[: stop - start] = block[inside : inside + stop - start]
            target, start = target[stop - start :], stop

    def view(self, start: int, end: int) -> memoryview | None:
        """The bytes ``[start, end)``, verified, as they lie in the page cache: nothing is copied.

        The view keeps the mapping alive, also when the chunk is deleted meanwhile. None if this
        process can map no more.
        """
        if os.fstat(self._descriptor).st_size < self._data_offset + self._length_bytes:
            raise self._cut()  # before the mapping is touched, where that would be deadly
        if self._mapping is None:
            self._mapping = self._map()
        if self._mapping is None:
            return None
        low, high = widen_to_blocks(start, end - start, self._length_bytes)
        check_blocks(self._handle, self._mapping[low:high], self._table, low)
        return self._mapping[start:end]

    def _read_blocks(self, start: int, blocks: memoryview) -> None:
        at = 0
        while at < len(blocks):
            try:
                count = os.preadv(self._descriptor, [blocks[at:]], self._data_offset + start + at)
            except OSError as error:
                if error.errno != errno.EIO:  # not the disk's fault: no reason to condemn a replica
                    raise
                raise CorruptChunk(f"chunk {self._handle:x}: {error.strerror}") from error
            if not count:
                raise self._cut()
            at += count
        check_blocks(self._handle, blocks, self._table, start)

    def _map(self) -> memoryview | None:
        end = self._data_offset + self._length_bytes
        try:
            mapped = mmap.mmap(self._descriptor, end, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        except (OSError, ValueError):  # out of descriptors, memory or address space
            return None
        return memoryview(mapped)[self._data_offset : end]

    def _cut(self) -> CorruptChunk:
        return CorruptChunk(f"chunk {self._handle:x}: the file was cut")


class Lenders:
    """Borrows chunk files of this machine; shared by all readers of a client. Thread-safe."""

    def __init__(self, pool: ConnectionPool, clock: Clock | None = None) -> None:
        self._pool = pool
        self._clock = clock or SystemClock()
        self._here: set[Address] = set()
        self._left_alone_until_ms: dict[Address, int] = {}

    def can_lend(self, replica: Replica) -> bool:
        """Whether asking is worth while: the socket is on this machine, and answered lately."""
        address = replica.lending_address
        if not address:
            return False
        if self._left_alone_until_ms.get(address, 0) > self._clock.monotonic_ms():
            return False
        if address not in self._here:
            if not _is_here(address):
                self._leave_alone(address)
                return False
            self._here.add(address)
        return True

    def borrow(self, chunk: LocatedChunk, replica: Replica) -> LentChunk | None:
        """The chunk's file; None if it cannot be had, for whatever reason but damage.

        A lender that does not answer raises ``DeadlineExceeded``: its server will not either.
        """
        if not self.can_lend(replica):
            return None
        request = OpenChunkFile(handle=chunk.handle, version=chunk.version)
        try:
            with self._pool.open_stream(
                replica.lending_address, request, timeout_ms=_LENDING_TIMEOUT_MS
            ) as stream:
                lent, _ = stream.receive(ChunkFile, timeout_ms=_LENDING_TIMEOUT_MS)
                descriptor = stream.take_descriptor()
            if descriptor is None:
                raise ProtocolError(f"{replica.lending_address} sent no file")
        except CorruptChunk:
            raise
        except DeadlineExceeded:
            self._leave_alone(replica.lending_address)
            raise
        except MinigfsError:
            self._leave_alone(replica.lending_address)
            return None
        return LentChunk(descriptor, chunk, lent)

    def _leave_alone(self, address: Address) -> None:
        self._here.discard(address)
        self._left_alone_until_ms[address] = self._clock.monotonic_ms() + _LEFT_ALONE_MS


def _is_here(address: Address) -> bool:
    try:
        where = parse_address(address)
        return isinstance(where, UnixAddress) and Path(where.path).is_socket()
    except (MinigfsError, OSError):
        return False
