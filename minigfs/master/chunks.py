"""Chunks: handed out, sealed, turned into garbage (GFS sections 2.6.1, 4.4).

A handle is used once. A chunk that its file gives up becomes garbage in the same change, unless a
clone has it, too; so every chunk is always exactly one of: of files, of one temporary file,
garbage, forgotten. A chunk of several files is *shared*: it counts its owners beyond the first.
"""

import struct
from collections.abc import Iterable, Sequence
from sys import intern

from msgspec.structs import replace as with_fields
from xxhash import xxh3_64_hexdigest

from minigfs.errors import UsageError
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.commands import SealedReplicas
from minigfs.master.state import Chunk, FileSystemState, TemporaryFile

__all__ = [
    "DIGEST_MAX",
    "FIRST_VERSION",
    "ChunkOwners",
    "allocate_chunks",
    "check_sealed_chunks",
    "discard_chunks",
    "file_digest",
    "forget_garbage",
    "seal_chunks",
    "shared_ids",
]

FIRST_VERSION = ChunkVersion(1)
DIGEST_MAX = 2**64 - 1


def file_digest(chunk_digests: Sequence[int]) -> str:
    """Digest of a whole file: hex xxh3-64 over its chunks' digests, each 8 bytes little-endian."""
    return xxh3_64_hexdigest(struct.pack(f"<{len(chunk_digests)}Q", *chunk_digests))


def allocate_chunks(
    state: FileSystemState,
    file: TemporaryFile,
    first_index: int,
    replica_sets: Sequence[tuple[ChunkserverId, ...]],
) -> tuple[FileSystemState, tuple[ChunkHandle, ...]]:
    """New chunks for the places ``first_index ...``; what stood there becomes garbage."""
    if not 0 <= first_index <= len(file.chunks):
        raise UsageError(
            f"chunk {first_index} of {file.label} cannot be allocated: "
            f"the file has {len(file.chunks)} chunks, and may have no holes"
        )
    first_handle = state.next_handle
    handles = tuple(ChunkHandle(first_handle + i) for i in range(len(replica_sets)))
    abandoned = file.chunks[first_index : first_index + len(handles)]
    chunks = state.chunks.update(
        (handle, Chunk(handle, FIRST_VERSION, file.replication, shared_ids(replicas)))
        for handle, replicas in zip(handles, replica_sets, strict=True)
    )
    places = file.chunks[:first_index] + handles + file.chunks[first_index + len(handles) :]
    state = with_fields(
        state,
        chunks=chunks,
        temporary=state.temporary.set(file.file_id, with_fields(file, chunks=places)),
        next_handle=ChunkHandle(first_handle + len(handles)),
    )
    return discard_chunks(state, abandoned), handles


def discard_chunks(state: FileSystemState, handles: Sequence[ChunkHandle]) -> FileSystemState:
    """One owner fewer for each; chunks that have none become garbage."""
    if not handles:
        return state
    owners = ChunkOwners(state)
    owners.give_up(handles)
    return owners.finish(state)


class ChunkOwners:
    """The chunks of a state and who owns them, while both change."""

    def __init__(self, state: FileSystemState) -> None:
        self._chunks = state.chunks.mutate()
        self._garbage = state.garbage.mutate()
        self._never_published = state.never_published.mutate()
        self._shared = state.shared.mutate()

    def give_up(self, handles: Iterable[ChunkHandle]) -> None:
        """One owner fewer for each; chunks that have none become garbage."""
        for handle in handles:
            others = self._shared.get(handle, 0)
            if others > 1:
                self._shared[handle] = others - 1
            elif others:
                del self._shared[handle]
            else:
                chunk = self._chunks.pop(handle)
                self._garbage[handle] = chunk.replicas
                if chunk.length_bytes == 0:
                    self._never_published[handle] = None

    def finish(self, state: FileSystemState) -> FileSystemState:
        """The state with these chunks and owners."""
        return with_fields(
            state,
            chunks=self._chunks.finish(),
            garbage=self._garbage.finish(),
            never_published=self._never_published.finish(),
            shared=self._shared.finish(),
        )


def forget_garbage(state: FileSystemState, handles: Iterable[ChunkHandle]) -> FileSystemState:
    garbage, never_published = state.garbage.mutate(), state.never_published.mutate()
    for handle in handles:
        garbage.pop(handle, None)
        never_published.pop(handle, None)
    return with_fields(state, garbage=garbage.finish(), never_published=never_published.finish())


def check_sealed_chunks(
    state: FileSystemState, file: TemporaryFile, sealed: Sequence[SealedReplicas]
) -> None:
    """Raise ``UsageError`` unless the sealed chunks can be the contents of the file."""
    chunk_bytes = state.chunk_bytes
    if len(sealed) > len(file.chunks):
        raise UsageError(f"{file.label} has {len(file.chunks)} chunks, not {len(sealed)}")
    for index, (seal, expected) in enumerate(zip(sealed, file.chunks, strict=False)):
        where = f"chunk {index} of {file.label}"
        if seal.handle != expected:
            raise UsageError(f"{where} is handle {expected}, not {seal.handle}")
        last = index == len(sealed) - 1
        if not (
            0 < seal.length_bytes <= chunk_bytes and (last or seal.length_bytes == chunk_bytes)
        ):
            raise UsageError(
                f"{where} has {seal.length_bytes} bytes: all chunks but the last "
                f"have {chunk_bytes}, and the last has 1 to {chunk_bytes}"
            )
        if not 0 <= seal.digest <= DIGEST_MAX:
            raise UsageError(f"{where} has the digest {seal.digest}, which is not one of 64 bits")
        if not seal.replicas:
            raise UsageError(f"{where} was acknowledged by no chunkserver")
        if not set(seal.replicas) <= set(state.chunks[expected].replicas):
            raise UsageError(f"{where} was acknowledged by a chunkserver it was not given to")
        if len(set(seal.replicas)) != len(seal.replicas):
            raise UsageError(f"{where} was acknowledged twice by one chunkserver")


def seal_chunks(state: FileSystemState, sealed: Sequence[SealedReplicas]) -> FileSystemState:
    """Record what the writer knows of its finished chunks; their replica sets are the acks."""
    chunks = state.chunks.mutate()
    for seal in sealed:
        given = chunks[seal.handle]
        everyone = seal.replicas == given.replicas
        chunks[given.handle] = with_fields(
            given,
            replicas=given.replicas if everyone else shared_ids(seal.replicas),
            length_bytes=seal.length_bytes,
            digest=seal.digest,
        )
    return with_fields(state, chunks=chunks.finish())


def shared_ids(replicas: tuple[ChunkserverId, ...]) -> tuple[ChunkserverId, ...]:
    """The same ids as one object each: three new strings for each of millions of chunks add up."""
    return tuple(ChunkserverId(intern(server)) for server in replicas)
