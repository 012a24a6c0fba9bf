"""The tree of names: paths, lookups, and the changes that keep it a tree (GFS section 4.1).

Every function takes a state and gives an answer or the next state; a change that the tree does
not allow raises the error its caller reports, and the state it was given is still the state.
"""

from collections.abc import Sequence

from immutables import Map, MapMutation
from msgspec.structs import replace as with_fields

from minigfs.errors import (
    DirectoryNotEmpty,
    FileExists,
    FileMissing,
    InvalidPath,
    IsDirectory,
    NotDirectory,
)
from minigfs.ids import FileId
from minigfs.master.name_table import NameTable
from minigfs.master.state import ROOT_ID, DirectoryInode, FileInode, FileSystemState, Inode

__all__ = [
    "NAME_BYTES_MAX",
    "PATH_BYTES_MAX",
    "add_file",
    "check_can_publish",
    "find_inode",
    "get_inode",
    "make_directory",
    "make_missing_parents",
    "move",
    "path_of",
    "remove_entry",
    "split_path",
]

NAME_BYTES_MAX = 255  # what POSIX file systems allow, so that every tree can be copied to a disk
PATH_BYTES_MAX = 4096


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


def _join(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)


def find_inode(state: FileSystemState, parts: Sequence[str]) -> Inode | None:
    """What stands at a path; None if nothing does. A file on the way is ``NotDirectory``."""
    inode = state.inodes[ROOT_ID]
    for depth, name in enumerate(parts):
        if not isinstance(inode, DirectoryInode):
            raise NotDirectory(f"{_join(parts)}: {_join(parts[:depth])} is a file")
        child_id = inode.children.get(name)
        if child_id is None:
            return None
        inode = state.inodes[child_id]
    return inode


def get_inode(state: FileSystemState, parts: Sequence[str]) -> Inode:
    inode = find_inode(state, parts)
    if inode is None:
        raise FileMissing(f"{_join(parts)}: no such file or directory")
    return inode


def _get_parent(state: FileSystemState, parts: Sequence[str]) -> DirectoryInode:
    """The directory that the last name of ``parts`` stands in, or would stand in."""
    parent = find_inode(state, parts[:-1])
    if parent is None:
        raise FileMissing(f"{_join(parts)}: the directory {_join(parts[:-1])} does not exist")
    if not isinstance(parent, DirectoryInode):
        raise NotDirectory(f"{_join(parts)}: {_join(parts[:-1])} is a file")
    return parent


def path_of(state: FileSystemState, inode: Inode) -> str | None:
    """Where an inode stands; None if something above it was removed."""
    names: list[str] = []
    above: Inode | None = inode
    while above is not None and above.file_id != ROOT_ID:
        names.append(above.name)
        above = state.inodes.get(above.parent_id)
    return None if above is None else _join(names[::-1])


def _attach(inodes: Map[FileId, Inode], inode: Inode, now_ms: int) -> Map[FileId, Inode]:
    """Enter an inode under its name in its parent, which must not have that name."""
    parent = inodes[inode.parent_id]
    assert isinstance(parent, DirectoryInode)
    children = parent.children.insert(inode.name, inode.file_id)
    changing = inodes.mutate()
    changing[inode.file_id] = inode
    changing[parent.file_id] = with_fields(parent, children=children, modified_ms=now_ms)
    _count(changing, inode, +1)
    return changing.finish()


def _detach(inodes: Map[FileId, Inode], inode: Inode, now_ms: int) -> Map[FileId, Inode]:
    """Take an inode's name out of its parent; the inode itself stays."""
    parent = inodes[inode.parent_id]
    assert isinstance(parent, DirectoryInode)
    children = parent.children.remove(inode.name)
    changing = inodes.mutate()
    changing[parent.file_id] = with_fields(parent, children=children, modified_ms=now_ms)
    _count(changing, inode, -1)
    return changing.finish()


def _count(changing: MapMutation[FileId, Inode], inode: Inode, sign: int) -> None:
    """Let every directory above count an inode and what lies below it, or count it no more."""
    files, directories = (sign * count for count in _entry_counts(inode))
    above: Inode = inode
    while above.file_id != ROOT_ID:
        above = changing[above.parent_id]
        assert isinstance(above, DirectoryInode)
        changing[above.file_id] = with_fields(
            above,
            file_count=above.file_count + files,
            directory_count=above.directory_count + directories,
        )


def _entry_counts(inode: Inode) -> tuple[int, int]:
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
    inodes = state.inodes
    if len(chain) > 1:
        inodes = inodes.update((inode.file_id, inode) for inode in chain[1:])
    return with_fields(
        state,
        inodes=_attach(inodes, chain[0], now_ms),
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
        parent = _get_parent(state, parts)
        child_id = parent.children.get(parts[-1])
        if child_id is None:
            return _add_directories(state, parent.file_id, parts[-1:], now_ms)
        existing = state.inodes[child_id]
    if isinstance(existing, FileInode):
        raise FileExists(f"{_join(parts)} exists and is a file")
    if not exist_ok:
        raise FileExists(f"{_join(parts)} exists already")
    return state


def make_missing_parents(
    state: FileSystemState, parts: Sequence[str], now_ms: int
) -> FileSystemState:
    """Make every directory above the last name that is not there yet."""
    inode = state.inodes[ROOT_ID]
    for depth, name in enumerate(parts[:-1]):
        if not isinstance(inode, DirectoryInode):
            raise NotDirectory(f"{_join(parts)}: {_join(parts[:depth])} is a file")
        child_id = inode.children.get(name)
        if child_id is None:
            return _add_directories(state, inode.file_id, parts[depth:-1], now_ms)
        inode = state.inodes[child_id]
    return state


def check_can_publish(state: FileSystemState, parts: Sequence[str], *, exclusive: bool) -> None:
    """Raise what publishing a file at the path would be refused for."""
    existing = find_inode(state, parts)
    if isinstance(existing, DirectoryInode):
        raise IsDirectory(f"{_join(parts)} is a directory: a file cannot take its place")
    if existing is not None and exclusive:
        raise FileExists(f"{_join(parts)} exists already")


def add_file(
    state: FileSystemState, inode: FileInode, now_ms: int
) -> tuple[FileSystemState, FileInode | None]:
    """Put a file under its parent and name; the file it replaced comes back."""
    parent = state.inodes[inode.parent_id]
    assert isinstance(parent, DirectoryInode)
    replaced_id = parent.children.get(inode.name)
    if replaced_id is None:
        return with_fields(state, inodes=_attach(state.inodes, inode, now_ms)), None
    replaced = state.inodes[replaced_id]
    assert isinstance(replaced, FileInode)
    inodes = _detach(state.inodes, replaced, now_ms).delete(replaced_id)
    return with_fields(state, inodes=_attach(inodes, inode, now_ms)), replaced


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
    if not source or not target:
        raise InvalidPath("/ cannot be renamed or replaced")
    if source == target:
        return state, None
    if isinstance(inode, DirectoryInode) and target[: len(source)] == source:
        raise InvalidPath(f"{_join(source)} cannot be moved into itself ({_join(target)})")
    parent = _get_parent(state, target)
    existing_id = parent.children.get(target[-1])
    if existing_id is not None:
        _check_can_replace(inode, state.inodes[existing_id], _join(target), replace=replace)
    inodes = _detach(state.inodes, inode, now_ms)
    moved = with_fields(inode, parent_id=parent.file_id, name=target[-1])
    if isinstance(moved, DirectoryInode):
        return with_fields(state, inodes=_attach(inodes, moved, now_ms)), None
    return add_file(with_fields(state, inodes=inodes), moved, now_ms)


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
    if not parts:
        raise InvalidPath("/ cannot be removed: name what lies in it")
    if isinstance(top, DirectoryInode) and len(top.children) and not recursive:
        raise DirectoryNotEmpty(f"{_join(parts)} is not empty: remove it recursively")
    inodes = _detach(state.inodes, top, now_ms).delete(top.file_id)
    return with_fields(state, inodes=inodes), top, *_entry_counts(top)
