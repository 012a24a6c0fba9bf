"""The tree of names: paths, lookups, and the changes that keep it a tree (GFS section 4.1).

What lies at and below ``/.trash`` is a tree of its own (see ``trash``): it can be read by its path,
and is in no listing of the root. Nothing can be put there by a path.

Every function takes a state and gives an answer or the next state; a change that the tree does
not allow raises the error its caller reports, and the state it was given is still the state.
"""

from collections.abc import Sequence

from immutables import Map, MapMutation
from msgspec.structs import replace as with_fields

from minigfs.errors import (
    Busy,
    DirectoryNotEmpty,
    FileExists,
    FileMissing,
    InvalidPath,
    IsDirectory,
    NotDirectory,
)
from minigfs.ids import FileId
from minigfs.master.name_table import NameTable
from minigfs.master.state import (
    ROOT_ID,
    TRASH_ID,
    DirectoryInode,
    FileInode,
    FileSystemState,
    Inode,
)

__all__ = [
    "NAME_BYTES_MAX",
    "PATH_BYTES_MAX",
    "TRASH_NAME",
    "add_file",
    "attach",
    "check_can_publish",
    "check_not_cloned",
    "detach",
    "entry_counts",
    "find_inode",
    "get_inode",
    "get_parent",
    "is_in_trash",
    "join_path",
    "make_directory",
    "make_missing_parents",
    "move",
    "path_of",
    "remove_entry",
    "split_path",
    "split_writable",
]

NAME_BYTES_MAX = 255  # what POSIX file systems allow, so that every tree can be copied to a disk
PATH_BYTES_MAX = 4096
TRASH_NAME = ".trash"  # in the root, as far as paths go


def split_path(path: str) -> tuple[str, ...]:
    """The names of an absolute path, none for the root; ``InvalidPath`` says what is wrong."""
    if path == "/":
        return ()
    if not path.startswith("/"):
        raise InvalidPath(f"{path!r} is not absolute: start it with /")
    parts = tuple(path[1:].split("/"))
    if "" in parts:
        raise InvalidPath(f"{path!r} has an empty part or a slash at its end: remove it")
    if "." in parts or ".." in parts:
        raise InvalidPath(f"{path!r} has a part . or ..: write the path without it")
    if "\0" in path:
        raise InvalidPath(f"{path!r} has a NUL character: remove it")
    try:
        path_bytes = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidPath(f"{path!r} is not valid Unicode: rename the file") from None
    if path_bytes > PATH_BYTES_MAX:
        raise InvalidPath(f"{path[:100]!r}... has {path_bytes} bytes, at most {PATH_BYTES_MAX} go")
    if path_bytes > NAME_BYTES_MAX:
        for part in parts:
            if len(part.encode()) > NAME_BYTES_MAX:
                raise InvalidPath(f"{part[:100]!r}... is longer than {NAME_BYTES_MAX} bytes")
    return parts


def split_writable(path: str) -> tuple[str, ...]:
    """As ``split_path``, of a path at which something may be made."""
    parts = split_path(path)
    if is_in_trash(parts):
        raise InvalidPath(f"{path}: nothing can be put into the trash but by removing it")
    return parts


def is_in_trash(parts: Sequence[str]) -> bool:
    return bool(parts) and parts[0] == TRASH_NAME


def join_path(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)


def find_inode(state: FileSystemState, parts: Sequence[str]) -> Inode | None:
    """What stands at a path; None if nothing does. A file on the way is ``NotDirectory``."""
    inode = state.inodes[ROOT_ID]
    for depth, name in enumerate(parts):
        if depth == 0 and name == TRASH_NAME:
            inode = state.inodes[TRASH_ID]
            continue
        if not isinstance(inode, DirectoryInode):
            raise NotDirectory(f"{join_path(parts)}: {join_path(parts[:depth])} is a file")
        child_id = inode.children.get(name)
        if child_id is None:
            return None
        inode = state.inodes[child_id]
    return inode


def get_inode(state: FileSystemState, parts: Sequence[str]) -> Inode:
    inode = find_inode(state, parts)
    if inode is None:
        raise FileMissing(f"{join_path(parts)}: no such file or directory")
    return inode


def get_parent(state: FileSystemState, parts: Sequence[str]) -> DirectoryInode:
    """The directory that the last name of ``parts`` stands in, or would stand in."""
    parent = find_inode(state, parts[:-1])
    if parent is None:
        raise FileMissing(
            f"{join_path(parts)}: the directory {join_path(parts[:-1])} does not exist"
        )
    if not isinstance(parent, DirectoryInode):
        raise NotDirectory(f"{join_path(parts)}: {join_path(parts[:-1])} is a file")
    return parent


def path_of(state: FileSystemState, inode: Inode) -> str | None:
    """Where an inode stands, perhaps in the trash; None if something above it is no more."""
    names: list[str] = []
    above: Inode | None = inode
    while above is not None and above.parent_id != above.file_id:
        names.append(above.name)
        above = state.inodes.get(above.parent_id)
    if above is None:
        return None
    return join_path(names[::-1] if above.file_id == ROOT_ID else [TRASH_NAME, *names[::-1]])


def attach(state: FileSystemState, inode: Inode, now_ms: int) -> FileSystemState:
    """Enter an inode under its name in its parent, which must not have that name."""
    return with_fields(state, inodes=_with_attached(state, inode, now_ms))


def _with_attached(state: FileSystemState, inode: Inode, now_ms: int) -> Map[FileId, Inode]:
    children = _parent_of(state, inode).children.insert(inode.name, inode.file_id)
    changing = state.inodes.mutate()
    changing[inode.file_id] = inode
    _count(state, changing, inode, +1, children, now_ms)
    return changing.finish()


def detach(state: FileSystemState, inode: Inode, now_ms: int) -> FileSystemState:
    """Take an inode's name out of its parent; the inode itself stays."""
    children = _parent_of(state, inode).children.remove(inode.name)
    changing = state.inodes.mutate()
    _count(state, changing, inode, -1, children, now_ms)
    return with_fields(state, inodes=changing.finish())


def _parent_of(state: FileSystemState, inode: Inode) -> DirectoryInode:
    parent = state.inodes[inode.parent_id]
    assert isinstance(parent, DirectoryInode)
    return parent


def _count(
    state: FileSystemState,
    changing: MapMutation[FileId, Inode],
    inode: Inode,
    sign: int,
    siblings: NameTable,
    now_ms: int,
) -> None:
    """Give an inode's parent other children, and let every directory above count the inode and
    what lies below it, or count it no more.

    ``Busy`` if the inode, or one above it, is being cloned: a clone is of one moment.
    """
    check_not_cloned(state, inode)
    files, directories = entry_counts(inode)
    above = _parent_of(state, inode)
    changing[above.file_id] = with_fields(
        above,
        children=siblings,
        modified_ms=now_ms,
        file_count=above.file_count + sign * files,
        directory_count=above.directory_count + sign * directories,
    )
    while above.parent_id != above.file_id:
        above = _parent_of(state, above)
        changing[above.file_id] = with_fields(
            above,
            file_count=above.file_count + sign * files,
            directory_count=above.directory_count + sign * directories,
        )


def check_not_cloned(state: FileSystemState, inode: Inode) -> None:
    """``Busy`` if an inode, or one above it, is being cloned: nothing of it may change."""
    cloned = state.cloned_ids
    while cloned:
        if inode.file_id in cloned:
            _refuse_busy(state, inode)
        if inode.parent_id == inode.file_id:
            break
        inode = state.inodes[inode.parent_id]


def _refuse_busy(state: FileSystemState, inode: Inode) -> None:
    raise Busy(f"{path_of(state, inode)} is being cloned: try again in a moment")


def entry_counts(inode: Inode) -> tuple[int, int]:
    """Of files and of directories, the inode among them."""
    if isinstance(inode, DirectoryInode):
        return inode.file_count, inode.directory_count + 1
    return 1, 0


def _add_directories(
    state: FileSystemState, parent_id: FileId, names: Sequence[str], now_ms: int
) -> FileSystemState:
    """New directories, each in the one before it, the first in the parent."""
    first_id = state.next_file_id
    chain = []
    for depth, name in enumerate(names):
        file_id = FileId(first_id + depth)
        children = NameTable()
        if depth + 1 < len(names):
            children = children.insert(names[depth + 1], FileId(file_id + 1))
        below_count = len(names) - depth - 1
        chain.append(
            DirectoryInode(file_id, parent_id, name, now_ms, now_ms, children, 0, below_count)
        )
        parent_id = file_id
    if len(chain) > 1:
        below = state.inodes.update((inode.file_id, inode) for inode in chain[1:])
        state = with_fields(state, inodes=below)
    return with_fields(
        state,
        inodes=_with_attached(state, chain[0], now_ms),
        next_file_id=FileId(first_id + len(names)),
    )


def make_directory(
    state: FileSystemState, parts: Sequence[str], *, parents: bool, exist_ok: bool, now_ms: int
) -> FileSystemState:
    if parents:
        state = make_missing_parents(state, parts, now_ms)
    if not parts:
        existing: Inode = state.inodes[ROOT_ID]
    else:
        parent = get_parent(state, parts)
        child_id = parent.children.get(parts[-1])
        if child_id is None:
            return _add_directories(state, parent.file_id, parts[-1:], now_ms)
        existing = state.inodes[child_id]
    if isinstance(existing, FileInode):
        raise FileExists(f"{join_path(parts)} exists and is a file")
    if not exist_ok:
        raise FileExists(f"{join_path(parts)} exists already")
    return state


def make_missing_parents(
    state: FileSystemState, parts: Sequence[str], now_ms: int
) -> FileSystemState:
    """Make every directory above the last name that is not there yet."""
    inode = state.inodes[ROOT_ID]  # never of a path in the trash
    for depth, name in enumerate(parts[:-1]):
        if not isinstance(inode, DirectoryInode):
            raise NotDirectory(f"{join_path(parts)}: {join_path(parts[:depth])} is a file")
        child_id = inode.children.get(name)
        if child_id is None:
            return _add_directories(state, inode.file_id, parts[depth:-1], now_ms)
        inode = state.inodes[child_id]
    return state


def check_can_publish(state: FileSystemState, parts: Sequence[str], *, exclusive: bool) -> None:
    """Raise what publishing a file at the path would be refused for."""
    existing = find_inode(state, parts)
    if isinstance(existing, DirectoryInode):
        raise IsDirectory(f"{join_path(parts)} is a directory: a file cannot take its place")
    if existing is not None and exclusive:
        raise FileExists(f"{join_path(parts)} exists already")


def add_file(
    state: FileSystemState, inode: FileInode, now_ms: int
) -> tuple[FileSystemState, FileInode | None]:
    """Put a file under its parent and name; the file it replaced comes back."""
    parent = state.inodes[inode.parent_id]
    assert isinstance(parent, DirectoryInode)
    replaced_id = parent.children.get(inode.name)
    if replaced_id is None:
        return attach(state, inode, now_ms), None
    replaced = state.inodes[replaced_id]
    assert isinstance(replaced, FileInode)
    return attach(_delete(state, replaced, now_ms), inode, now_ms), replaced


def _delete(state: FileSystemState, inode: Inode, now_ms: int) -> FileSystemState:
    """Take an inode out of the tree and out of the inodes; what lay below it stays in those."""
    state = detach(state, inode, now_ms)
    return with_fields(state, inodes=state.inodes.delete(inode.file_id))


def move(
    state: FileSystemState,
    source: Sequence[str],
    target: Sequence[str],
    *,
    replace: bool,
    now_ms: int,
) -> tuple[FileSystemState, FileInode | None]:
    """Give an inode another place; the file it replaced comes back."""
    inode = get_inode(state, source)
    if not source or not target or inode.file_id == TRASH_ID:
        raise InvalidPath("/ and the trash cannot be renamed or replaced")
    if source == target:
        return state, None
    if isinstance(inode, DirectoryInode) and target[: len(source)] == source:
        raise InvalidPath(f"{join_path(source)} cannot be moved into itself ({join_path(target)})")
    parent = get_parent(state, target)
    existing_id = parent.children.get(target[-1])
    if existing_id is not None:
        _check_can_replace(inode, state.inodes[existing_id], join_path(target), replace=replace)
    state = detach(state, inode, now_ms)
    moved = with_fields(inode, parent_id=parent.file_id, name=target[-1])
    if isinstance(moved, DirectoryInode):
        return attach(state, moved, now_ms), None
    return add_file(state, moved, now_ms)


def _check_can_replace(inode: Inode, existing: Inode, target: str, *, replace: bool) -> None:
    if isinstance(inode, DirectoryInode):
        raise FileExists(f"{target} exists: a directory never replaces anything")
    if isinstance(existing, DirectoryInode):
        raise IsDirectory(f"{target} is a directory: a file cannot take its place")
    if not replace:
        raise FileExists(f"{target} exists already")


def remove_entry(
    state: FileSystemState, parts: Sequence[str], *, recursive: bool, now_ms: int
) -> tuple[FileSystemState, Inode, int, int]:
    """Take away what stands at a path, whatever lies below it.

    With the state come the inode that is gone, and how many files and directories went with it.
    What lay below it is still in ``inodes``, to be condemned.
    """
    top = get_inode(state, parts)
    if not parts or top.file_id == TRASH_ID:
        raise InvalidPath(f"{join_path(parts)} cannot be removed: name what lies in it")
    if isinstance(top, DirectoryInode) and len(top.children) and not recursive:
        raise DirectoryNotEmpty(f"{join_path(parts)} is not empty: remove it recursively")
    return _delete(state, top, now_ms), top, *entry_counts(top)
