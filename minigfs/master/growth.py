"""How a published file grows: chunk by chunk, each open for a while, then sealed for ever.

::

    AppendChunk: version 1, primary, replica set        SealChunk: version 2, bytes, who has them
    file: [sealed][sealed][ OPEN ]   ------------->     file: [sealed][sealed][sealed]

A chunk is open once in its life, and what is sealed never changes again. So a failure of any
member does not mend the chunk in place: it is sealed with what all its acknowledgements promised,
and the file goes on in a fresh chunk on servers that live. Only the last chunk of a file is open;
its bytes count in the file's size and digest from the seal on. A chunk sealed before it is full
makes the file *ragged*: where a chunk starts is then the sum of the lengths before it.

Pure. Holder, version and replica set change by one entry of the log (DESIGN 6.5).
"""

from collections.abc import Iterable
from itertools import accumulate

from msgspec.structs import replace as with_fields

from minigfs.errors import FileMissing, UsageError, WriterFenced
from minigfs.ids import ChunkHandle, ChunkVersion, FileId
from minigfs.master.chunks import DIGEST_MAX, FIRST_VERSION, discard_chunks, file_digest
from minigfs.master.commands import AppendChunk, SealChunk
from minigfs.master.heartbeat_messages import ReplicaReport, SealOrder
from minigfs.master.namespace import check_not_cloned, is_in_trash, path_of, split_path
from minigfs.master.state import Chunk, FileInode, FileSystemState

__all__ = [
    "NO_CHUNK",
    "append_chunk",
    "chunk_starts",
    "get_file",
    "orders_for_open_replicas",
    "seal_chunk",
]

NO_CHUNK = ChunkHandle(0)


def get_file(state: FileSystemState, file_id: FileId) -> FileInode:
    """A published file that still has a path."""
    inode = state.inodes.get(file_id)
    path = path_of(state, inode) if isinstance(inode, FileInode) else None
    if not isinstance(inode, FileInode) or path is None or is_in_trash(split_path(path)):
        raise FileMissing(f"file {file_id} was removed or replaced: open it again")
    return inode


def chunk_starts(state: FileSystemState, inode: FileInode) -> tuple[int, ...]:
    """Where each chunk of a file starts in it."""
    lengths = (state.chunks[handle].length_bytes for handle in inode.chunks[:-1])
    return tuple(accumulate(lengths, initial=0))[: len(inode.chunks)]


def append_chunk(
    state: FileSystemState, command: AppendChunk
) -> tuple[FileSystemState, ChunkHandle]:
    """The file with one more chunk, and its handle."""
    inode = get_file(state, command.file_id)
    check_not_cloned(state, inode)
    after = inode.chunks[-1] if inode.chunks else NO_CHUNK
    if after != command.after or inode.is_open:
        raise WriterFenced(f"file {inode.file_id} has grown meanwhile: look where it ends now")
    if not command.replicas or len(set(command.replicas)) != len(command.replicas):
        raise UsageError("a chunk lives on one or more servers, each named once")
    handle = state.next_handle
    chunk = Chunk(handle, FIRST_VERSION, inode.replication, command.replicas, is_open=True)
    was_short = after != NO_CHUNK and state.chunks[after].length_bytes < state.chunk_bytes
    grown = with_fields(
        inode,
        chunks=(*inode.chunks, handle),
        is_open=True,
        is_ragged=inode.is_ragged or was_short,
        digest="",
    )
    state = with_fields(
        state,
        inodes=state.inodes.set(inode.file_id, grown),
        chunks=state.chunks.set(handle, chunk),
        next_handle=ChunkHandle(handle + 1),
        open_files=state.open_files.set(inode.file_id, handle),
    )
    return state, handle


def seal_chunk(state: FileSystemState, command: SealChunk) -> FileSystemState:
    """The file with its open chunk sealed, or without it if it holds nothing."""
    inode, chunk = state.inodes.get(command.file_id), state.chunks.get(command.handle)
    if state.open_files.get(command.file_id) != command.handle:
        raise WriterFenced(
            f"chunk {command.handle} is not open: it was sealed, or its file is gone"
        )
    state = with_fields(state, open_files=state.open_files.delete(command.file_id))
    if not isinstance(inode, FileInode) or chunk is None:
        return state  # the file was removed; its chunks are garbage, or will be
    if path_of(state, inode) is not None:
        check_not_cloned(state, inode)
    _check_seal(state, chunk, command)
    if command.length_bytes:
        sealed = with_fields(
            chunk,
            version=ChunkVersion(chunk.version + 1),
            replicas=command.replicas,
            length_bytes=command.length_bytes,
            digest=command.digest,
            is_open=False,
        )
        handles = inode.chunks
        state = with_fields(state, chunks=state.chunks.set(sealed.handle, sealed))
    else:
        handles = inode.chunks[:-1]
        state = discard_chunks(state, [chunk.handle])
    closed = with_fields(
        inode,
        chunks=handles,
        is_open=False,
        size_bytes=inode.size_bytes + command.length_bytes,
        digest=file_digest([state.chunks[handle].digest for handle in handles]),
        modified_ms=command.now_ms if command.length_bytes else inode.modified_ms,
    )
    return with_fields(state, inodes=state.inodes.set(closed.file_id, closed))


def _check_seal(state: FileSystemState, chunk: Chunk, command: SealChunk) -> None:
    if not chunk.is_open or chunk.version != command.version:
        raise WriterFenced(f"chunk {chunk.handle} is not open in version {command.version}")
    if not 0 <= command.length_bytes <= state.chunk_bytes:
        raise UsageError(f"a chunk has 0 to {state.chunk_bytes} bytes, not {command.length_bytes}")
    if not 0 <= command.digest <= DIGEST_MAX:
        raise UsageError(f"{command.digest} is no digest of 64 bits")
    if command.length_bytes and not command.replicas:
        raise UsageError(f"chunk {chunk.handle} would be sealed with no replica")
    if not set(command.replicas) <= set(chunk.replicas):
        raise UsageError(f"chunk {chunk.handle} would be sealed on a server it was not given to")


def orders_for_open_replicas(
    state: FileSystemState, reports: Iterable[ReplicaReport]
) -> tuple[tuple[SealOrder, ...], tuple[ChunkHandle, ...]]:
    """What a chunkserver should do with the open replicas it reports: seal these, delete those.

    A replica missed the end of its chunk when its server, or the master, was away. One that has
    all that was kept becomes a sealed replica; any other is set aside there, and repair makes a
    copy. Deleted is only what no file has any more.
    """
    seal: list[SealOrder] = []
    delete: list[ChunkHandle] = []
    for report in reports:
        chunk = state.chunks.get(report.handle)
        if chunk is None:
            if report.handle < state.next_handle:
                delete.append(report.handle)
        elif not chunk.is_open:
            order = SealOrder(
                handle=chunk.handle,
                version=chunk.version,
                length_bytes=chunk.length_bytes,
                digest=chunk.digest,
            )
            seal.append(order)
    return tuple(seal), tuple(delete)
