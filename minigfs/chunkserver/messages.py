"""Requests a chunkserver answers, and the messages that follow on their streams.

A write is a stream: ``WriteChunk``, then ``ChunkData`` frames in order, the last one with
``last=True``; the server answers one ``ChunkWritten`` once the chunk is durable on itself and on
every server after it in the chain, or once it knows that it will not be. Each server forwards a
frame before it stores it (GFS section 3.2). A chunk of one piece travels with its ``WriteChunk``.

A read is a request answered by ``ChunkPiece`` frames, the last one with ``last=True``. A reader on
the same machine may ask for the chunk's file instead, over the server's Unix socket.

Sums are xxh3-64 of each 64 KiB block, seeded by (handle, block index), packed as little-endian
64-bit numbers: see ``minigfs.chunkserver.checksum``. They are made by the writer, verified by every
server on the way in, stored, verified again on the way out, and held by the reader against the
digest that the master's log has for the chunk.
"""

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.transport.messages import Empty, Message, Request

__all__ = [
    "ChainFailure",
    "ChunkData",
    "ChunkFile",
    "ChunkPiece",
    "ChunkVerified",
    "ChunkWritten",
    "ChunksScrubbed",
    "GetScrubTimes",
    "OpenChunkFile",
    "PingChunkserver",
    "ReadChunk",
    "VerifyChunk",
    "WriteChunk",
    "chain_timeout_ms",
]

# Three syncs of 64 MiB on one slow disk (30 MB/s) take 7 s; a dead process is noticed at once
# whatever the deadline, because its connection breaks.
_LAST_SERVER_TIMEOUT_MS = 10_000
_PER_SERVER_BELOW_MS = 2_000


class ChunkData(Message, frozen=True):
    """One piece of a chunk being written; the bytes are the frame's payload.

    ``offset_bytes`` is a multiple of the checksum block, and so is the payload's length but for
    the chunk's last piece. ``sums`` has one sum per block of the payload.
    """

    offset_bytes: int
    sums: bytes
    last: bool = False


class ChainFailure(Message, frozen=True):
    """Which server of a chain failed, and the error's wire code and message."""

    address: str
    code: str
    message: str


class ChunkWritten(Message, frozen=True):
    """What became of a write: with ``failure``, nothing was acknowledged by anybody.

    A server that failed itself answers with an error frame instead; the server before it in the
    chain turns that into a ``failure`` which names it.
    """

    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]  # this server and those after it in the chain
    failure: ChainFailure | None = None


class WriteChunk(Request[ChunkWritten], frozen=True, tag="chunk.write"):
    handle: ChunkHandle
    version: ChunkVersion
    file_id: FileId
    index: int  # of the chunk in its file
    path_hint: str  # for `rescue`: where the writer means to publish it
    chunk_bytes: int
    chain: tuple[str, ...]  # addresses of the servers after this one
    whole: ChunkData | None = None  # all of the chunk is the request's payload; no frames follow


class ChunkPiece(Message, frozen=True):
    """One piece of a chunk being read; the bytes are the frame's payload."""

    offset_bytes: int
    last: bool
    table: bytes = b""  # the sums of the whole chunk, in the first piece, if they were asked for
    header: bytes = b""  # of the chunk file, in the first piece, if it was asked for
    slot: bytes = b""  # with the header: what a chunk that was appended to knows of its records


class ReadChunk(Request[ChunkPiece], frozen=True, tag="chunk.read"):
    """Read ``[offset, offset + length)``, widened to whole checksum blocks, clipped to the end."""

    handle: ChunkHandle
    version: ChunkVersion
    offset_bytes: int
    length_bytes: int
    want_table: bool = False
    want_header: bool = False  # by a server that makes a replica of its own


class ChunkFile(Message, frozen=True):
    """A sealed chunk's file; the file itself, open for reading, comes with the message.

    What a reader must know to trust the bytes is said here and never read from the file.
    """

    data_offset_bytes: int  # where the chunk's bytes begin in the file
    length_bytes: int  # how many of them are valid
    table: bytes  # the sums of the whole chunk


class OpenChunkFile(Request[ChunkFile], frozen=True, tag="chunk.open"):
    """Lend the file of a sealed chunk to a process of this machine (Unix socket only)."""

    handle: ChunkHandle
    version: ChunkVersion


class ChunkVerified(Message, frozen=True):
    """What a server says of its replica. Without a ``problem``, it is what was sealed with these
    sums: whether those are the right ones is for the asker to say, who has the log's digest."""

    present: bool
    version: ChunkVersion = ChunkVersion(0)
    length_bytes: int = 0
    digest: int = 0  # of the table of sums as it is stored
    problem: str = ""
    bad_blocks: tuple[int, ...] = ()  # the first of them
    bad_block_count: int = 0
    table: bytes = b""


class ChunksScrubbed(Message, frozen=True):
    times_ms: tuple[int, ...]  # since the epoch, one for each handle; 0: not yet


class GetScrubTimes(Request[ChunksScrubbed], frozen=True, tag="chunk.scrub-times"):
    """When all of each chunk was last read here, and was what its sums say."""

    handles: tuple[ChunkHandle, ...]


class VerifyChunk(Request[ChunkVerified], frozen=True, tag="chunk.verify"):
    """Read all of a replica and compare it with its sums; damage is told to the master as well."""

    handle: ChunkHandle
    quick: bool = False  # look only at what the file says of itself
    want_table: bool = False


class PingChunkserver(Request[Empty], frozen=True, tag="chunk.ping"):
    """Is anybody there? See ``liveness``."""


def chain_timeout_ms(servers_below: int) -> int:
    """How long to wait for a server that has ``servers_below`` others after it in its chain.

    Deadlines grow towards the writer: a server that hangs is given up first by the one right
    before it, which is then in time to name it to those before itself.
    """
    return _LAST_SERVER_TIMEOUT_MS + _PER_SERVER_BELOW_MS * servers_below
