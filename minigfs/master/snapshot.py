"""The state of the file system as a sequence of small records, and back (GFS section 2.6.3).

::

    head | condemned ... | clones ... | directory block ... | temporary files ... | chunks ...
         | garbage ... | terms of leadership | garbage that was never published ...
         | trashed ... | policies ... | fences ... | shared ...

A directory's names stand in blocks (``name_table``); a block is a record, with what the names
stand for. A directory comes after the block it is named in, and the blocks of one directory follow
each other; the root is in the head, and a directory that was removed among the condemned. So a
restored directory has the blocks it had, and nothing is sorted; equal states give equal records,
since the persistent maps are walked in an order that depends on their keys alone. Replica sets
repeat without end; a record has each once, and a restored state shares them.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar, assert_never

import msgspec
from immutables import Map, MapMutation

from minigfs.ids import ChunkserverId, FileId
from minigfs.master import snapshot_rows as rows
from minigfs.master.clone import NOWHERE
from minigfs.master.history import TenureMark
from minigfs.master.name_table import NameTable
from minigfs.master.state import (
    ROOT_ID,
    TRASH_ID,
    Chunk,
    Cloning,
    Condemned,
    DirectoryInode,
    FileInode,
    FileSystemState,
    Inode,
    Policy,
    TemporaryFile,
    ToClone,
    Trashed,
    initial_state,
)
from minigfs.master.trash import by_path

__all__ = ["decode_record", "freeze_state", "restore_state"]

ROWS_PER_RECORD = 512  # a record is made in about a millisecond

_T = TypeVar("_T")

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[rows.Record] = msgspec.msgpack.Decoder(rows.Record)


def freeze_state(state: FileSystemState) -> Iterator[bytes]:
    """The records of a state, each made when it is drawn."""
    records = chain(
        (_head(state),),
        _condemned(state),
        _clones(state),
        _blocks(state),
        _temporary_files(state),
        _chunks(state),
        _garbage(state),
        _draining(state),
        _places(state),
        _tenures(state),
        _never_published(state),
        _beside(state),
    )
    return map(_encoder.encode, records)


def restore_state(records: Iterable[bytes]) -> FileSystemState:
    """The state whose records these are; without any, that of an empty log.

    Raises ``msgspec.DecodeError`` for a record of another format.
    """
    restoring: _Restoring | None = None
    for record in map(_decoder.decode, records):
        if isinstance(record, rows.Head):
            restoring = _Restoring(record)
        else:
            assert restoring is not None, "the head comes first"
            restoring.add(record)
    return restoring.finish() if restoring is not None else initial_state()


def decode_record(record: bytes) -> msgspec.Struct:
    """One record, for a person to look at; raises ``msgspec.DecodeError``."""
    return _decoder.decode(record)


def _head(state: FileSystemState) -> rows.Head:
    root, trash = state.inodes[ROOT_ID], state.inodes[TRASH_ID]
    assert isinstance(trash, DirectoryInode)
    return rows.Head(
        state.config,
        state.next_file_id,
        state.next_handle,
        state.file_count,
        state.directory_count,
        root.created_ms,
        root.modified_ms,
        trash.modified_ms,
        trash.file_count,
        trash.directory_count,
    )


def _condemned(state: FileSystemState) -> Iterator[rows.Condemned]:
    for items in _batches(state.condemned.items()):
        yield rows.Condemned([(file_id, entry.chunks) for file_id, entry in items])


def _clones(state: FileSystemState) -> Iterator[rows.Clones]:
    for items in _batches(state.cloning.items()):
        yield rows.Clones(
            [
                rows.Cloning(
                    copy_id,
                    one.source_id,
                    one.source,
                    one.target,
                    one.replace,
                    one.began_ms,
                    tuple((todo.source_id, todo.copy_id, todo.done_count) for todo in one.waiting),
                    one.refused_code,
                    one.refused_message,
                    _entry(state.inodes[copy_id]) if one.waiting else None,
                )
                for copy_id, one in items
            ]
        )


def _beside(state: FileSystemState) -> Iterator[rows.Beside]:
    """What few inodes and chunks have."""
    for trashed in _batches(state.trash.items()):
        yield rows.TrashedFiles([(i, t.path, t.removed_ms, t.kept_until_ms) for i, t in trashed])
    for policies in _batches(state.policies.items()):
        yield rows.Policies([(i, one.replication, one.retention_ms) for i, one in policies])
    for tokens in _batches(state.fences.items()):
        yield rows.Fences(tokens)
    for owners in _batches(state.shared.items()):
        yield rows.Shared(owners)


def _blocks(state: FileSystemState) -> Iterator[rows.Block]:
    """Parents before children; a directory is forgotten as soon as it is written."""
    for file_id, condemned in state.condemned.items():
        yield from _blocks_below(state.inodes, file_id, condemned.children)
    tops = [i for i, one in state.cloning.items() if one.waiting]
    for top_id in (*tops, TRASH_ID, ROOT_ID):
        top = state.inodes[top_id]
        if isinstance(top, DirectoryInode):
            yield from _blocks_below(state.inodes, top_id, top.children)


def _blocks_below(
    inodes: Map[FileId, Inode], top_id: FileId, children: NameTable
) -> Iterator[rows.Block]:
    waiting = [(top_id, children)]
    while waiting:
        directory_id, children = waiting.pop()
        for _, ids in children.blocks():
            found = [inodes[file_id] for file_id in ids]
            yield rows.Block(directory_id, [_entry(inode) for inode in found])
            waiting.extend(
                (inode.file_id, inode.children)
                for inode in found
                if isinstance(inode, DirectoryInode)
            )


def _entry(inode: Inode) -> rows.File | rows.Directory:
    if isinstance(inode, DirectoryInode):
        return rows.Directory(
            inode.file_id,
            inode.name,
            inode.created_ms,
            inode.modified_ms,
            inode.file_count,
            inode.directory_count,
        )
    return rows.File(
        inode.file_id,
        inode.name,
        inode.created_ms,
        inode.modified_ms,
        inode.replication,
        inode.size_bytes,
        inode.digest,
        inode.chunks,
        inode.is_ragged,
        inode.is_open,
    )


def _temporary_files(state: FileSystemState) -> Iterator[rows.TemporaryFiles]:
    for files in _batches(state.temporary.values()):
        yield rows.TemporaryFiles(
            [
                rows.TemporaryFile(
                    file.file_id, file.path, file.created_ms, file.replication, file.chunks
                )
                for file in files
            ]
        )


def _chunks(state: FileSystemState) -> Iterator[rows.Chunks]:
    for chunks in _batches(state.chunks.values()):
        places: dict[rows.ReplicaSet, int] = {}
        found = [
            rows.Chunk(
                chunk.handle,
                chunk.version,
                chunk.replication,
                places.setdefault(chunk.replicas, len(places)),
                chunk.length_bytes,
                chunk.digest,
                chunk.is_open,
            )
            for chunk in chunks
        ]
        yield rows.Chunks(list(places), found)


def _garbage(state: FileSystemState) -> Iterator[rows.Garbage]:
    for items in _batches(state.garbage.items()):
        places: dict[rows.ReplicaSet, int] = {}
        found = [(handle, places.setdefault(held, len(places))) for handle, held in items]
        yield rows.Garbage(list(places), found)


def _draining(state: FileSystemState) -> Iterator[rows.Draining]:
    if state.draining:
        yield rows.Draining(state.draining)


def _places(state: FileSystemState) -> Iterator[rows.Places]:
    for servers in _batches(state.places[name] for name in sorted(state.places)):
        yield rows.Places(servers)


def _tenures(state: FileSystemState) -> Iterator[rows.Tenures]:
    if state.tenures:
        yield rows.Tenures(state.tenures)


def _never_published(state: FileSystemState) -> Iterator[rows.NeverPublished]:
    for handles in _batches(state.never_published):
        yield rows.NeverPublished(handles)


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, ROWS_PER_RECORD)):
        yield batch


class _Restoring:
    """A state that is being put together from its records."""

    def __init__(self, head: rows.Head) -> None:
        empty = initial_state()
        self._head = head
        self._inodes: MapMutation[FileId, Inode] = empty.inodes.mutate()
        self._temporary = empty.temporary.mutate()
        self._chunks = empty.chunks.mutate()
        self._garbage = empty.garbage.mutate()
        self._condemned = empty.condemned.mutate()
        self._never_published = empty.never_published.mutate()
        self._draining: tuple[ChunkserverId, ...] = ()
        self._places = empty.places.mutate()
        self._tenures: tuple[TenureMark, ...] = ()
        self._cloning = empty.cloning.mutate()
        self._trash = empty.trash.mutate()
        self._policies = empty.policies.mutate()
        self._fences = empty.fences.mutate()
        self._shared = empty.shared.mutate()
        self._open_files = empty.open_files.mutate()
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
        self._inodes[TRASH_ID] = DirectoryInode(
            TRASH_ID,
            TRASH_ID,
            "",
            0,
            head.trash_modified_ms,
            NameTable(),
            head.trash_file_count,
            head.trash_directory_count,
        )
        self._directory_id = ROOT_ID  # the one whose blocks are being read
        self._blocks: list[tuple[tuple[str, ...], tuple[FileId, ...]]] = []
        self._replica_sets: dict[rows.ReplicaSet, rows.ReplicaSet] = {}

    def add(self, record: rows.Body) -> None:
        match record:
            case rows.Block():
                self._add_block(record)
            case rows.TemporaryFiles():
                for row in record.files:
                    self._temporary[row.file_id] = TemporaryFile(
                        row.file_id, row.path, row.created_ms, row.replication, row.chunks
                    )
            case rows.Chunks():
                self._add_chunks(record)
            case rows.Garbage():
                shared = self._one_of_each(record.replica_sets)
                for handle, place in record.handles:
                    self._garbage[handle] = shared[place]
            case rows.Condemned():
                for file_id, chunks in record.entries:
                    self._condemned[file_id] = Condemned(NameTable(), chunks)
            case rows.Draining():
                self._draining = record.servers
            case rows.Places():
                self._places.update({place.chunkserver_id: place for place in record.servers})
            case rows.Tenures():
                self._tenures = record.marks
            case rows.NeverPublished():
                self._never_published.update(dict.fromkeys(record.handles))
            case rows.Clones():
                self._add_clones(record)
            case _:
                self._add_beside(record)

    def finish(self) -> FileSystemState:
        self._close_directory()
        head, trash = self._head, self._trash.finish()
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
            draining=self._draining,
            places=self._places.finish(),
            never_published=self._never_published.finish(),
            trash=trash,
            trash_by_path=by_path(trash),
            policies=self._policies.finish(),
            fences=self._fences.finish(),
            shared=self._shared.finish(),
            cloning=self._cloning.finish(),
            open_files=self._open_files.finish(),
        )

    def _add_block(self, block: rows.Block) -> None:
        if block.directory_id != self._directory_id:
            self._close_directory()
            self._directory_id = block.directory_id
        inodes = self._inodes
        for row in block.entries:
            inodes[row.file_id] = _inode(row, block.directory_id)
            if isinstance(row, rows.File) and row.is_open:
                self._open_files[row.file_id] = row.chunks[-1]
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

    def _add_clones(self, record: rows.Clones) -> None:
        for row in record.clones:
            self._cloning[row.copy_id] = Cloning(
                row.source_id,
                row.source,
                row.target,
                row.replace,
                row.began_ms,
                tuple(ToClone(*todo) for todo in row.waiting),
                row.refused_code,
                row.refused_message,
            )
            if row.top is not None:
                self._inodes[row.copy_id] = _inode(row.top, NOWHERE)

    def _add_beside(self, record: rows.Beside) -> None:
        match record:
            case rows.TrashedFiles():
                for file_id, path, removed_ms, until_ms in record.entries:
                    self._trash[file_id] = Trashed(path, removed_ms, until_ms)
            case rows.Policies():
                for file_id, replication, retention_ms in record.policies:
                    self._policies[file_id] = Policy(replication, retention_ms)
            case rows.Fences():
                self._fences.update(record.tokens)
            case rows.Shared():
                self._shared.update(record.owners)
            case _:
                assert_never(record)

    def _add_chunks(self, record: rows.Chunks) -> None:
        shared, chunks = self._one_of_each(record.replica_sets), self._chunks
        for row in record.chunks:
            chunks[row.handle] = Chunk(
                row.handle,
                row.version,
                row.replication,
                shared[row.replica_set],
                row.length_bytes,
                row.digest,
                row.is_open,
            )

    def _one_of_each(self, replica_sets: list[rows.ReplicaSet]) -> list[rows.ReplicaSet]:
        return [self._replica_sets.setdefault(one, one) for one in replica_sets]


def _inode(row: rows.File | rows.Directory, parent_id: FileId) -> Inode:
    if isinstance(row, rows.Directory):
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
        row.is_ragged,
        row.is_open,
    )
