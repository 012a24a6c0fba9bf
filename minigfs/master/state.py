"""The whole of what the master must never lose, as one immutable value.

Files and directories are inodes with ids; a directory maps names to ids, and an inode knows its
parent and its name. So a rename touches two directories and one inode, however much lies below.
The maps are persistent: a command builds the next state beside the one before it, which a
snapshot, a long listing or a refused change may still be looking at.

A temporary file is no inode of the tree yet: it becomes one when it is published. The garbage is
the chunks that no file has any more, with the servers that may still hold them.
"""

from typing import TypeAlias

import msgspec
from immutables import Map

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.name_table import NameTable

__all__ = [
    "ROOT_ID",
    "Chunk",
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


class FileSystemState(msgspec.Struct, frozen=True, kw_only=True):
    config: FileSystemConfig | None  # None before the first entry of the log
    inodes: Map[FileId, Inode]
    temporary: Map[FileId, TemporaryFile]
    chunks: Map[ChunkHandle, Chunk]
    garbage: Map[ChunkHandle, tuple[ChunkserverId, ...]]
    next_file_id: FileId
    next_handle: ChunkHandle
    file_count: int  # published files
    directory_count: int  # the root not counted

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
        next_file_id=FileId(ROOT_ID + 1),
        next_handle=ChunkHandle(1),
        file_count=0,
        directory_count=0,
    )
