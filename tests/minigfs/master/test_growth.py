"""A published file grows chunk by chunk: one open at a time, each sealed once."""

import pytest

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master import commands
from minigfs.master.growth import chunk_starts, orders_for_open_replicas
from minigfs.master.heartbeat_messages import ReplicaReport
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.state import FileInode
from tests.minigfs.master.harness import CHUNK_BYTES, SERVERS, Driver

V1, V2 = ChunkVersion(1), ChunkVersion(2)


class Growing(Driver):
    def inode(self, file_id: FileId) -> FileInode:
        inode = self.state.inodes[file_id]
        assert isinstance(inode, FileInode)
        return inode

    def append_chunk(self, file_id: FileId) -> ChunkHandle:
        chunks = self.inode(file_id).chunks
        after = chunks[-1] if chunks else ChunkHandle(0)
        reply = self.apply(commands.AppendChunk(20, file_id, after, SERVERS))
        assert isinstance(reply, commands.ChunkAppended), reply
        return reply.handle

    def seal_command(self, file_id: FileId, handle: ChunkHandle, length: int) -> commands.SealChunk:
        return commands.SealChunk(30, file_id, handle, V1, length, length * 3, SERVERS[:2])

    def seal(self, file_id: FileId, handle: ChunkHandle, length: int) -> None:
        assert self.apply(self.seal_command(file_id, handle, length)) == commands.Done()


@pytest.fixture
def driver() -> Growing:
    return Growing()


def test_an_open_chunk_is_in_size_and_digest_once_it_is_sealed(driver: Growing) -> None:
    file_id = driver.write("/a", CHUNK_BYTES + 10)
    handle = driver.append_chunk(file_id)
    inode = driver.inode(file_id)
    assert (inode.is_open, inode.size_bytes, inode.digest) == (True, CHUNK_BYTES + 10, "")
    assert driver.state.chunks[handle].replicas == SERVERS
    driver.seal(file_id, handle, 7)
    inode, chunk = driver.inode(file_id), driver.state.chunks[handle]
    assert (inode.is_open, inode.size_bytes, inode.modified_ms) == (False, CHUNK_BYTES + 17, 30)
    assert inode.digest != ""
    assert (chunk.version, chunk.length_bytes, chunk.replicas) == (V2, 7, SERVERS[:2])
    assert not chunk.is_open


def test_a_file_with_a_short_chunk_inside_says_where_its_chunks_start(driver: Growing) -> None:
    file_id = driver.write("/a", CHUNK_BYTES)
    assert not driver.inode(file_id).is_ragged
    driver.seal(file_id, driver.append_chunk(file_id), 7)
    assert not driver.inode(file_id).is_ragged
    driver.append_chunk(file_id)
    assert driver.inode(file_id).is_ragged
    starts = chunk_starts(driver.state, driver.inode(file_id))
    assert starts == (0, CHUNK_BYTES, CHUNK_BYTES + 7)


def test_a_chunk_with_nothing_in_it_is_given_up(driver: Growing) -> None:
    file_id = driver.write("/a", 0)
    handle = driver.append_chunk(file_id)
    driver.seal(file_id, handle, 0)
    assert driver.inode(file_id).chunks == ()
    assert handle in driver.state.garbage
    assert not driver.state.open_files


def test_two_leaders_or_appenders_cannot_both_open_the_next_chunk(driver: Growing) -> None:
    file_id = driver.write("/a", 10)
    after = driver.inode(file_id).chunks[-1]
    command = commands.AppendChunk(20, file_id, after, SERVERS)
    assert isinstance(driver.apply(command), commands.ChunkAppended)
    assert driver.refused(command) == "writer-fenced"


def test_a_chunk_is_sealed_once(driver: Growing) -> None:
    file_id = driver.write("/a", 0)
    handle = driver.append_chunk(file_id)
    driver.seal(file_id, handle, 5)
    assert driver.refused(driver.seal_command(file_id, handle, 9)) == "writer-fenced"
    assert driver.state.chunks[handle].length_bytes == 5


def test_a_seal_names_only_members_and_lengths_that_can_be(driver: Growing) -> None:
    file_id = driver.write("/a", 0)
    handle = driver.append_chunk(file_id)
    stranger = commands.SealChunk(30, file_id, handle, V1, 5, 1, (ChunkserverId("x"),))
    nobody = commands.SealChunk(30, file_id, handle, V1, 5, 1, ())
    too_long = commands.SealChunk(30, file_id, handle, V1, CHUNK_BYTES + 1, 1, SERVERS)
    other = commands.SealChunk(30, file_id, handle, V2, 5, 1, SERVERS)
    assert driver.refused(nobody) == "usage"
    assert driver.refused(too_long) == "usage"
    assert driver.refused(other) == "writer-fenced"
    assert driver.refused(stranger) == "usage"
    assert driver.inode(file_id).is_open


def test_a_removed_file_is_no_longer_open(driver: Growing) -> None:
    file_id = driver.write("/a", 10)
    handle = driver.append_chunk(file_id)
    driver.apply(commands.Remove(40, "/a", False))
    assert driver.refused(commands.AppendChunk(41, file_id, handle, SERVERS)) == "file-missing"
    assert not driver.state.open_files
    assert driver.refused(driver.seal_command(file_id, handle, 5)) == "writer-fenced"
    assert restore_state(freeze_state(driver.state)) == driver.state


def test_what_is_open_survives_a_snapshot(driver: Growing) -> None:
    file_id = driver.write("/a", 10)
    driver.append_chunk(file_id)
    restored = restore_state(freeze_state(driver.state))
    assert restored.open_files == driver.state.open_files
    assert restored.chunks == driver.state.chunks
    assert restored.inodes[file_id] == driver.state.inodes[file_id]


def test_open_replicas_are_told_to_seal_to_wait_or_to_go(driver: Growing) -> None:
    file_id = driver.write("/a", 0)
    (sealed,) = [driver.append_chunk(file_id)]
    driver.seal(file_id, sealed, 5)
    still_open = driver.append_chunk(file_id)
    gone = driver.append_chunk(driver.write("/b", 0))
    driver.apply(commands.Remove(40, "/b", False))
    foreign = ChunkHandle(driver.state.next_handle + 5)
    reports = [
        ReplicaReport(handle=handle, version=V1, length_bytes=length)
        for handle, length in ((sealed, 8), (still_open, 3), (gone, 1), (foreign, 1))
    ]
    orders, deletions = orders_for_open_replicas(driver.state, reports)
    assert [(o.handle, o.version, o.length_bytes) for o in orders] == [(sealed, V2, 5)]
    assert deletions == (gone,)


def test_a_replica_that_lacks_some_of_what_was_sealed_is_told_so(driver: Growing) -> None:
    """Else it would stay for ever, and be taken for a chunk that is still open."""
    file_id = driver.write("/a", 0)
    sealed = driver.append_chunk(file_id)
    driver.seal(file_id, sealed, 5)
    short = ReplicaReport(handle=sealed, version=V1, length_bytes=4)
    (order,), deletions = orders_for_open_replicas(driver.state, [short])
    assert (order.handle, order.length_bytes, deletions) == (sealed, 5, ())


def patch_of(
    driver: Growing, file_id: FileId, kept_count: int, *places: tuple[int, int]
) -> commands.PatchFile:
    """Of (index, length) pairs, in chunks of a temporary file."""
    temporary_id = driver.open_file("/a")
    handles = driver.allocate(temporary_id, 0, len(places)) if places else ()
    standing = driver.inode(file_id).chunks
    replaced = tuple(
        (
            index,
            standing[index] if index < len(standing) else ChunkHandle(0),
            commands.SealedReplicas(handle, length, 5, SERVERS[:2]),
        )
        for handle, (index, length) in zip(handles, places, strict=True)
    )
    return commands.PatchFile(50, file_id, temporary_id, len(standing), kept_count, replaced)


def test_a_patch_replaces_cuts_and_adds_chunks_at_once(driver: Growing) -> None:
    file_id = driver.write("/a", 2 * CHUNK_BYTES + 10)
    before = driver.inode(file_id).chunks
    patch = patch_of(driver, file_id, 3, (1, CHUNK_BYTES), (2, CHUNK_BYTES), (3, 7))
    assert driver.apply(patch) == commands.Done()
    inode = driver.inode(file_id)
    assert (inode.size_bytes, inode.chunks[0]) == (3 * CHUNK_BYTES + 7, before[0])
    assert set(before[1:]) <= set(driver.state.garbage)
    assert not driver.state.temporary
    assert driver.apply(patch_of(driver, file_id, 1)) == commands.Done()
    assert driver.inode(file_id).chunks == before[:1]
    assert driver.inode(file_id).size_bytes == CHUNK_BYTES


def test_a_patch_for_a_file_that_has_changed_is_refused(driver: Growing) -> None:
    file_id = driver.write("/a", CHUNK_BYTES + 10)
    first, second = (patch_of(driver, file_id, 2, (1, 20)) for _ in range(2))
    grown = patch_of(driver, file_id, 2, (0, CHUNK_BYTES))
    assert driver.apply(first) == commands.Done()
    assert driver.refused(second) == "writer-fenced"
    driver.append_chunk(file_id)
    assert driver.refused(grown) == "writer-fenced"


def test_a_patch_moves_no_byte_that_it_does_not_write(driver: Growing) -> None:
    file_id = driver.write("/a", 2 * CHUNK_BYTES + 10)
    assert driver.refused(patch_of(driver, file_id, 3, (1, 10))) == "usage"
    assert driver.refused(patch_of(driver, file_id, 3, (4, 10))) == "usage"
    foreign = patch_of(driver, file_id, 3, (2, 10))
    stolen = commands.PatchFile(51, file_id, driver.open_file("/b"), 3, 3, foreign.replaced)
    assert driver.refused(stolen) == "usage"


def test_a_clone_of_an_open_file_has_what_is_sealed(driver: Growing) -> None:
    file_id = driver.write("/a", 2 * CHUNK_BYTES)
    before = driver.inode(file_id)
    handle = driver.append_chunk(file_id)
    reply = driver.apply(commands.Clone(60, "/a", "/b", False))
    assert isinstance(reply, commands.CloneBegun)
    copy = driver.inode(reply.copy_id)
    assert (copy.is_open, copy.chunks) == (False, before.chunks)
    assert (copy.size_bytes, copy.digest) == (before.size_bytes, before.digest)
    driver.seal(file_id, handle, 7)
    assert driver.inode(reply.copy_id) == copy
