"""The state of the file system as a sequence of small records, and back (GFS section 2.6.3).

::

    head | condemned ... | directory block ... | temporary files ... | chunks ... | garbage ...
         | terms of leadership | garbage that was never published ...

A directory's names stand in blocks (``name_table``); a block is a record, with what the names
stand for. A directory comes after the block it is named in, and the blocks of one directory follow
each other; the root is in the head, and a directory that was removed among the condemned. So a
restored directory has the blocks it had, and nothing is sorted; equal states give equal records,
since the persistent maps are walked in an order that depends on their keys alone. Replica sets
repeat without end; a record has each once, and a restored state shares them.

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
from minigfs.master.history import TenureMark
from minigfs.master.name_table import NameTable
from minigfs.master.state import (
    ROOT_ID,
    Chunk,
    Condemned,
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
    file_count: int
    directory_count: int


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


class _Condemned(_Row, frozen=True, array_like=True, gc=False, tag=5):
    entries: list[tuple[FileId, tuple[ChunkHandle, ...]]]  # the names below them are in blocks


class _Tenures(_Row, frozen=True, array_like=True, gc=False, tag=40):
    marks: tuple[TenureMark, ...]


class _NeverPublished(_Row, frozen=True, array_like=True, gc=False, tag=41):
    handles: list[ChunkHandle]


_Part: TypeAlias = (
    _Block | _TemporaryFiles | _Chunks | _Garbage | _Condemned | _Tenures | _NeverPublished
)
_Record: TypeAlias = _Head | _Part

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Record] = msgspec.msgpack.Decoder(_Record)


def freeze_state(state: FileSystemState) -> Iterator[bytes]:
    """The records of a state, each made when it is drawn."""
    records = chain(
        (_head(state),),
        _condemned(state),
        _blocks(state),
        _temporary_files(state),
        _chunks(state),
        _garbage(state),
        _tenures(state),
        _never_published(state),
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


def _condemned(state: FileSystemState) -> Iterator[_Condemned]:
    for items in _batches(state.condemned.items()):
        yield _Condemned([(file_id, entry.chunks) for file_id, entry in items])


def _blocks(state: FileSystemState) -> Iterator[_Block]:
    """Parents before children; a directory is forgotten as soon as it is written."""
    for file_id, condemned in state.condemned.items():
        yield from _blocks_below(state.inodes, file_id, condemned.children)
    root = state.inodes[ROOT_ID]
    assert isinstance(root, DirectoryInode)
    yield from _blocks_below(state.inodes, ROOT_ID, root.children)


def _blocks_below(
    inodes: Map[FileId, Inode], top_id: FileId, children: NameTable
) -> Iterator[_Block]:
    waiting = [(top_id, children)]
    while waiting:
        directory_id, children = waiting.pop()
        for _, ids in children.blocks():
            found = [inodes[file_id] for file_id in ids]
            yield _Block(directory_id, [_entry(inode) for inode in found])
            waiting.extend(
                (inode.file_id, inode.children)
                for inode in found
                if isinstance(inode, DirectoryInode)
            )


def _entry(inode: Inode) -> _File | _Directory:
    if isinstance(inode, DirectoryInode):
        return _Directory(
            inode.file_id,
            inode.name,
            inode.created_ms,
            inode.modified_ms,
            inode.file_count,
            inode.directory_count,
        )
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


def _tenures(state: FileSystemState) -> Iterator[_Tenures]:
    if state.tenures:
        yield _Tenures(state.tenures)


def _never_published(state: FileSystemState) -> Iterator[_NeverPublished]:
    for handles in _batches(state.never_published):
        yield _NeverPublished(handles)


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
        self._condemned = empty.condemned.mutate()
        self._never_published = empty.never_published.mutate()
        self._tenures: tuple[TenureMark, ...] = ()
        self._inodes[ROOT_ID] = DirectoryInode(
            ROOT_ID,
            ROOT_ID,
            "",
            head.root_created_ms,
            head.root_modified_ms,
            NameTable(),
            head.file_count,
            head.directory_count,
        )
        self._directory_id = ROOT_ID  # the one whose blocks are being read
        self._blocks: list[tuple[tuple[str, ...], tuple[FileId, ...]]] = []
        self._replica_sets: dict[_ReplicaSet, _ReplicaSet] = {}

    def add(self, record: _Part) -> None:
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
            case _Condemned():
                for file_id, chunks in record.entries:
                    self._condemned[file_id] = Condemned(NameTable(), chunks)
            case _Tenures():
                self._tenures = record.marks
            case _NeverPublished():
                self._never_published.update(dict.fromkeys(record.handles))
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
            condemned=self._condemned.finish(),
            next_file_id=head.next_file_id,
            next_handle=head.next_handle,
            tenures=self._tenures,
            never_published=self._never_published.finish(),
        )

    def _add_block(self, block: _Block) -> None:
        if block.directory_id != self._directory_id:
            self._close_directory()
            self._directory_id = block.directory_id
        inodes = self._inodes
        for row in block.entries:
            inodes[row.file_id] = _inode(row, block.directory_id)
        names = tuple(row.name for row in block.entries)
        self._blocks.append((names, tuple(row.file_id for row in block.entries)))

    def _close_directory(self) -> None:
        directory_id, children = self._directory_id, NameTable.from_blocks(self._blocks)
        self._blocks = []
        if directory_id in self._condemned:
            self._condemned[directory_id] = Condemned(children, ())
            return
        directory = self._inodes[directory_id]
        assert isinstance(directory, DirectoryInode)
        self._inodes[directory_id] = msgspec.structs.replace(directory, children=children)

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
            row.file_id,
            parent_id,
            row.name,
            row.created_ms,
            row.modified_ms,
            NameTable(),
            row.file_count,
            row.directory_count,
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
