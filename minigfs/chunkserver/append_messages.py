"""What appenders, primaries and their chains say to each other.

An appender sends ``AppendRecord`` with the record as its payload, to the primary. The primary puts
what waits into a batch and streams it to the next server: ``ApplyBatch``, then ``BatchData``
frames, the last one with ``last=True``. Each server forwards a frame before it keeps it (GFS
section 3.2), and answers ``BatchApplied`` when the batch is durable on itself and on all after it,
or once it knows that it will not be.

``sum`` is the xxh3-64 of a record, made by its appender and verified by every server.
"""

from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.transport.messages import Message, Request

__all__ = [
    "AppendRecord",
    "AppendResolved",
    "ApplyBatch",
    "BatchApplied",
    "BatchData",
    "BatchRecord",
    "ChunkLength",
    "GetChunkLength",
    "OpenPiece",
    "ReadOpenChunk",
    "RecordAppended",
    "ResolveAppend",
]


class RecordAppended(Message, frozen=True):
    """The record stands at ``offset_bytes`` of the chunk, on every member, durably.

    With ``is_full`` it does not and never will: the chunk has no room for it. With a ``reason`` it
    may or may not: the chunk takes no more here, and will be sealed. ``failed`` is the address of
    the member that failed, if one did.
    """

    offset_bytes: int = 0
    is_full: bool = False
    failed: str = ""
    reason: str = ""


class AppendRecord(Request[RecordAppended], frozen=True, tag="chunk.append"):
    """Append the payload. Repeated with the same sequence it is not appended again."""

    handle: ChunkHandle
    version: ChunkVersion
    appender_id: int
    sequence: int  # counts up; the appender has the outcome of all below it
    sum: int
    patience_ms: int  # when the appender will look elsewhere


class BatchRecord(Message, frozen=True, array_like=True, gc=False):
    appender_id: int
    sequence: int
    length_bytes: int
    sum: int


class BatchApplied(Message, frozen=True):
    failed: str = ""  # the address of the member that failed
    reason: str = ""


class BatchData(Message, frozen=True):
    last: bool


class ApplyBatch(Request[BatchApplied], frozen=True, tag="chunk.apply"):
    """The mutation ``serial`` of a chunk: these records, one after the other, at its end."""

    handle: ChunkHandle
    version: ChunkVersion
    serial: int
    offset_bytes: int
    committed_bytes: int  # every member has these
    records: tuple[BatchRecord, ...]
    chain: tuple[str, ...]  # addresses of the members after this one
    patience_ms: int


class ChunkLength(Message, frozen=True):
    length_bytes: int


class GetChunkLength(Request[ChunkLength], frozen=True, tag="chunk.length"):
    """How many bytes of an open chunk every member has; the primary knows."""

    handle: ChunkHandle
    version: ChunkVersion


class OpenPiece(Message, frozen=True):
    """Whole blocks of an open chunk; the last may be partial. The bytes are the payload."""

    offset_bytes: int
    sums: bytes
    last: bool


class ReadOpenChunk(Request[OpenPiece], frozen=True, tag="chunk.read-open"):
    """Read ``[offset, offset + length)``, widened to whole blocks as they are now."""

    handle: ChunkHandle
    version: ChunkVersion
    offset_bytes: int
    length_bytes: int


class AppendResolved(Message, frozen=True):
    offset_bytes: int  # in the chunk; -1 if the record is not in it, and then never will be


class ResolveAppend(Request[AppendResolved], frozen=True, tag="chunk.resolve"):
    """Whether a record got into a chunk that is sealed now (as ``version``)."""

    handle: ChunkHandle
    version: ChunkVersion
    appender_id: int
    sequence: int
