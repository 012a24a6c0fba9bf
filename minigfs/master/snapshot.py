"""The state of the file system as a sequence of small records, and back (GFS section 2.6.3).

::

    head | directory block ... | temporary files ... | chunks ... | garbage ...

A directory's names stand in blocks (``name_table``); a block is a record, with what the names
stand for. A directory comes after the block it is named in, and the blocks of one directory follow
each other. So a restored directory has the blocks it had, and nothing is sorted; equal states give
equal records, since the persistent maps are walked in an order that depends on their keys alone.
Replica sets repeat without end; a record has each once, and a restored state shares them.

The rows are a format of their own, not the state's classes: fields are added at the end, with a
default, and tags never change their meaning.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TypeAlias, TypeVar, assert_never

import msgspec
from immutables import Map, MapMutation

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.name_table import NameTable
from minigfs.master.state import (
    ROOT_ID,
    Chunk,
    DirectoryInode,
    FileInode,
    FileSystemState,
    Inode,
    TemporaryFile,
    initial_state,
)

__all__ = ["freeze_state", "restore_state"]

ROWS_PER_RECORD = 512  # a record is made in about a millisecond

_ReplicaSet: TypeAlias = tuple[ChunkserverId, ...]
_T = TypeVar("_T")


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class _Head(_Row, frozen=True, array_like=True, gc=False, tag=0):
    config: FileSystemConfig | None
    next_file_id: FileId
    next_handle: ChunkHandle
    file_count: int
    directory_count: int
    root_created_ms: int
    root_modified_ms: int


class _File(_Row, frozen=True, array_like=True, gc=False, tag=1):
    file_id: FileId
    name: str
    created_ms: int
    modified_ms: int
    replication: int
    size_bytes: int
    digest: str
    chunks: tuple[ChunkHandle, ...]


class _Directory(_Row, frozen=True, array_like=True, gc=False, tag=2):
    file_id: FileId
    name: str
    created_ms: int
    modified_ms: int


class _Block(_Row, frozen=True, array_like=True, gc=False, tag=1):
    directory_id: FileId
    entries: list[_File | _Directory]


class _TemporaryFile(_Row, frozen=True, array_like=True, gc=False):
    file_id: FileId
    path: str
    created_ms: int
    replication: int
    chunks: tuple[ChunkHandle, ...]


class _TemporaryFiles(_Row, frozen=True, array_like=True, gc=False, tag=2):
    files: list[_TemporaryFile]


class _Chunk(_Row, frozen=True, array_like=True, gc=False):
    handle: ChunkHandle
    version: ChunkVersion
    replication: int
    replica_set: int  # its place in the record's
    length_bytes: int
    digest: int


class _Chunks(_Row, frozen=True, array_like=True, gc=False, tag=3):
    replica_sets: list[_ReplicaSet]
    chunks: list[_Chunk]


class _Garbage(_Row, frozen=True, array_like=True, gc=False, tag=4):
    replica_sets: list[_ReplicaSet]
    handles: list[tuple[ChunkHandle, int]]  # with the place of the replica set


_Record: TypeAlias = _Head | _Block | _TemporaryFiles | _Chunks | _Garbage

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Record] = msgspec.msgpack.Decoder(_Record)


def freeze_state(state: FileSystemState) -> Iterator[bytes]:
    """The records of a state, each made when it is drawn."""
    records = chain(
        (_head(state),),
        _blocks(state.inodes),
        _temporary_files(state),
        _chunks(state),
        _garbage(state),
    )
    return map(_encoder.encode, records)


def restore_state(records: Iterable[bytes]) -> FileSystemState:
    """The state whose records these are; without any, that of an empty log.

    Raises ``msgspec.DecodeError`` for a record of another format.
    """
    restoring: _Restoring | None = None
    for record in map(_decoder.decode, records):
        if isinstance(record, _Head):
            restoring = _Restoring(record)
        else:
            assert restoring is not None, "the head comes first"
            restoring.add(record)
    return restoring.finish() if restoring is not None else initial_state()


def _head(state: FileSystemState) -> _Head:
    root = state.inodes[ROOT_ID]
    return _Head(
        state.config,
        state.next_file_id,
        state.next_handle,
        state.file_count,
        state.directory_count,
        root.created_ms,
        root.modified_ms,
    )


def _blocks(inodes: Map[FileId, Inode]) -> Iterator[_Block]:
    """Parents before children; a directory is forgotten as soon as it is written."""
    waiting = [ROOT_ID]
    while waiting:
        directory = inodes[waiting.pop()]
        assert isinstance(directory, DirectoryInode)
        for _, ids in directory.children.blocks():
            entries = [_entry(inodes[file_id]) for file_id in ids]
            yield _Block(directory.file_id, entries)
            waiting.extend(row.file_id for row in entries if isinstance(row, _Directory))


def _entry(inode: Inode) -> _File | _Directory:
    if isinstance(inode, DirectoryInode):
        return _Directory(inode.file_id, inode.name, inode.created_ms, inode.modified_ms)
    return _File(
        inode.file_id,
        inode.name,
        inode.created_ms,
        inode.modified_ms,
        inode.replication,
        inode.size_bytes,
        inode.digest,
        inode.chunks,
    )


def _temporary_files(state: FileSystemState) -> Iterator[_TemporaryFiles]:
    for files in _batches(state.temporary.values()):
        yield _TemporaryFiles(
            [
                _TemporaryFile(
                    file.file_id, file.path, file.created_ms, file.replication, file.chunks
                )
                for file in files
            ]
        )


def _chunks(state: FileSystemState) -> Iterator[_Chunks]:
    for chunks in _batches(state.chunks.values()):
        places: dict[_ReplicaSet, int] = {}
        rows = [
            _Chunk(
                chunk.handle,
                chunk.version,
                chunk.replication,
                places.setdefault(chunk.replicas, len(places)),
                chunk.length_bytes,
                chunk.digest,
            )
            for chunk in chunks
        ]
        yield _Chunks(list(places), rows)


def _garbage(state: FileSystemState) -> Iterator[_Garbage]:
    for items in _batches(state.garbage.items()):
        places: dict[_ReplicaSet, int] = {}
        rows = [(handle, places.setdefault(held, len(places))) for handle, held in items]
        yield _Garbage(list(places), rows)


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, ROWS_PER_RECORD)):
        yield batch


class _Restoring:
    """A state that is being put together from its records."""

    def __init__(self, head: _Head) -> None:
        empty = initial_state()
        self._head = head
        self._inodes: MapMutation[FileId, Inode] = empty.inodes.mutate()
        self._temporary = empty.temporary.mutate()
        self._chunks = empty.chunks.mutate()
        self._garbage = empty.garbage.mutate()
        self._directory = DirectoryInode(  # the one whose blocks are being read
            ROOT_ID, ROOT_ID, "", head.root_created_ms, head.root_modified_ms, NameTable()
        )
        self._blocks: list[tuple[tuple[str, ...], tuple[FileId, ...]]] = []
        self._replica_sets: dict[_ReplicaSet, _ReplicaSet] = {}

    def add(self, record: _Block | _TemporaryFiles | _Chunks | _Garbage) -> None:
        match record:
            case _Block():
                self._add_block(record)
            case _TemporaryFiles():
                for row in record.files:
                    self._temporary[row.file_id] = TemporaryFile(
                        row.file_id, row.path, row.created_ms, row.replication, row.chunks
                    )
            case _Chunks():
                self._add_chunks(record)
            case _Garbage():
                shared = self._shared(record.replica_sets)
                for handle, place in record.handles:
                    self._garbage[handle] = shared[place]
            case _:
                assert_never(record)

    def finish(self) -> FileSystemState:
        self._close_directory()
        head = self._head
        return FileSystemState(
            config=head.config,
            inodes=self._inodes.finish(),
            temporary=self._temporary.finish(),
            chunks=self._chunks.finish(),
            garbage=self._garbage.finish(),
            next_file_id=head.next_file_id,
            next_handle=head.next_handle,
            file_count=head.file_count,
            directory_count=head.directory_count,
        )

    def _add_block(self, block: _Block) -> None:
        if block.directory_id != self._directory.file_id:
            self._close_directory()
            directory = self._inodes[block.directory_id]
            assert isinstance(directory, DirectoryInode)
            self._directory = directory
        inodes, parent_id = self._inodes, self._directory.file_id
        for row in block.entries:
            inodes[row.file_id] = _inode(row, parent_id)
        names = tuple(row.name for row in block.entries)
        self._blocks.append((names, tuple(row.file_id for row in block.entries)))

    def _close_directory(self) -> None:
        directory = self._directory
        children = NameTable.from_blocks(self._blocks)
        self._inodes[directory.file_id] = msgspec.structs.replace(directory, children=children)
        self._blocks = []

    def _add_chunks(self, record: _Chunks) -> None:
        shared, chunks = self._shared(record.replica_sets), self._chunks
        for row in record.chunks:
            chunks[row.handle] = Chunk(
                row.handle,
                row.version,
                row.replication,
                shared[row.replica_set],
                row.length_bytes,
                row.digest,
            )

    def _shared(self, replica_sets: list[_ReplicaSet]) -> list[_ReplicaSet]:
        return [self._replica_sets.setdefault(one, one) for one in replica_sets]


def _inode(row: _File | _Directory, parent_id: FileId) -> Inode:
    if isinstance(row, _Directory):
        return DirectoryInode(
            row.file_id, parent_id, row.name, row.created_ms, row.modified_ms, NameTable()
        )
    return FileInode(
        row.file_id,
        parent_id,
        row.name,
        row.created_ms,
        row.modified_ms,
        row.replication,
        row.size_bytes,
        row.digest,
        row.chunks,
    )
