"""Copies of files and trees that share their chunks (GFS section 3.4, the paper's snapshot).

A clone has inodes of its own and the chunks of what it was made from, which count it as one more
owner (``chunks``). No byte is moved; whoever writes to a shared chunk gives the file that is
written one of its own first. What is open for appending is no part of a clone: the master seals it
before, so that a clone has whatever was acknowledged before it was asked for.

A small tree is cloned by one entry of the log. A larger one is copied in steps of bounded work,
below a top inode that has no place, and takes its place by the last of them, all at once::

    Clone ---> a part ---> CloneStep: a part ---> ... ---> the last part, and its name
          the source may not change until then: ``Busy``

So a clone is of one moment, which lies between its first step and its last. How a clone of several
steps ended is remembered for an hour, for whoever asked for it.

What waits is a stack: the directory copied last is gone on with first, so that it holds the
directories of one block of names for each level of the tree.
"""

from collections.abc import Iterable

from msgspec.structs import replace as with_fields

from minigfs.errors import FileExists, InvalidPath, IsDirectory, MinigfsError
from minigfs.ids import ChunkHandle, FileId
from minigfs.master import commands
from minigfs.master.chunks import file_digest
from minigfs.master.name_table import NameTable
from minigfs.master.namespace import (
    add_file,
    attach,
    find_inode,
    get_inode,
    get_parent,
    split_path,
    split_writable,
)
from minigfs.master.removal import condemned_inode
from minigfs.master.state import (
    TRASH_ID,
    Cloning,
    Condemned,
    DirectoryInode,
    FileInode,
    FileSystemState,
    Inode,
    ToClone,
)

__all__ = ["CLONE_WORK_MAX", "NOWHERE", "begin_clone", "clone_some", "is_shared"]

CLONE_WORK_MAX = 1_000  # inodes and chunks in one step: a few milliseconds of every master
SMALL_CHUNKS_MAX = 4  # of a file: a step may count that many for each name of a block
REMEMBERED_MS = 3_600_000  # as long as the session of whoever asked
NOWHERE = FileId(-1)  # the parent of an inode that has no place yet

_Gone = list[tuple[FileId, Condemned]]


def is_shared(state: FileSystemState, inode: FileInode, index: int) -> bool:
    """Whether a chunk must be replaced by one of the file's own before it is written to."""
    return inode.chunks[index] in state.shared


def begin_clone(
    state: FileSystemState, command: commands.Clone, gone: _Gone
) -> tuple[FileSystemState, commands.CloneBegun]:
    """The first step; what a small clone replaces is added to ``gone``."""
    source_parts, target_parts = split_path(command.source), split_writable(command.target)
    source = get_inode(state, source_parts)
    if not source_parts or source.file_id == TRASH_ID:
        raise InvalidPath(f"{command.source} cannot be cloned: name what lies in it")
    if target_parts[: len(source_parts)] == source_parts:
        raise InvalidPath(f"{command.source} cannot be cloned into itself ({command.target})")
    _check_target(state, source, target_parts, command)
    state = _forget_ended(state, command.now_ms)
    copy_id = state.next_file_id
    state = with_fields(
        state,
        inodes=state.inodes.set(copy_id, _empty_copy(source, copy_id, NOWHERE, command.now_ms)),
        next_file_id=FileId(copy_id + 1),
    )
    cloning = Cloning(
        source.file_id,
        command.source,
        command.target,
        command.replace,
        command.now_ms,
        (ToClone(source.file_id, copy_id),),
    )
    state, cloning = _step(state, copy_id, cloning)
    if cloning.waiting:
        state = with_fields(state, cloning=state.cloning.set(copy_id, cloning))
        return state, commands.CloneBegun(copy_id, is_done=False)
    return _take_place(state, copy_id, cloning, gone), commands.CloneBegun(copy_id, is_done=True)


def clone_some(state: FileSystemState, gone: _Gone) -> FileSystemState:
    """The next step of the oldest clone under way."""
    copy_id = min((i for i, one in state.cloning.items() if one.waiting), default=None)
    if copy_id is None:
        return state
    state, cloning = _step(state, copy_id, state.cloning[copy_id])
    state = with_fields(state, cloning=state.cloning.set(copy_id, cloning))
    if cloning.waiting:
        return state
    try:
        return _take_place(state, copy_id, cloning, gone)
    except MinigfsError as refusal:
        ended = with_fields(cloning, refused_code=refusal.code, refused_message=refusal.message)
        copy = state.inodes[copy_id]
        gone.append(condemned_inode(copy))
        return with_fields(
            state,
            inodes=state.inodes.delete(copy_id),
            cloning=state.cloning.set(copy_id, ended),
        )


def _check_target(
    state: FileSystemState, source: Inode, target: tuple[str, ...], command: commands.Clone
) -> None:
    """Raise what taking the target's place would be refused for."""
    if not target:
        raise InvalidPath("/ cannot be replaced by a clone")
    get_parent(state, target)
    existing = find_inode(state, target)
    if existing is None:
        return
    if isinstance(source, DirectoryInode):
        raise FileExists(f"{command.target} exists: a directory never replaces anything")
    if isinstance(existing, DirectoryInode):
        raise IsDirectory(f"{command.target} is a directory: a file cannot take its place")
    if not command.replace:
        raise FileExists(f"{command.target} exists already")


def _forget_ended(state: FileSystemState, now_ms: int) -> FileSystemState:
    old = [
        copy_id
        for copy_id, one in state.cloning.items()
        if not one.waiting and now_ms - one.began_ms > REMEMBERED_MS
    ]
    if not old:
        return state
    cloning = state.cloning.mutate()
    for copy_id in old:
        del cloning[copy_id]
    return with_fields(state, cloning=cloning.finish())


def _take_place(
    state: FileSystemState, copy_id: FileId, cloning: Cloning, gone: _Gone
) -> FileSystemState:
    target = split_writable(cloning.target)
    copy = state.inodes[copy_id]
    clone = commands.Clone(cloning.began_ms, cloning.source, cloning.target, cloning.replace)
    _check_target(state, copy, target, clone)
    parent = get_parent(state, target)
    placed = with_fields(copy, parent_id=parent.file_id, name=target[-1])
    if isinstance(placed, DirectoryInode):
        return attach(state, placed, cloning.began_ms)
    state, replaced = add_file(state, placed, cloning.began_ms)
    if replaced is not None:
        gone.append(condemned_inode(replaced))
    return state


def _empty_copy(source: Inode, copy_id: FileId, parent_id: FileId, now_ms: int) -> Inode:
    """Of a directory without its names, of a file without its chunks."""
    if isinstance(source, DirectoryInode):
        return with_fields(
            source, file_id=copy_id, parent_id=parent_id, created_ms=now_ms, children=NameTable()
        )
    return with_fields(
        source,
        file_id=copy_id,
        parent_id=parent_id,
        created_ms=now_ms,
        chunks=(),
        is_open=False,
        digest=source.digest or file_digest(()),
    )


def _step(
    state: FileSystemState, copy_id: FileId, cloning: Cloning
) -> tuple[FileSystemState, Cloning]:
    """Copy a bounded part; the copy and all below it keep their counts of owners right."""
    step = _Step(state, cloning.began_ms)
    return step.run(list(cloning.waiting), cloning)


class _Step:
    def __init__(self, state: FileSystemState, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._inodes = state.inodes.mutate()
        self._shared = state.shared.mutate()
        self._policies = state.policies
        self._next_file_id = state.next_file_id
        self._work_left = CLONE_WORK_MAX

    def run(self, waiting: list[ToClone], cloning: Cloning) -> tuple[FileSystemState, Cloning]:
        while waiting and self._work_left > 0:
            todo = waiting.pop()
            source, copy = self._inodes[todo.source_id], self._inodes[todo.copy_id]
            if isinstance(source, DirectoryInode):
                assert isinstance(copy, DirectoryInode)
                self._copy_block(source, copy, todo, waiting)
            else:
                assert isinstance(copy, FileInode)
                self._share_chunks(source, copy, todo, waiting)
        state = with_fields(
            self._state,
            inodes=self._inodes.finish(),
            shared=self._shared.finish(),
            policies=self._policies,
            next_file_id=self._next_file_id,
        )
        return state, with_fields(cloning, waiting=tuple(waiting))

    def _copy_block(
        self, source: DirectoryInode, copy: DirectoryInode, todo: ToClone, waiting: list[ToClone]
    ) -> None:
        """One run of names, with what has to be done for what they name."""
        self._work_left -= 1
        if todo.done_count == 0 and source.file_id in self._policies:
            self._policies = self._policies.set(copy.file_id, self._policies[source.file_id])
        block = source.children.block_at(todo.done_count)
        if block is None:
            return
        names, ids = block
        first_id = self._next_file_id
        self._next_file_id = FileId(first_id + len(ids))
        copies = tuple(FileId(first_id + place) for place in range(len(ids)))
        waiting.append(with_fields(todo, done_count=todo.done_count + 1))
        for source_id, copy_id in zip(ids, copies, strict=True):
            below = self._inodes[source_id]
            if isinstance(below, FileInode) and self._is_small(below):
                self._inodes[copy_id] = with_fields(
                    below, file_id=copy_id, parent_id=copy.file_id, created_ms=self._now_ms
                )
                self._count_owner(below.chunks)
                continue
            self._inodes[copy_id] = _empty_copy(below, copy_id, copy.file_id, self._now_ms)
            waiting.append(ToClone(source_id, copy_id))
        self._inodes[copy.file_id] = with_fields(
            copy, children=copy.children.with_block(names, copies)
        )
        self._work_left -= len(ids)

    def _is_small(self, file: FileInode) -> bool:
        """Whether it is copied at once, with the name that leads to it."""
        return not file.is_open and len(file.chunks) <= SMALL_CHUNKS_MAX

    def _count_owner(self, handles: Iterable[ChunkHandle]) -> None:
        for handle in handles:
            self._shared[handle] = self._shared.get(handle, 0) + 1
            self._work_left -= 1

    def _share_chunks(
        self, source: FileInode, copy: FileInode, todo: ToClone, waiting: list[ToClone]
    ) -> None:
        sealed = source.chunks[:-1] if source.is_open else source.chunks
        end = min(todo.done_count + max(self._work_left, 1), len(sealed))
        self._count_owner(sealed[todo.done_count : end])
        chunks = sealed if end == len(sealed) else sealed[:end]
        self._inodes[copy.file_id] = with_fields(copy, chunks=chunks)
        if end < len(sealed):
            waiting.append(with_fields(todo, done_count=end))
        elif source.is_open:
            digests = [self._state.chunks[handle].digest for handle in sealed]
            self._inodes[copy.file_id] = with_fields(
                self._inodes[copy.file_id], digest=file_digest(digests)
            )
