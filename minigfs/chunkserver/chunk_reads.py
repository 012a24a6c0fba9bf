"""Answering reads: verified blocks, in pieces, from a sealed chunk (GFS section 5.2)."""

from minigfs.chunkserver.checksum import widen_to_blocks
from minigfs.chunkserver.messages import ChunkPiece, ReadChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import ProtocolError
from minigfs.transport.stream import Stream

__all__ = ["PIECE_BYTES", "ChunkReads"]

PIECE_BYTES = 1024 * 1024  # big enough that a piece's fixed costs vanish, small enough to pipeline


class ChunkReads:
    """Answers ``ReadChunk``."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store

    def handle(self, request: ReadChunk, stream: Stream) -> None:
        """Stream the range; damage ends the stream with ``CorruptChunk`` before a wrong byte."""
        if request.offset_bytes < 0 or request.length_bytes < 0:
            raise ProtocolError("a read needs an offset and a length of 0 or more")
        with self._store.open_chunk(request.handle, request.version) as chunk:
            start, end = widen_to_blocks(
                request.offset_bytes, request.length_bytes, chunk.header.length_bytes
            )
            table = chunk.table if request.want_table else b""
            last = False
            while not last:
                stop = min(start + PIECE_BYTES, end)
                data = chunk.read(start, stop)
                last = stop == end
                stream.send(ChunkPiece(offset_bytes=start, last=last, table=table), data)
                start, table = stop, b""
