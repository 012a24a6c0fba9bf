"""Writes inside a published file, and truncation: chunks replaced by others, all at once.

What is sealed never changes, so a write below a file's end gives the file other chunks: the writer
makes them in a temporary file, and one entry of the log puts them into their places. Readers see
all of a patch or nothing, a clone keeps the chunks it has, and a patch that was made for a file
that has changed meanwhile is refused. Pure.
"""

from msgspec.structs import replace as with_fields

from minigfs.errors import UsageError, WriterFenced
from minigfs.ids import ChunkHandle, FileId
from minigfs.master.chunks import DIGEST_MAX, discard_chunks, file_digest, seal_chunks
from minigfs.master.commands import PatchFile, SealedReplicas
from minigfs.master.growth import NO_CHUNK, get_file
from minigfs.master.namespace import check_not_cloned
from minigfs.master.state import FileInode, FileSystemState

__all__ = ["patch_file"]


def patch_file(state: FileSystemState, command: PatchFile) -> FileSystemState:
    inode = get_file(state, command.file_id)
    check_not_cloned(state, inode)
    places = _patched(inode, command)
    sealed = [seal for _, _, seal in command.replaced]
    spare = _check_sealed(state, command.temporary_id, sealed)
    lost = set(inode.chunks) - set(places)
    given_up = [handle for handle in inode.chunks if handle in lost]
    state = seal_chunks(state, sealed)
    lengths = [state.chunks[handle].length_bytes for handle in places]
    _check_lengths(state, inode, command, lengths)
    patched = with_fields(
        inode,
        chunks=places,
        size_bytes=sum(lengths),
        digest=file_digest([state.chunks[handle].digest for handle in places]),
        modified_ms=command.now_ms,
        is_ragged=any(length < state.chunk_bytes for length in lengths[:-1]),
    )
    state = with_fields(state, inodes=state.inodes.set(inode.file_id, patched))
    if command.temporary_id is not None:
        state = with_fields(state, temporary=state.temporary.delete(command.temporary_id))
    return discard_chunks(state, [*given_up, *spare])


def _patched(inode: FileInode, command: PatchFile) -> tuple[ChunkHandle, ...]:
    """The chunks that the file will have."""
    if inode.is_open or len(inode.chunks) != command.chunk_count:
        raise WriterFenced(f"file {inode.file_id} has grown, or shrunk, meanwhile: look again")
    if not 0 <= command.kept_count <= len(inode.chunks):
        raise UsageError(f"{command.kept_count} of {len(inode.chunks)} chunks cannot be kept")
    places = list(inode.chunks[: command.kept_count])
    for index, expected, seal in command.replaced:
        standing = inode.chunks[index] if 0 <= index < len(inode.chunks) else NO_CHUNK
        if standing != expected:
            raise WriterFenced(f"chunk {index} of file {inode.file_id} is another one: look again")
        if index < len(places):
            places[index] = seal.handle
        elif index == len(places):
            places.append(seal.handle)
        else:
            raise UsageError(f"chunk {index} would leave a hole: the file has {len(places)} chunks")
    if len(set(places)) != len(places):
        raise UsageError("a chunk has one place in a file")
    return tuple(places)


def _check_sealed(
    state: FileSystemState, temporary_id: FileId | None, sealed: list[SealedReplicas]
) -> list[ChunkHandle]:
    """What is left of the temporary file's chunks; raise unless all that are sealed are its."""
    file = state.temporary.get(temporary_id) if temporary_id is not None else None
    if file is None and (sealed or temporary_id is not None):
        raise WriterFenced(f"file {temporary_id} is not being written: its writer was silent")
    chunks = () if file is None else file.chunks
    for seal in sealed:
        if seal.handle not in chunks:
            raise UsageError(f"chunk {seal.handle} is not of temporary file {temporary_id}")
        given = state.chunks[seal.handle].replicas
        if not seal.replicas or not set(seal.replicas) <= set(given):
            raise UsageError(f"chunk {seal.handle} was acknowledged by other servers than its own")
        if not (0 < seal.length_bytes <= state.chunk_bytes and 0 <= seal.digest <= DIGEST_MAX):
            raise UsageError(f"chunk {seal.handle} cannot have {seal.length_bytes} bytes")
    used = {seal.handle for seal in sealed}
    return [handle for handle in chunks if handle not in used]


def _check_lengths(
    state: FileSystemState, inode: FileInode, command: PatchFile, lengths: list[int]
) -> None:
    """A chunk that others follow keeps its length, or is full: what follows keeps its offset."""
    for index, expected, _ in command.replaced:
        if index < len(lengths) - 1:
            kept = state.chunks[expected].length_bytes if expected else state.chunk_bytes
            is_last_before = index == len(inode.chunks) - 1
            if lengths[index] != kept and not (is_last_before and lengths[index] > kept):
                raise UsageError(f"chunk {index} has {lengths[index]} bytes and needs {kept}")
