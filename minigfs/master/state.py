"""The whole of what the master must never lose, as one immutable value.

Files and directories are inodes with ids; a directory maps names to ids, and an inode knows its
parent and its name. So a rename touches two directories and one inode, however much lies below.
The maps are persistent: a command builds the next state beside the one before it, which a
snapshot, a long listing or a refused change may still be looking at.

A directory counts what lies below it, at any depth, so a removal of any size knows at once what it
takes. A temporary file is no inode of the tree yet: it becomes one when it is published. What was
removed and is not taken apart yet is condemned (see ``removal``). The garbage is the chunks that no
file has any more, with the servers that may still hold them.
"""

from typing import TypeAlias

import msgspec
from immutables import Map

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.history import TenureMark
from minigfs.master.name_table import NameTable

__all__ = [
    "ROOT_ID",
    "Chunk",
    "Condemned",
    "DirectoryInode",
    "FileInode",
    "FileSystemState",
    "Inode",
    "TemporaryFile",
    "initial_state",
]

ROOT_ID = FileId(1)


# gc=False: these values cannot be part of a cycle, and a master holds millions of them.
class DirectoryInode(msgspec.Struct, frozen=True, gc=False):
    file_id: FileId
    parent_id: FileId  # the root is its own parent
    name: str  # "" for the root
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


Inode: TypeAlias = DirectoryInode | FileInode


class TemporaryFile(msgspec.Struct, frozen=True, gc=False):
    """A file that is being written; its path is a hint until it is published."""

    file_id: FileId
    path: str
    created_ms: int
    replication: int
    chunks: tuple[ChunkHandle, ...]


class Chunk(msgspec.Struct, frozen=True, gc=False):
    handle: ChunkHandle
    version: ChunkVersion
    replication: int  # the goal of its file
    replicas: tuple[ChunkserverId, ...]  # chosen at allocation; at publish those that acknowledged
    length_bytes: int = 0  # 0 until the file is published
    digest: int = 0


class Condemned(msgspec.Struct, frozen=True, gc=False):
    """What is left of a removed directory or of a file that lost its place; one of them is empty.

    The inodes of ``children`` are still in the state's ``inodes``; its own is not.
    """

    children: NameTable
    chunks: tuple[ChunkHandle, ...]

    @property
    def is_nothing(self) -> bool:
        return not self.chunks and not len(self.children)


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
    never_published: Map[ChunkHandle, None] = Map()  # of the garbage: nobody will want it back

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
    """An empty root and nothing else."""
    root = DirectoryInode(ROOT_ID, ROOT_ID, "", 0, 0, NameTable())
    inodes: Map[FileId, Inode] = Map({ROOT_ID: root})
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
