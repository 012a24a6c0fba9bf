"""A file system driven command by command."""

from collections import Counter

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, FileId
from minigfs.master import commands
from minigfs.master.namespace import path_of
from minigfs.master.state import (
    ROOT_ID,
    TRASH_ID,
    DirectoryInode,
    FileSystemState,
    Inode,
    initial_state,
)
from minigfs.master.transition import transition
from minigfs.master.trash import by_path, kept_until_of

__all__ = ["CHUNK_BYTES", "SERVERS", "Driver", "check_invariants"]

SERVERS = tuple(ChunkserverId(f"s{i}") for i in range(3))
CHUNK_BYTES = 1024


class Driver:
    """Holds a state, applies commands to it, and checks what must hold after each."""

    def __init__(self) -> None:
        self.log: list[commands.Command] = []
        self.state = initial_state()
        config = FileSystemConfig(cluster_id="c", chunk_bytes=CHUNK_BYTES)
        self.apply(commands.Configure(1, config))

    def apply(self, command: commands.Command) -> commands.CommandReply:
        before = self.state
        self.log.append(command)
        self.state, reply = transition(before, command)
        if isinstance(reply, commands.Refused):
            assert self.state is before
        check_invariants(self.state)
        return reply

    def refused(self, command: commands.Command) -> str:
        reply = self.apply(command)
        assert isinstance(reply, commands.Refused), reply
        return reply.code

    def make_directory(self, path: str) -> None:
        assert self.apply(commands.MakeDirectory(5, path, True, True)) == commands.Done()

    def open_file(self, path: str = "/hint") -> FileId:
        reply = self.apply(commands.CreateFile(6, path, False, 3))
        assert isinstance(reply, commands.FileCreated)
        return reply.file_id

    def allocate(self, file_id: FileId, first: int, count: int) -> tuple[ChunkHandle, ...]:
        reply = self.apply(commands.AllocateChunks(7, file_id, first, (SERVERS,) * count))
        assert isinstance(reply, commands.ChunksAllocated)
        return reply.handles

    def publish_command(
        self, file_id: FileId, path: str, size_bytes: int = 0, *, exclusive: bool = False
    ) -> commands.PublishFile:
        handles = self.state.temporary[file_id].chunks
        count = -(-size_bytes // CHUNK_BYTES)
        sealed = tuple(
            commands.SealedReplicas(
                handle, min(CHUNK_BYTES, size_bytes - i * CHUNK_BYTES), handle * 7, SERVERS[:2]
            )
            for i, handle in enumerate(handles[:count])
        )
        return commands.PublishFile(8, file_id, path, sealed, exclusive)

    def write(self, path: str, size_bytes: int = 0) -> FileId:
        file_id = self.open_file(path)
        if size_bytes:
            self.allocate(file_id, 0, -(-size_bytes // CHUNK_BYTES))
        reply = self.apply(self.publish_command(file_id, path, size_bytes))
        assert isinstance(reply, commands.FilePublished), reply
        return file_id


def check_invariants(state: FileSystemState) -> None:
    """What every state must satisfy, found by walking all of it."""
    seen: set[FileId] = set()
    owned: list[ChunkHandle] = []
    for root in (ROOT_ID, TRASH_ID):
        _walk_tree(state, root, seen, owned)
    _walk_condemned(state, seen, owned)
    _walk_clones(state, seen, owned)
    assert seen == set(state.inodes), "an inode has no place"
    for file in state.temporary.values():
        assert file.file_id not in seen
        assert file.file_id not in state.condemned
        owned += file.chunks
    counted = Counter(owned)
    beyond_first = {handle: count - 1 for handle, count in counted.items() if count > 1}
    assert beyond_first == dict(state.shared), "owners are not as they were counted"
    assert set(owned) == set(state.chunks), "a chunk has no owner, or an owner no chunk"
    assert not set(owned) & set(state.garbage), "a live chunk is garbage"
    assert all(h < state.next_handle for h in (*owned, *state.garbage))
    _check_beside(state)


def _check_beside(state: FileSystemState) -> None:
    """What stands beside the inodes is of inodes that are there."""
    for file_id in (*state.policies, *state.fences):
        assert isinstance(state.inodes.get(file_id), DirectoryInode)
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    names = dict(root.children.items_from(""))
    assert set(names.values()) == set(state.trash)
    for name, file_id in names.items():
        assert kept_until_of(name) == state.trash[file_id].kept_until_ms
    assert state.trash_by_path == by_path(state.trash)


def _walk_clones(state: FileSystemState, seen: set[FileId], owned: list[ChunkHandle]) -> None:
    """Copies that have no place yet; their counts are right when they get one."""
    for copy_id, cloning in state.cloning.items():
        if not cloning.waiting:
            continue
        assert copy_id not in seen
        waiting = [state.inodes[copy_id]]
        while waiting:
            inode = waiting.pop()
            assert path_of(state, inode) is None
            seen.add(inode.file_id)
            if isinstance(inode, DirectoryInode):
                ids = [child_id for _, child_id in inode.children.items_from("")]
                waiting += [state.inodes[child_id] for child_id in ids]
            else:
                owned += inode.chunks


def _walk_tree(
    state: FileSystemState, root_id: FileId, seen: set[FileId], owned: list[ChunkHandle]
) -> None:
    """Directories after those above them; then every count, from the leaves up."""
    order, waiting = [], [state.inodes[root_id]]
    while waiting:
        inode = waiting.pop()
        order.append(inode)
        waiting += _take(state, inode, seen, owned)
    counts = {inode.file_id: [0, 0] for inode in order}
    for inode in reversed(order):
        files, directories = counts[inode.file_id]
        if isinstance(inode, DirectoryInode):
            assert (inode.file_count, inode.directory_count) == (files, directories)
        if inode.file_id != root_id:
            is_file = not isinstance(inode, DirectoryInode)
            counts[inode.parent_id][0] += files + is_file
            counts[inode.parent_id][1] += directories + (not is_file)
    root = state.inodes[root_id]
    assert isinstance(root, DirectoryInode)
    assert counts[root_id] == [root.file_count, root.directory_count]


def _walk_condemned(state: FileSystemState, seen: set[FileId], owned: list[ChunkHandle]) -> None:
    for file_id, condemned in state.condemned.items():
        assert file_id not in state.inodes
        assert condemned.chunks or len(condemned.children), "nothing is left of it"
        owned += condemned.chunks
        waiting = [state.inodes[child_id] for _, child_id in condemned.children.items_from("")]
        assert all(inode.parent_id == file_id for inode in waiting)
        seen.update(inode.file_id for inode in waiting)
        while waiting:
            inode = waiting.pop()
            assert path_of(state, inode) is None
            waiting += _take(state, inode, seen, owned)


def _take(
    state: FileSystemState, inode: Inode, seen: set[FileId], owned: list[ChunkHandle]
) -> list[Inode]:
    """Note one inode; what lies right below it comes back."""
    seen.add(inode.file_id)
    if not isinstance(inode, DirectoryInode):
        owned += inode.chunks
        assert inode.size_bytes == sum(state.chunks[h].length_bytes for h in inode.chunks)
        return []
    children = []
    for name, child_id in inode.children.items_from(""):
        assert child_id not in seen, "an inode has two places"
        seen.add(child_id)
        child = state.inodes[child_id]
        assert (child.name, child.parent_id) == (name, inode.file_id)
        children.append(child)
    return children
