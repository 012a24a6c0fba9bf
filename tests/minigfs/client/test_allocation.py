"""Chunks that were asked for ahead, when the servers they are on fail."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from minigfs.client.allocation import ChunkAllocator, NewFile
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.spare_files import SpareFiles
from minigfs.errors import NotEnoughChunkservers
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.messages import (
    AllocateChunks,
    Allocated,
    Created,
    CreateFile,
    LocatedChunk,
    Replica,
)

ADDRESS = "a:1"


def chunk(index: int) -> LocatedChunk:
    """All are on the one server there is."""
    return LocatedChunk(
        handle=ChunkHandle(index + 1),
        version=ChunkVersion(1),
        index=index,
        length_bytes=0,
        digest=0,
        replicas=(Replica(chunkserver_id=ChunkserverId("a"), address=ADDRESS, host="a"),),
    )


class OneServer:
    """Masters of a cluster with one chunkserver."""

    def change(self, request: CreateFile | AllocateChunks) -> Created | Allocated:
        if isinstance(request, CreateFile):
            return Created(file_id=FileId(9), chunk_bytes=1024, replication=1, chunks=(chunk(0),))
        if request.excluded:
            raise NotEnoughChunkservers("1 alive, 1 excluded")
        indexes = range(request.first_index, request.first_index + request.count)
        return Allocated(chunks=tuple(map(chunk, indexes)))


class NoLeases:
    holder = "me"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: None


def test_a_chunk_that_was_refused_for_its_excluded_server_can_be_asked_for_again() -> None:
    file = NewFile(path="/a", exclusive=False, replication=None, chunk_bytes=1024)
    allocator = ChunkAllocator(
        cast("MasterCaller", OneServer()), cast("WriterLeases", NoLeases()), file
    )
    first = allocator.take(0)
    assert allocator.take(1).index == 1  # and more were allocated ahead
    with pytest.raises(NotEnoughChunkservers):
        allocator.replace(first, [ADDRESS])
    allocator._excluded.add(ChunkserverId("a"))  # another upload's server failed meanwhile
    with pytest.raises(NotEnoughChunkservers):
        allocator.take(2)
    assert allocator.take(2).index == 2


def test_the_second_chunk_may_be_asked_for_first_also_of_a_file_made_ahead() -> None:
    created = OneServer().change(CreateFile(path="/a", exclusive=False))
    assert isinstance(created, Created)
    spares = SpareFiles()
    spare = spares.given(created, spares.now_ms())
    file = NewFile(path="/a", exclusive=False, replication=None, chunk_bytes=1024, spare=spare)
    allocator = ChunkAllocator(
        cast("MasterCaller", OneServer()), cast("WriterLeases", NoLeases()), file
    )
    assert [allocator.take(index).index for index in (1, 0, 2)] == [1, 0, 2]
