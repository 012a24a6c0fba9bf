"""What readers are told of the tree: statuses, and listings in pages.

A page starts where the last one ended and costs what it contains, not what lies before it: names
are kept in order (see ``name_table``), and a subtree that comes before the start is never entered.
A listing is no snapshot; each page is true of the state it was read from.
"""

from collections.abc import Iterator

from minigfs.errors import FileMissing
from minigfs.master.messages import EntryKind, FileStatus, Listing, Locate
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.state import DirectoryInode, FileSystemState, Inode

__all__ = [
    "PAGE_BYTES_MAX",
    "PAGE_ENTRIES_MAX",
    "find_page",
    "inode_to_read",
    "list_page",
    "status_of",
]

PAGE_ENTRIES_MAX = 4_000  # about ten milliseconds of the master
PAGE_BYTES_MAX = 8 * 1024 * 1024  # half of what a frame may have: long paths make short pages
_STATUS_BYTES = 200  # about what an entry takes besides its path

_Entries = Iterator[tuple[str, Inode]]


def status_of(path: str, inode: Inode) -> FileStatus:
    if isinstance(inode, DirectoryInode):
        return FileStatus(
            path=path,
            file_id=inode.file_id,
            kind=EntryKind.DIRECTORY,
            size_bytes=0,
            created_ms=inode.created_ms,
            modified_ms=inode.modified_ms,
            replication=0,
            chunk_count=0,
            digest="",
        )
    return FileStatus(
        path=path,
        file_id=inode.file_id,
        kind=EntryKind.FILE,
        size_bytes=inode.size_bytes,
        created_ms=inode.created_ms,
        modified_ms=inode.modified_ms,
        replication=inode.replication,
        chunk_count=len(inode.chunks),
        digest=inode.digest,
        is_open=inode.is_open,
    )


def inode_to_read(state: FileSystemState, request: Locate) -> Inode:
    """What a reader asks for: the file it opened, by its id, or what the path means now."""
    if request.file_id is None:
        return get_inode(state, split_path(request.path))
    inode = state.inodes.get(request.file_id)
    if inode is None:
        raise FileMissing(f"{request.path}: was removed or replaced while it was being read")
    return inode


def list_page(state: FileSystemState, path: str, start_after: str, limit: int) -> Listing:
    """The entries right below a directory whose path comes after ``start_after``, by bytes."""
    top = get_inode(state, split_path(path))
    if not isinstance(top, DirectoryInode):
        return _page(iter(((path, top),)), start_after, limit)
    prefix = _prefix(path)
    entries = (
        (prefix + name, state.inodes[file_id])
        for name, file_id in top.children.items_from(_below(prefix, start_after))
    )
    return _page(_only_below(prefix, entries, start_after), start_after, limit)


def find_page(state: FileSystemState, path: str, start_after: str, limit: int) -> Listing:
    """As ``list_page``, at any depth."""
    top = get_inode(state, split_path(path))
    if not isinstance(top, DirectoryInode):
        return _page(iter(((path, top),)), start_after, limit)
    prefix = _prefix(path)
    entries = _walk(state, prefix, top, _below(prefix, start_after))
    return _page(_only_below(prefix, entries, start_after), start_after, limit)


def _prefix(path: str) -> str:
    return path if path == "/" else path + "/"


def _below(prefix: str, start_after: str) -> str:
    """``start_after`` relative to the prefix; "" if it does not lie below it."""
    return start_after[len(prefix) :] if start_after.startswith(prefix) else ""


def _only_below(prefix: str, entries: _Entries, start_after: str) -> _Entries:
    """Nothing, if the start lies after all that can have the prefix."""
    past_all = start_after > prefix and not start_after.startswith(prefix)
    return iter(()) if past_all else entries


def _page(entries: _Entries, start_after: str, limit: int) -> Listing:
    limit = max(1, min(limit, PAGE_ENTRIES_MAX))
    page: list[FileStatus] = []
    page_bytes = 0
    for path, inode in entries:
        if path <= start_after:
            continue
        if len(page) == limit or page_bytes > PAGE_BYTES_MAX:
            return Listing(entries=tuple(page), more=True)
        page.append(status_of(path, inode))
        page_bytes += 4 * len(path) + _STATUS_BYTES
    return Listing(entries=tuple(page), more=False)


class _Level:
    """One directory on the way down: where its entries are, and what waits to be entered."""

    def __init__(
        self, state: FileSystemState, prefix: str, directory: DirectoryInode, start: str
    ) -> None:
        self.prefix = prefix
        self.first_name = start.partition("/")[0]
        self.waiting = _directories_before(state, directory, start)
        self.entries = directory.children.items_from(self.first_name)
        self.next = next(self.entries, None)

    def next_to_enter(self) -> tuple[str, DirectoryInode, str] | None:
        """The directory whose contents come before the next entry, if there is one."""
        if self.waiting and (self.next is None or self.waiting[-1][0] + "/" < self.next[0]):
            return self.waiting.pop()
        return None


def _walk(state: FileSystemState, prefix: str, top: DirectoryInode, start: str) -> _Entries:
    """Everything below a directory by the order of whole paths, from about ``start`` on.

    That order is not the order of names at each level: ``a-b`` comes before ``a/x``, since ``-``
    comes before ``/``. So the contents of a directory wait until its siblings that begin with its
    name have passed; those that wait are nested prefixes, and the latest is always the next.
    """
    levels = [_Level(state, prefix, top, start)]
    while levels:
        level = levels[-1]
        entered = level.next_to_enter()
        if entered is not None:
            name, directory, rest = entered
            levels.append(_Level(state, f"{level.prefix}{name}/", directory, rest))
        elif level.next is None:
            levels.pop()
        else:
            name, file_id = level.next
            level.next = next(level.entries, None)
            inode = state.inodes[file_id]
            yield level.prefix + name, inode
            if isinstance(inode, DirectoryInode) and name != level.first_name:
                level.waiting.append((name, inode, ""))


def _directories_before(
    state: FileSystemState, directory: DirectoryInode, start: str
) -> list[tuple[str, DirectoryInode, str]]:
    """The directories named before the start, or as its first name, with contents after it.

    Each with where to start in it. Their names are prefixes of the start's first name: any other
    name that comes before it takes its whole contents along.
    """
    first_name, _, rest = start.partition("/")
    found: list[tuple[str, DirectoryInode, str]] = []
    for length in range(1, len(first_name) + 1):
        name = first_name[:length]
        whole = length == len(first_name)
        file_id = directory.children.get(name)
        inode = None if file_id is None else state.inodes[file_id]
        if isinstance(inode, DirectoryInode) and (whole or name + "/" > start):
            found.append((name, inode, rest if whole else ""))
    return found
