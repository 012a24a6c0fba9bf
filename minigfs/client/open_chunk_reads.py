"""Reading a file while it is appended to.

The log knows nothing of an open chunk's bytes; its primary knows how many of them every replica
has, so a reader asks it once, when it opens the file, and reads that much and no more. If the
primary does not answer, the master is asked to seal the chunk: then the log knows. Sums travel with
the bytes, as there is no digest yet to hold a table against.
"""

from msgspec.structs import replace as with_fields

from minigfs.chunkserver.append_messages import GetChunkLength, OpenPiece, ReadOpenChunk
from minigfs.chunkserver.checksum import first_bad_block
from minigfs.client.masters import MasterCaller
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import (
    CorruptChunk,
    MinigfsError,
    ProtocolError,
    SecurityError,
    Unreachable,
)
from minigfs.master.append_messages import SealFile
from minigfs.master.messages import Locate, Located, LocatedChunk, Replica
from minigfs.transport.client import ConnectionPool

__all__ = ["fill_from_open", "with_open_chunk"]

_LENGTH_TIMEOUT_MS = 1_000  # then the primary hangs, and the master looks after it
_LOOKS_MAX = 8  # at an open file that others append to through servers out of our reach


def with_open_chunk(masters: MasterCaller, pool: ConnectionPool, located: Located) -> Located:
    """What ``located`` says of a file, with what its open chunk holds now in size and chunks."""
    path, first_index = located.status.path, min((c.index for c in located.chunks), default=0)
    for _ in range(_LOOKS_MAX):
        if not located.status.is_open:
            break
        last = _last_chunk(masters, located)
        length_bytes = _length_of(pool, last) if last is not None else None
        if last is not None and length_bytes is not None:
            known = with_fields(last, length_bytes=length_bytes)
            status = with_fields(
                located.status, size_bytes=located.status.size_bytes + length_bytes
            )
            chunks = tuple(known if c.handle == known.handle else c for c in located.chunks)
            return with_fields(located, status=status, chunks=chunks)
        masters.call(SealFile(path=path))
        count = max(len(located.chunks), 1)
        located = masters.call(Locate(path=path, first_index=first_index, count=count))
    if not located.status.is_open:
        return located
    last = located.chunks[-1] if located.chunks else None
    primary = last.replicas[0].address if last is not None and last.replicas else "nobody"
    raise Unreachable(
        f"{path}: it is appended to through chunkservers that do not answer here, {primary} now: "
        "can this machine reach them?"
    )


def _last_chunk(masters: MasterCaller, located: Located) -> LocatedChunk | None:
    """The open chunk; None if it is not there any more."""
    index = located.status.chunk_count - 1
    for chunk in located.chunks:
        if chunk.index == index:
            return chunk
    request = Locate(path=located.status.path, first_index=index, count=1)
    again = masters.call(request)
    if again.status.file_id != located.status.file_id or not again.chunks:
        return None
    return again.chunks[0] if again.chunks[0].is_open else None


def _length_of(pool: ConnectionPool, chunk: LocatedChunk) -> int | None:
    """How many bytes of an open chunk are acknowledged; None if its primary does not say."""
    if not chunk.replicas:
        return None
    request = GetChunkLength(handle=chunk.handle, version=chunk.version)
    try:
        reply = pool.call(chunk.replicas[0].address, request, timeout_ms=_LENGTH_TIMEOUT_MS)
    except SecurityError:
        raise
    except MinigfsError:
        return None
    return reply.length_bytes


def fill_from_open(
    pool: ConnectionPool,
    chunk: LocatedChunk,
    replica: Replica,
    start: int,
    target: memoryview,
    timeout_ms: int,
) -> int:
    """Put the bytes from ``start`` of an open chunk into ``target``; how many, which is all.

    Raises ``WriterFenced`` when the chunk is open there no more: the master knows it as sealed.
    """
    request = ReadOpenChunk(
        handle=chunk.handle,
        version=chunk.version,
        offset_bytes=start,
        length_bytes=len(target),
    )
    done = 0
    with pool.open_stream(replica.address, request, timeout_ms=timeout_ms) as stream:
        last = False
        while not last:
            piece, payload = stream.receive(OpenPiece, timeout_ms=timeout_ms)
            last = piece.last
            first_block, rest = divmod(piece.offset_bytes, CHECKSUM_BLOCK_BYTES)
            low = start + done - piece.offset_bytes
            if rest or not 0 <= low <= len(payload):
                raise ProtocolError(f"{replica.address} sent pieces out of order")
            bad = first_bad_block(payload, piece.sums, handle=chunk.handle, first_block=first_block)
            if bad is not None:
                raise CorruptChunk(f"chunk {chunk.handle:x}: block {bad} arrived damaged")
            part = payload[low : low + len(target) - done]
            target[done : done + len(part)] = part
            done += len(part)
    if done < len(target):
        raise CorruptChunk(f"chunk {chunk.handle:x}: {replica.address} has too few bytes")
    return done
