"""Chunks that were asked for ahead, when the servers they are on fail."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from msgspec.structs import replace

from minigfs.client.allocation import ChunkAllocator, NewFile
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.spare_files import SpareFile, SpareFiles
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


class NewLeader(OneServer):
    """Has answered by its log what an earlier leader allocated, on a server not heard of yet."""

    def __init__(self, silent_count: int) -> None:
        self.silent_count = silent_count

    def change(self, request: CreateFile | AllocateChunks) -> Created | Allocated:
        answer = super().change(request)
        if self.silent_count:
            self.silent_count -= 1
            answer = replace(
                answer, chunks=tuple(replace(known, replicas=()) for known in answer.chunks)
            )
        return answer


class NoLeases:
    holder = "me"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: None


def new_allocator(masters: OneServer, spare: SpareFile | None = None) -> ChunkAllocator:
    file = NewFile(path="/a", exclusive=False, replication=None, chunk_bytes=1024, spare=spare)
    return ChunkAllocator(cast("MasterCaller", masters), cast("WriterLeases", NoLeases()), file)


def test_a_chunk_that_was_refused_for_its_excluded_server_can_be_asked_for_again() -> None:
    allocator = new_allocator(OneServer())
    first = allocator.take(0)
    assert allocator.take(1).index == 1  # and more were allocated ahead
    with pytest.raises(NotEnoughChunkservers):
        allocator.replace(first, [ADDRESS])
    allocator._excluded.add(ChunkserverId("a"))  # another upload's server failed meanwhile
    with pytest.raises(NotEnoughChunkservers):
        allocator.take(2)
    assert allocator.take(2).index == 2


def test_a_chunk_of_which_a_new_leader_knows_no_server_is_asked_for_anew() -> None:
    allocator = new_allocator(NewLeader(silent_count=1))
    assert allocator.take(0).replicas


def test_no_known_server_is_a_reason_to_wait() -> None:
    allocator = new_allocator(NewLeader(silent_count=2))
    with pytest.raises(NotEnoughChunkservers):
        allocator.take(0)
    first = allocator.take(0)
    assert first.replicas
    allocator = new_allocator(masters := NewLeader(silent_count=0))
    first = allocator.take(0)
    masters.silent_count = 1
    with pytest.raises(NotEnoughChunkservers):
        allocator.replace(first, [])
    assert allocator.replace(first, []).replicas


def test_a_chunk_that_was_discarded_before_its_answer_came_is_a_reason_to_ask_again() -> None:
    class Discarding(OneServer):
        """The file was given up while the writer could reach no leader."""

        def change(self, request: CreateFile | AllocateChunks) -> Created | Allocated:
            if isinstance(request, AllocateChunks):
                return Allocated(chunks=())
            return super().change(request)

    allocator = new_allocator(Discarding())
    first = allocator.take(0)
    with pytest.raises(NotEnoughChunkservers):
        allocator.replace(first, [])


def test_the_second_chunk_may_be_asked_for_first_also_of_a_file_made_ahead() -> None:
    created = OneServer().change(CreateFile(path="/a", exclusive=False))
    assert isinstance(created, Created)
    spares = SpareFiles()
    spare = spares.given(created, spares.now_ms())
    allocator = new_allocator(OneServer(), spare)
    assert [allocator.take(index).index for index in (1, 0, 2)] == [1, 0, 2]
