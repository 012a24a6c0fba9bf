"""The whole of what the master must never lose, as one immutable value.

Files and directories are inodes with ids; a directory maps names to ids, and an inode knows its
parent and its name. So a rename touches two directories and one inode, however much lies below.
The maps are persistent: a command builds the next state beside the one before it, which a
snapshot, a long listing or a refused change may still be looking at.

A directory counts what lies below it, at any depth, so a removal of any size knows at once what it
takes. A temporary file is no inode of the tree yet: it becomes one when it is published. What was
removed is kept a while in a second tree (see ``trash``), and then condemned: out of every tree, and
not taken apart yet (see ``removal``). The garbage is the chunks that no file has any more, with the
servers that may still hold them.

What few inodes have stands beside them, by id: policies, fencing tokens, the second and further
owners of a chunk.
"""

from typing import TypeAlias

import msgspec
from immutables import Map

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.history import TenureMark
from minigfs.master.name_table import NameTable
from minigfs.master.server_place import ServerPlace

__all__ = [
    "NO_PATH",
    "ROOT_ID",
    "TRASH_ID",
    "Chunk",
    "Cloning",
    "Condemned",
    "DirectoryInode",
    "FileInode",
    "FileSystemState",
    "Inode",
    "Policy",
    "TemporaryFile",
    "ToClone",
    "Trashed",
    "initial_state",
]

TRASH_ID = FileId(0)  # the root of what was removed and can come back
ROOT_ID = FileId(1)
NO_PATH = ""


# gc=False: these values cannot be part of a cycle, and a master holds millions of them.
class DirectoryInode(msgspec.Struct, frozen=True, gc=False):
    file_id: FileId
    parent_id: FileId  # a root is its own parent
    name: str  # "" for a root
    created_ms: int
    modified_ms: int  # when an entry was last added or taken away
    children: NameTable
    file_count: int = 0  # below it, at any depth
    directory_count: int = 0


class FileInode(msgspec.Struct, frozen=True, gc=False):
    file_id: FileId
    parent_id: FileId
    name: str
    created_ms: int
    modified_ms: int
    replication: int  # the goal
    size_bytes: int
    digest: str  # hex xxh3-64 over the chunks' digests
    chunks: tuple[ChunkHandle, ...]
    is_ragged: bool = False  # some chunk but the last is not full, or may not be
    is_open: bool = False  # the last chunk is open: in neither size nor digest yet


Inode: TypeAlias = DirectoryInode | FileInode


class TemporaryFile(msgspec.Struct, frozen=True, gc=False):
    """A file that is being written; its path is a hint until it is published, and ``NO_PATH`` if it
    was made before anybody asked for it."""

    file_id: FileId
    path: str
    created_ms: int
    replication: int
    chunks: tuple[ChunkHandle, ...]

    @property
    def label(self) -> str:
        """For messages."""
        return f"temporary file {self.file_id}" if self.path == NO_PATH else self.path


class Chunk(msgspec.Struct, frozen=True, gc=False):
    handle: ChunkHandle
    version: ChunkVersion
    replication: int  # the goal of its file
    replicas: tuple[ChunkserverId, ...]  # chosen at allocation; at publish those that acknowledged
    length_bytes: int = 0  # 0 until the file is published, or an open chunk sealed
    digest: int = 0
    is_open: bool = False  # for appending; the first of its replicas is the primary


class Condemned(msgspec.Struct, frozen=True, gc=False):
    """What is left of a removed directory or of a file that lost its place; one of them is empty.

    The inodes of ``children`` are still in the state's ``inodes``; its own is not.
    """

    children: NameTable
    chunks: tuple[ChunkHandle, ...]

    @property
    def is_nothing(self) -> bool:
        return not self.chunks and not len(self.children)


class Trashed(msgspec.Struct, frozen=True, gc=False):
    """An inode that was removed and stands in the trash."""

    path: str  # where it was
    removed_ms: int
    kept_until_ms: int


class Policy(msgspec.Struct, frozen=True, gc=False):
    """What a directory asks for what is made and removed below it; None: what those above ask."""

    replication: int | None = None
    retention_ms: int | None = None


class ToClone(msgspec.Struct, frozen=True, gc=False):
    """What a clone has still to do: blocks of names of a directory, or chunks of a file."""

    source_id: FileId
    copy_id: FileId
    done_count: int = 0  # blocks, or chunks


class Cloning(msgspec.Struct, frozen=True, gc=False):
    """A clone that takes several steps, or how one ended; by the id of its top inode."""

    source_id: FileId
    source: str
    target: str
    replace: bool
    began_ms: int
    waiting: tuple[ToClone, ...]  # nothing: it has ended
    refused_code: str = ""  # "" unless it ended without taking its place
    refused_message: str = ""


_NOBODY: frozenset[FileId] = frozenset()


class FileSystemState(msgspec.Struct, frozen=True, kw_only=True):
    config: FileSystemConfig | None  # None before the first entry of the log
    inodes: Map[FileId, Inode]
    temporary: Map[FileId, TemporaryFile]
    chunks: Map[ChunkHandle, Chunk]
    garbage: Map[ChunkHandle, tuple[ChunkserverId, ...]]
    condemned: Map[FileId, Condemned]
    next_file_id: FileId
    next_handle: ChunkHandle
    tenures: tuple[TenureMark, ...] = ()
    draining: tuple[ChunkserverId, ...] = ()  # being decommissioned, sorted
    places: Map[ChunkserverId, ServerPlace] = Map()  # where each was found last
    never_published: Map[ChunkHandle, None] = Map()  # of the garbage: nobody will want it back
    open_files: Map[FileId, ChunkHandle] = Map()  # with their open chunks; some may be removed
    trash: Map[FileId, Trashed] = Map()
    trash_by_path: Map[str, tuple[FileId, ...]] = Map()  # what stood there, latest last
    policies: Map[FileId, Policy] = Map()  # of directories
    fences: Map[FileId, int] = Map()  # the latest token taken of a directory
    shared: Map[ChunkHandle, int] = Map()  # owners of a chunk beyond its first
    cloning: Map[FileId, Cloning] = Map()

    @property
    def cloned_ids(self) -> frozenset[FileId]:
        """The tops of the trees that are being cloned, which may not change until that is done."""
        if not self.cloning:
            return _NOBODY
        return frozenset(one.source_id for one in self.cloning.values() if one.waiting)

    @property
    def file_count(self) -> int:
        """Published files."""
        return self._root.file_count

    @property
    def directory_count(self) -> int:
        """The root not counted."""
        return self._root.directory_count

    @property
    def _root(self) -> DirectoryInode:
        root = self.inodes[ROOT_ID]
        assert isinstance(root, DirectoryInode)
        return root

    @property
    def chunk_bytes(self) -> int:
        assert self.config is not None, "the first entry of the log configures the file system"
        return self.config.chunk_bytes


def initial_state() -> FileSystemState:
    """An empty root, an empty trash and nothing else."""
    roots = [DirectoryInode(root, root, "", 0, 0, NameTable()) for root in (TRASH_ID, ROOT_ID)]
    inodes: Map[FileId, Inode] = Map({root.file_id: root for root in roots})
    return FileSystemState(
        config=None,
        inodes=inodes,
        temporary=Map(),
        chunks=Map(),
        garbage=Map(),
        condemned=Map(),
        next_file_id=FileId(ROOT_ID + 1),
        next_handle=ChunkHandle(1),
    )
