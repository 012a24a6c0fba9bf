"""Answering reads: verified blocks, in pieces, from a sealed chunk (GFS section 5.2).

A process of the same machine is lent the chunk's file instead, as a read-only descriptor over a
Unix socket, and verifies what it reads itself: the bytes then pass through no socket. The table of
sums and the valid length travel in the reply. Acknowledged bytes never change in place, so what was
lent stays right for as long as it is held, even when the chunk is deleted meanwhile.
"""

import os
from contextlib import suppress
from pathlib import Path

from minigfs.chunkserver.append_slots import encode_slot
from minigfs.chunkserver.checksum import widen_to_blocks
from minigfs.chunkserver.chunk_file import encode_header
from minigfs.chunkserver.messages import ChunkFile, ChunkPiece, OpenChunkFile, ReadChunk
from minigfs.chunkserver.sealed_chunk import OpenChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import CorruptChunk, ProtocolError
from minigfs.transport.address import UNIX_PATH_BYTES_MAX, Address, UnixAddress
from minigfs.transport.metrics import Counters
from minigfs.transport.stream import Stream

__all__ = ["PIECE_BYTES", "ChunkReads", "lending_address"]

PIECE_BYTES = 1024 * 1024  # big enough that a piece's fixed costs vanish, small enough to pipeline


def lending_address(directory: Path, chunkserver_id: str) -> Address:
    """Where a chunkserver lends its files; "" if the path is too long for a socket.

    The name says whose it is: the same path on another machine leads to nobody else's.
    """
    path = str((directory / f"read-{chunkserver_id}.sock").resolve())
    return str(UnixAddress(path)) if len(path.encode()) <= UNIX_PATH_BYTES_MAX else ""


class ChunkReads:
    """Answers ``ReadChunk`` and, on a Unix socket, ``OpenChunkFile``."""

    def __init__(self, store: ChunkStore, counters: Counters) -> None:
        self._store = store
        self._counters = counters

    def handle(self, request: ReadChunk, stream: Stream) -> None:
        """Stream the range; damage ends the stream with ``CorruptChunk`` before a wrong byte."""
        self._counters.add("minigfs_chunkserver_reads_total")
        if request.offset_bytes < 0 or request.length_bytes < 0:
            raise ProtocolError("a read needs an offset and a length of 0 or more")
        with self._store.open_chunk(request.handle, request.version) as chunk:
            start, end = widen_to_blocks(
                request.offset_bytes, request.length_bytes, chunk.header.length_bytes
            )
            table = chunk.table if request.want_table else b""
            header = encode_header(chunk.header) if request.want_header else b""
            slot = _encoded_slot(chunk) if request.want_header else b""
            last = False
            while not last:
                stop = min(start + PIECE_BYTES, end)
                data = chunk.read(start, stop)
                last = stop == end
                piece = ChunkPiece(
                    offset_bytes=start, last=last, table=table, header=header, slot=slot
                )
                stream.send(piece, data)
                self._counters.add("minigfs_chunkserver_read_bytes_total", len(data))
                start, table, header, slot = stop, b"", b"", b""

    def lend(self, request: OpenChunkFile, stream: Stream) -> None:
        """Send the chunk's file, open for reading only."""
        self._counters.add("minigfs_chunkserver_lent_files_total")
        with self._store.open_chunk(request.handle, request.version) as chunk:
            reply = ChunkFile(
                data_offset_bytes=chunk.data_offset_bytes,
                length_bytes=chunk.header.length_bytes,
                table=chunk.table,
            )
            descriptor = chunk.reopen_to_read()
        try:
            stream.send(reply, descriptor=descriptor)
        finally:
            os.close(descriptor)


def _encoded_slot(chunk: OpenChunk) -> bytes:
    """The records of a chunk that was appended to, for a copy of it; empty if they are not known
    here: the bytes may be sound all the same."""
    with suppress(CorruptChunk):
        known = chunk.read_slot()
        return encode_slot(known) if known is not None else b""
    return b""
