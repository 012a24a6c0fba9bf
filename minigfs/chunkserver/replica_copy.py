"""Making a sound replica of a sealed chunk from those that other servers have (GFS section 4.3).

::

    is mine one?  -- yes: nothing to do (a false alarm, or a copy that no master had heard of)
          | no
    header and table of a source whose table has the digest of the master's log
          |        (and, of a chunk that was appended to, its slot: of whichever has it sound)
    blocks, each held against that table, from whichever source has them right
          |
    sealed like any chunk, in the place of what was here

The digest comes from the log, so a copy is what the writer closed or it is not made. A source that
fails in the middle is left for the next one, which goes on where it stopped: replicas that are
damaged in different blocks still make a whole one. What is here stays until the new one is durable.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minigfs.chunkserver.append_slots import Slot, encode_slot, sealed_slot
from minigfs.chunkserver.checksum import digest_of_table, table_slice
from minigfs.chunkserver.chunk_file import ChunkHeader, check_table, decode_header
from minigfs.chunkserver.messages import ChunkPiece, ReadChunk, WriteChunk
from minigfs.chunkserver.store import ChunkStore, IncomingChunk
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, DamageError, MinigfsError, ProtocolError, Unreachable
from minigfs.master.heartbeat_messages import CopyOrder
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool

__all__ = ["CopyWithdrawn", "ReplicaCopy"]

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024
_SOURCE_TIMEOUT_MS = 5_000  # as long as the master needs to call a silent server dead


class CopyWithdrawn(Exception):
    """Nobody wants this copy any more."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What a replica is besides its bytes."""

    header: ChunkHeader
    table: bytes
    slot: Slot | None

    @property
    def encoded_slot(self) -> bytes | None:
        if not self.header.has_slots:
            return None
        return encode_slot(self.slot) if self.slot is not None else b""


class ReplicaCopy:
    """One copy order, carried out by one thread. ``damaged_sources`` is what it found out."""

    def __init__(
        self,
        order: CopyOrder,
        *,
        store: ChunkStore,
        pool: ConnectionPool,
        pay: Callable[[int], None],
    ) -> None:
        """``pay`` is called for bytes before they are asked for; it waits, or raises
        ``CopyWithdrawn``."""
        self.damaged_sources: list[str] = []
        self._order = order
        self._store = store
        self._pool = pool
        self._pay = pay

    def make_sound(self) -> int:
        """Return when a sound replica is durable here; how many bytes were copied for it.

        Raises
        ------
        CorruptChunk
            No source has the bytes, or what is here is of a later version.
        Unreachable
            The sources that may have them do not answer.
        NoSpace
            The disk is nearly full.
        """
        order = self._order
        here = self._store.version_of(order.handle)
        if here is not None and here > order.version:
            raise CorruptChunk(
                f"chunk {order.handle:x} has version {here} here, later than {order.version}"
            )
        if here is not None and self._is_sound_here():
            self._store.found_sound(order.handle)
            return 0
        head = self._trusted_head()
        header = head.header
        request = WriteChunk(
            handle=order.handle,
            version=order.version,
            file_id=header.file_id,
            index=header.index,
            path_hint=header.path_hint,
            chunk_bytes=header.chunk_bytes,
            chain=(),
        )
        is_small = header.is_small and order.length_bytes <= CHECKSUM_BLOCK_BYTES
        with self._store.create(
            request, replaces=True, slot=head.encoded_slot, is_small=is_small
        ) as incoming:
            self._fill(incoming, head.table)
            incoming.seal()
        return order.length_bytes

    def _is_sound_here(self) -> bool:
        """Whether the replica here is the chunk of the log, to the last block, and knows the
        records that were appended to it, if others may."""
        order = self._order
        try:
            with self._store.open_chunk(order.handle, order.version) as chunk:
                if not self._is_ordered(chunk.header):
                    return False
                for start in range(0, order.length_bytes, _PIECE_BYTES):
                    chunk.read(start, min(start + _PIECE_BYTES, order.length_bytes))
                if order.sources:
                    chunk.read_slot()
        except CorruptChunk:
            return False
        return True

    def _is_ordered(self, header: ChunkHeader) -> bool:
        order = self._order
        return (header.handle, header.version, header.length_bytes, header.digest) == (
            order.handle,
            order.version,
            order.length_bytes,
            order.digest,
        )

    def _trusted_head(self) -> "_Head":
        failure: MinigfsError | None = None
        found: _Head | None = None
        for source in self._order.sources:
            try:
                head = self._head_of(source)
            except MinigfsError as error:
                failure = self._note(source, error)
                continue
            if head.slot is not None or not head.header.has_slots:
                return head
            found = found or head
        if found is not None:
            return found
        raise failure or Unreachable(f"chunk {self._order.handle:x}: nobody is left to copy from")

    def _head_of(self, source: str) -> "_Head":
        request = self._read(0, 0, want_head=True)
        with self._pool.open_stream(source, request, timeout_ms=_SOURCE_TIMEOUT_MS) as stream:
            piece, _ = stream.receive(ChunkPiece, timeout_ms=_SOURCE_TIMEOUT_MS)
        header, _ = decode_header(piece.header)
        if header.cluster_id != self._store.cluster_id or not self._is_ordered(header):
            raise CorruptChunk(f"chunk {self._order.handle:x}: {source} has another one")
        check_table(header, piece.table)
        assert digest_of_table(piece.table) == self._order.digest
        slot = sealed_slot(piece.slot, header.handle, header.length_bytes)
        return _Head(header, piece.table, slot)

    def _fill(self, incoming: IncomingChunk, table: bytes) -> None:
        position, end = 0, self._order.length_bytes
        while position < end:
            before = position
            failure: MinigfsError | None = None
            for source in self._order.sources:
                try:
                    for data in self._pieces(source, position, end):
                        incoming.append(
                            position, data, bytes(table_slice(table, *_place(position, data)))
                        )
                        position += len(data)
                except MinigfsError as error:
                    failure = self._note(source, error)
                if position == end:
                    return
            if position == before:
                # A piece with one bad block is refused whole; the one that is missing may be fine.
                position += self._add_block(incoming, table, position, failure)

    def _add_block(
        self, incoming: IncomingChunk, table: bytes, position: int, failure: MinigfsError | None
    ) -> int:
        end = min(position + CHECKSUM_BLOCK_BYTES, self._order.length_bytes)
        for source in self._order.sources:
            try:
                data = b"".join(self._pieces(source, position, end))
                incoming.append(position, data, bytes(table_slice(table, *_place(position, data))))
            except MinigfsError as error:
                failure = error
            else:
                return len(data)
        assert failure is not None
        raise failure

    def _pieces(self, source: str, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from ``start``, a block's start, to ``end``, as the source sends them."""
        position = start
        request = self._read(start, end - start)
        with self._pool.open_stream(source, request, timeout_ms=_SOURCE_TIMEOUT_MS) as stream:
            while position < end:
                self._pay(min(_PIECE_BYTES, end - position))
                piece, data = stream.receive(ChunkPiece, timeout_ms=_SOURCE_TIMEOUT_MS)
                if piece.offset_bytes != position or not data:
                    raise ProtocolError(f"{source} sent pieces out of order")
                position += len(data)
                yield data

    def _read(self, start: int, length: int, *, want_head: bool = False) -> ReadChunk:
        return ReadChunk(
            handle=self._order.handle,
            version=self._order.version,
            offset_bytes=start,
            length_bytes=length,
            want_table=want_head,
            want_header=want_head,
        )

    def _note(self, source: str, error: MinigfsError) -> MinigfsError:
        logger.warning("chunk %x from %s: %s", self._order.handle, source, error)
        if isinstance(error, DamageError) and source not in self.damaged_sources:
            self.damaged_sources.append(source)
        return error


def _place(position: int, data: Buffer) -> tuple[int, int]:
    return position // CHECKSUM_BLOCK_BYTES, len(data)
