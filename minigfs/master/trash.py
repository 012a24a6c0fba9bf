"""What was removed and can still come back (GFS section 4.4).

Removing a thing moves it, with all that lies in it, below a second root that no path of the tree
leads to. Paths that begin with ``/.trash`` lead there, so it can be looked at; removing it there
removes it for good. Its name there says until when it is kept at least, in digits of one length::

    /.trash/until-0001795749302123-57        57 is the file id

so the names stand in the order in which they expire, and the first of them are all that the leader
must look at. How long a thing is kept is said by the policies above the place it was removed from,
at the time of its removal.

When less than a tenth of all disks is free, what expires first is given up before its time
(``housekeeping``), a few things at a time; so it is while the trash holds more than a million files
and directories, which the masters have in memory.

What is not kept: files that another takes the place of, empty directories, and temporary files
that are never published.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from immutables import Map
from msgspec.structs import replace as with_fields

from minigfs.errors import FileExists, FileMissing
from minigfs.ids import ChunkHandle, FileId
from minigfs.master.namespace import (
    attach,
    detach,
    find_inode,
    get_inode,
    join_path,
    make_missing_parents,
    split_path,
    split_writable,
)
from minigfs.master.state import (
    TRASH_ID,
    DirectoryInode,
    FileSystemState,
    Inode,
    Trashed,
)

__all__ = [
    "by_path",
    "chunks_in_trash",
    "first_to_give_up",
    "forget_trashed",
    "keep_removed",
    "kept_until_of",
    "next_to_expire",
    "trashed_count",
    "undelete",
]

_PREFIX = "until-"
_DIGITS = 16
_SEARCHED_MAX = 16  # things removed from one path, to find what was removed together with them


def keep_removed(
    state: FileSystemState, inode: Inode, path: str, *, keep_ms: int, now_ms: int
) -> FileSystemState:
    """Put an inode that has no place any more, nor stands among the inodes, into the trash."""
    until_ms = now_ms + keep_ms
    name = f"{_PREFIX}{until_ms:0{_DIGITS}d}-{inode.file_id}"
    state = attach(state, with_fields(inode, parent_id=TRASH_ID, name=name), now_ms)
    entry = Trashed(path, now_ms, until_ms)
    trash = state.trash.set(inode.file_id, entry)
    ids = state.trash_by_path.get(path, ())
    is_latest = not ids or (trash[ids[-1]].removed_ms, ids[-1]) < (now_ms, inode.file_id)
    ids = (*ids, inode.file_id)
    if not is_latest:  # the clock went back
        ids = _by_time(ids, trash)
    return with_fields(state, trash=trash, trash_by_path=state.trash_by_path.set(path, ids))


def by_path(trash: Map[FileId, Trashed]) -> Map[str, tuple[FileId, ...]]:
    """``trash_by_path`` of a state with this trash."""
    found: dict[str, list[FileId]] = {}
    for file_id, entry in trash.items():
        found.setdefault(entry.path, []).append(file_id)
    return Map({path: _by_time(ids, trash) for path, ids in found.items()})


def _by_time(ids: Iterable[FileId], trash: Map[FileId, Trashed]) -> tuple[FileId, ...]:
    """Not as they were removed: clocks may go back."""
    return tuple(sorted(ids, key=lambda file_id: (trash[file_id].removed_ms, file_id)))


def forget_trashed(state: FileSystemState, inode: Inode) -> FileSystemState:
    """An inode stands in the trash no more, if it did."""
    entry = state.trash.get(inode.file_id)
    if entry is None:
        return state
    by_path = state.trash_by_path
    ids = by_path[entry.path]
    at = ids.index(inode.file_id)
    left = ids[:at] + ids[at + 1 :]
    by_path = by_path.set(entry.path, left) if left else by_path.delete(entry.path)
    return with_fields(state, trash=state.trash.delete(inode.file_id), trash_by_path=by_path)


def kept_until_of(name: str) -> int:
    """When a thing of this name in the trash expires, milliseconds since the epoch."""
    return int(name[len(_PREFIX) : len(_PREFIX) + _DIGITS])


def next_to_expire(state: FileSystemState) -> tuple[FileId, int] | None:
    """What of the trash expires first, and when."""
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    first = next(root.children.items_from(""), None)
    return None if first is None else (first[1], kept_until_of(first[0]))


def trashed_count(state: FileSystemState) -> int:
    """Files and directories in the trash, at any depth."""
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    return root.file_count + root.directory_count


def first_to_give_up(state: FileSystemState, excess: int, count_max: int) -> int:
    """How many things, from the one that expires first on, hold so many files and directories; no
    more than ``count_max``."""
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    count = 0
    for _, file_id in islice(root.children.items_from(""), count_max):
        if excess <= 0:
            break
        inode = state.inodes[file_id]
        below = inode.file_count + inode.directory_count if isinstance(inode, DirectoryInode) else 0
        excess -= below + 1
        count += 1
    return count


def chunks_in_trash(state: FileSystemState) -> Iterator[ChunkHandle | None]:
    """The chunks that only removed files have, drawn one by one; None for whatever else is met on
    the way, so that no step takes long, not even through a million empty files."""
    below: list[Iterator[FileId]] = [iter((TRASH_ID,))]
    while below:
        file_id = next(below[-1], None)
        if file_id is None:
            below.pop()
            continue
        inode = state.inodes[file_id]
        if isinstance(inode, DirectoryInode):
            below.append(chain.from_iterable(ids for _, ids in inode.children.blocks()))
            yield None
        elif not inode.chunks:
            yield None
        else:
            yield from (None if handle in state.shared else handle for handle in inode.chunks)


def undelete(state: FileSystemState, path: str, target: str, now_ms: int) -> FileSystemState:
    """Bring back what was removed last from a path, alone or with what is above it.

    Missing directories above the target are made. ``FileMissing`` if the trash does not have it,
    ``FileExists`` if something stands at the target.
    """
    parts, target_parts = split_path(path), split_writable(target)
    inode = _latest_at(state, parts)
    if find_inode(state, target_parts) is not None:
        raise FileExists(f"{target} exists: bring {path} back under another name")
    state = make_missing_parents(state, target_parts, now_ms)
    parent = get_inode(state, target_parts[:-1])
    state = forget_trashed(detach(state, inode, now_ms), inode)
    moved = with_fields(inode, parent_id=parent.file_id, name=target_parts[-1])
    return attach(state, moved, now_ms)


def _latest_at(state: FileSystemState, parts: tuple[str, ...]) -> Inode:
    found: list[tuple[int, FileId, Inode]] = []
    for depth in range(len(parts), 0, -1):
        above = join_path(parts[:depth])
        for file_id in state.trash_by_path.get(above, ())[-_SEARCHED_MAX:]:
            inode = _below(state, state.inodes[file_id], parts[depth:])
            if inode is not None:
                found.append((state.trash[file_id].removed_ms, file_id, inode))
    if not found:
        raise FileMissing(f"{join_path(parts)}: the trash has nothing that was removed from there")
    return max(found, key=lambda one: one[:2])[2]


def _below(state: FileSystemState, inode: Inode, names: tuple[str, ...]) -> Inode | None:
    for name in names:
        if not isinstance(inode, DirectoryInode):
            return None
        child_id = inode.children.get(name)
        if child_id is None:
            return None
        inode = state.inodes[child_id]
    return inode
