"""Requests a chunkserver answers, and the messages that follow on their streams.

A write is a stream: ``WriteChunk``, then ``ChunkData`` frames in order, then ``SealChunk``; the
server answers ``ChunkSealed`` once the chunk is durable on itself and on every server after it in
the chain. Each server forwards a frame before it stores it (GFS section 3.2).

A read is a request answered by ``ChunkData`` frames, the last one with ``last=True``.

Sums are xxh3-64 of each 64 KiB block, seeded by (handle, block index): see
``minigfs.chunkserver.checksum``. They are made by the writer and verified by every server on the
way in and by the reader on the way out.
"""

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.transport.messages import Empty, Message, Request

__all__ = ["ChunkData", "ChunkSealed", "PingChunkserver", "ReadChunk", "SealChunk", "WriteChunk"]


class ChunkData(Message, frozen=True):
    """One piece of a chunk; the bytes are the frame's payload.

    ``offset_bytes`` is a multiple of the checksum block, and so is the payload's length but for
    the chunk's last piece. ``sums`` has one sum per block of the payload.
    """

    offset_bytes: int
    sums: tuple[int, ...]
    last: bool = False


class ChunkSealed(Message, frozen=True):
    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]  # this server and those after it in the chain


class WriteChunk(Request[ChunkSealed], frozen=True, tag="chunk.write"):
    handle: ChunkHandle
    version: ChunkVersion
    file_id: FileId
    index: int  # of the chunk in its file
    path_hint: str  # for `rescue`: where the writer means to publish it
    chunk_bytes: int
    chain: tuple[str, ...]  # addresses of the servers after this one


class SealChunk(Message, frozen=True):
    """End of a write: what the writer believes it has sent."""

    length_bytes: int
    digest: int


class ReadChunk(Request[ChunkData], frozen=True, tag="chunk.read"):
    """Read ``[offset, offset + length)``, widened to whole checksum blocks, clipped to the end."""

    handle: ChunkHandle
    version: ChunkVersion
    offset_bytes: int
    length_bytes: int


class PingChunkserver(Request[Empty], frozen=True, tag="chunk.ping"):
    """Is anybody there?"""
