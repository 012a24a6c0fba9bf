"""Taking apart what was removed, a bounded part at a time (GFS section 4.4).

Removing a directory takes its name away, and with it everything below it is out of sight, in one
step whatever its size. What it leaves is *condemned*::

    removed --> condemned: names below it, chunks --> its part of every step, until nothing is left
                   |                    ^
                   +-- a directory below +

Each step does at most ``REAP_WORK_MAX`` of the work: the removal itself the first, so that small
trees are gone at once, and the leader proposes ``Reap`` until nothing is condemned. Inodes below
what is condemned stay where they were until their turn comes; no path leads to them, and no walk
from them leads to a root. Chunks become garbage when the inode that has them is taken apart, and no
other has them.

While something is being cloned nothing is taken apart: a clone may have to read what was removed
above it.
"""

from collections.abc import Iterable, Sequence

from immutables import MapMutation
from msgspec.structs import replace as with_fields

from minigfs.ids import ChunkHandle, FileId
from minigfs.master.chunks import ChunkOwners
from minigfs.master.name_table import NameTable
from minigfs.master.state import Condemned, DirectoryInode, FileSystemState, Inode

__all__ = ["REAP_WORK_MAX", "condemn", "condemned_file", "condemned_inode", "reap"]

REAP_WORK_MAX = 1_000  # inodes and chunks in one step: a few milliseconds of every master
_NO_NAMES = NameTable()


def condemned_inode(inode: Inode) -> tuple[FileId, Condemned]:
    """What an inode leaves that has no place any more."""
    if isinstance(inode, DirectoryInode):
        return inode.file_id, Condemned(inode.children, ())
    return condemned_file(inode.file_id, inode.chunks)


def condemned_file(file_id: FileId, chunks: tuple[ChunkHandle, ...]) -> tuple[FileId, Condemned]:
    return file_id, Condemned(_NO_NAMES, chunks)


def condemn(state: FileSystemState, removed: Sequence[tuple[FileId, Condemned]]) -> FileSystemState:
    """Condemn what has no inode any more, and do the first step of it."""
    state = _forget_beside(state, [file_id for file_id, _ in removed])
    entries = [(file_id, entry) for file_id, entry in removed if not entry.is_nothing]
    if not entries:
        return state
    step = _Step(state)
    step.condemned.update(entries)
    return step.run([] if state.cloned_ids else entries)


def reap(state: FileSystemState) -> FileSystemState:
    """Do the next step of whatever is condemned."""
    return _Step(state).run([] if state.cloned_ids else state.condemned.items())


def _forget_beside(state: FileSystemState, removed: Sequence[FileId]) -> FileSystemState:
    """What stands beside the inodes goes with them; a file that is gone is open no more."""
    if not state.policies and not state.fences and not state.open_files:
        return state
    policies, fences = state.policies.mutate(), state.fences.mutate()
    open_files = state.open_files.mutate()
    for file_id in removed:
        policies.pop(file_id, None)
        fences.pop(file_id, None)
        open_files.pop(file_id, None)
    return with_fields(
        state,
        policies=policies.finish(),
        fences=fences.finish(),
        open_files=open_files.finish(),
    )


class _Step:
    def __init__(self, state: FileSystemState) -> None:
        self.condemned = state.condemned.mutate()
        self._state = state
        self._inodes: MapMutation[FileId, Inode] = state.inodes.mutate()
        self._chunks = ChunkOwners(state)
        self._gone: list[FileId] = []  # taken out of the inodes, with something beside them
        self._work_left = REAP_WORK_MAX

    def run(self, entries: Iterable[tuple[FileId, Condemned]]) -> FileSystemState:
        """Take apart entries of ``condemned``, each with all below it before the next one."""
        for file_id, entry in entries:
            if self._work_left <= 0:
                break
            del self.condemned[file_id]
            waiting = [(file_id, entry)]
            while waiting and self._work_left > 0:
                self._take_apart(*waiting.pop(), waiting)
            self.condemned.update(waiting)
        state = with_fields(
            self._state,
            inodes=self._inodes.finish(),
            condemned=self.condemned.finish(),
        )
        return _forget_beside(self._chunks.finish(state), self._gone)

    def _take_apart(
        self, file_id: FileId, entry: Condemned, waiting: list[tuple[FileId, Condemned]]
    ) -> None:
        """Do a part of one entry: chunks as work is left, one block of names. The rest waits."""
        kept_count = max(len(entry.chunks) - self._work_left, 0)
        self._chunks.give_up(entry.chunks[kept_count:])
        ids, children = entry.children.without_first_block()
        self._work_left -= len(entry.chunks) - kept_count + len(ids)
        left = [(file_id, Condemned(children, entry.chunks[:kept_count]))]
        left += [self._taken_out(child_id) for child_id in ids]
        waiting += [pair for pair in left if not pair[1].is_nothing]

    def _taken_out(self, file_id: FileId) -> tuple[FileId, Condemned]:
        inode = self._inodes.pop(file_id)
        if isinstance(inode, DirectoryInode) or inode.is_open:
            self._gone.append(file_id)
        return condemned_inode(inode)
