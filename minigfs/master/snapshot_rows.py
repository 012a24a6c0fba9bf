"""The records of a frozen file system, as they are encoded; ``snapshot`` makes and reads them.

They are a format of their own, not the state's classes: fields are added at the end, with a
default, and tags never change their meaning. What a record is about is said where it is no class
of the state by another name.
"""

from typing import TypeAlias

import msgspec

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.history import TenureMark
from minigfs.master.server_place import ServerPlace

__all__ = [
    "Beside",
    "Block",
    "Body",
    "Chunk",
    "Chunks",
    "Clones",
    "Cloning",
    "Condemned",
    "Directory",
    "Draining",
    "Fences",
    "File",
    "Garbage",
    "Head",
    "Policies",
    "Record",
    "NeverPublished",
    "Places",
    "ReplicaSet",
    "Shared",
    "TemporaryFile",
    "TemporaryFiles",
    "Tenures",
    "TrashedFiles",
]

ReplicaSet: TypeAlias = tuple[ChunkserverId, ...]


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Head(_Row, frozen=True, array_like=True, gc=False, tag=0):
    config: FileSystemConfig | None
    next_file_id: FileId
    next_handle: ChunkHandle
    file_count: int
    directory_count: int
    root_created_ms: int
    root_modified_ms: int
    trash_modified_ms: int = 0
    trash_file_count: int = 0
    trash_directory_count: int = 0


class File(_Row, frozen=True, array_like=True, gc=False, tag=1):
    file_id: FileId
    name: str
    created_ms: int
    modified_ms: int
    replication: int
    size_bytes: int
    digest: str
    chunks: tuple[ChunkHandle, ...]
    is_ragged: bool = False
    is_open: bool = False


class Directory(_Row, frozen=True, array_like=True, gc=False, tag=2):
    file_id: FileId
    name: str
    created_ms: int
    modified_ms: int
    file_count: int
    directory_count: int


class Block(_Row, frozen=True, array_like=True, gc=False, tag=1):
    directory_id: FileId
    entries: list[File | Directory]


class TemporaryFile(_Row, frozen=True, array_like=True, gc=False):
    file_id: FileId
    path: str
    created_ms: int
    replication: int
    chunks: tuple[ChunkHandle, ...]


class TemporaryFiles(_Row, frozen=True, array_like=True, gc=False, tag=2):
    files: list[TemporaryFile]


class Chunk(_Row, frozen=True, array_like=True, gc=False):
    handle: ChunkHandle
    version: ChunkVersion
    replication: int
    replica_set: int  # its place in the record's
    length_bytes: int
    digest: int
    is_open: bool = False


class Chunks(_Row, frozen=True, array_like=True, gc=False, tag=3):
    replica_sets: list[ReplicaSet]
    chunks: list[Chunk]


class Garbage(_Row, frozen=True, array_like=True, gc=False, tag=4):
    replica_sets: list[ReplicaSet]
    handles: list[tuple[ChunkHandle, int]]  # with the place of the replica set


class Condemned(_Row, frozen=True, array_like=True, gc=False, tag=5):
    entries: list[tuple[FileId, tuple[ChunkHandle, ...]]]  # the names below them are in blocks


class Cloning(_Row, frozen=True, array_like=True, gc=False):
    copy_id: FileId
    source_id: FileId
    source: str
    target: str
    replace: bool
    began_ms: int
    waiting: tuple[tuple[FileId, FileId, int], ...]
    refused_code: str
    refused_message: str
    top: File | Directory | None  # the copy, until it has its place


class Clones(_Row, frozen=True, array_like=True, gc=False, tag=20):
    clones: list[Cloning]


class TrashedFiles(_Row, frozen=True, array_like=True, gc=False, tag=21):
    entries: list[tuple[FileId, str, int, int]]  # path, removed, kept until


class Policies(_Row, frozen=True, array_like=True, gc=False, tag=22):
    policies: list[tuple[FileId, int | None, int | None]]  # replication, retention


class Fences(_Row, frozen=True, array_like=True, gc=False, tag=23):
    tokens: list[tuple[FileId, int]]


class Shared(_Row, frozen=True, array_like=True, gc=False, tag=24):
    owners: list[tuple[ChunkHandle, int]]  # beyond the first


class Draining(_Row, frozen=True, array_like=True, gc=False, tag=30):
    servers: tuple[ChunkserverId, ...]


class Places(_Row, frozen=True, array_like=True, gc=False, tag=31):
    servers: list[ServerPlace]


class Tenures(_Row, frozen=True, array_like=True, gc=False, tag=40):
    marks: tuple[TenureMark, ...]


class NeverPublished(_Row, frozen=True, array_like=True, gc=False, tag=41):
    handles: list[ChunkHandle]


Beside: TypeAlias = TrashedFiles | Policies | Fences | Shared
Body: TypeAlias = (
    Block
    | TemporaryFiles
    | Chunks
    | Garbage
    | Condemned
    | Clones
    | Draining
    | Places
    | Tenures
    | NeverPublished
    | Beside
)
Record: TypeAlias = Head | Body
