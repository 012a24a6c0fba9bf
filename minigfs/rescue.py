"""Puts published files together again from chunk files alone, without any server (``rescue``).

::

    chunk files: which file, which part, the bytes and their sums --+
                                                                     +--> an index on disk --> files
    catalogues: which files were published, their names, digests  --+

Directories of chunkservers are read, wherever they lie now; nothing in them is written. What a
chunk file says of itself is believed only if its sums say so, and what comes out is checked once
more, against the digest that the catalogue has for the whole file. A part that is damaged in every
replica may still be whole block by block: it is taken from each where it is right.

A file that no catalogue names was written shortly before the end, or its name was never told, or it
was never published: what is whole of such files goes to ``_unconfirmed``, under the path its
writer meant. Of two files that claim one name, the one told of last has it.
"""

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import TypeAlias

from minigfs.chunkserver.blank_files import BLANK_SUFFIX
from minigfs.chunkserver.catalogue import CATALOGUE, CatalogueRow, read_catalogue
from minigfs.chunkserver.checksum import (
    SUM_BYTES,
    block_count,
    digest_of_table,
    first_bad_block,
    table_slice,
)
from minigfs.chunkserver.chunk_file import HEADER_BYTES_MAX, check_table, decode_header
from minigfs.chunkserver.trash import TRASH
from minigfs.closing import ClosedOnExit
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk, FileExists, InvalidConfig
from minigfs.ids import FileId
from minigfs.master.chunks import file_digest

__all__ = ["Rescue", "RescueReport", "Rescued"]

_PIECE_BYTES = 16 * CHECKSUM_BLOCK_BYTES
_COMBINATIONS_MAX = 256  # of chunks that claim the same places; more than a few never occur
_UNCONFIRMED = "_unconfirmed"
_NAME_BYTES_MAX = 255

_SCHEMA = """
CREATE TABLE chunks (
    file_id INTEGER, place INTEGER, handle INTEGER, version INTEGER, digest BLOB,
    length_bytes INTEGER, chunk_bytes INTEGER, is_trash INTEGER, hint TEXT, path TEXT
);
CREATE TABLE files (
    file_id INTEGER PRIMARY KEY, path TEXT, size_bytes INTEGER, chunk_count INTEGER, digest TEXT,
    modified_ms INTEGER, stamp INTEGER, chunk_runs TEXT
) WITHOUT ROWID;
"""
_KEEP_NEWER = """
INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (file_id) DO UPDATE SET
    path = excluded.path, size_bytes = excluded.size_bytes, chunk_count = excluded.chunk_count,
    digest = excluded.digest, modified_ms = excluded.modified_ms, stamp = excluded.stamp,
    chunk_runs = excluded.chunk_runs
WHERE excluded.stamp > files.stamp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """What became of one file."""

    path: str  # of the cluster
    file_id: FileId
    outcome: str  # "rescued", "unconfirmed", "conflict" (rescued, under another name), "incomplete"
    target: str = ""  # where it is now, "" if it is not
    detail: str = ""


@dataclass(slots=True)
class RescueReport:
    rescued: int = 0
    unconfirmed: int = 0
    conflicts: int = 0
    incomplete: int = 0
    bytes: int = 0
    chunk_files: int = 0
    damaged_chunk_files: int = 0
    open_chunk_files: int = 0  # the ends of files that were being appended to: not rescued
    stale_chunk_files: int = 0  # sound, and of an older state of their file
    known_without_chunks: int = 0  # named by a catalogue: deleted since, or lost
    damaged_catalogues: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Replica:
    handle: int
    version: int
    digest: int
    length_bytes: int
    chunk_bytes: int
    is_trash: bool
    hint: str
    path: str

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Replicas with the same one hold the same bytes; the highest is the newest."""
        return self.handle, self.version, self.length_bytes, self.digest


_ReplicasByPlace: TypeAlias = dict[int, list[_Replica]]


class Rescue(ClosedOnExit):
    """A context manager: ``scan`` some directories, then ``restore``."""

    def __init__(self, target: Path) -> None:
        """``target`` is made; it may be there already if nothing is in it."""
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise FileExists(f"{target} is not empty: give a new directory")
        self._target = target
        self._index_file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - __exit__ closes it
            dir=target, prefix=".rescue-", suffix=".sqlite"
        )
        self._index = sqlite3.connect(self._index_file.name)
        self._index.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        self._cluster_id = ""
        self.report = RescueReport()

    def close(self) -> None:
        self._index.close()
        self._index_file.close()

    # Looking

    def scan(self, directory: Path) -> None:
        """Note every chunk file and catalogue at any depth below a directory.

        Raises ``InvalidConfig`` if chunks of two clusters come together.
        """
        if not directory.is_dir():
            raise InvalidConfig(f"{directory} is no directory: name the chunkservers' directories")
        for folder, directories, names in os.walk(directory):
            directories.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if name.endswith((".chunk", BLANK_SUFFIX)):
                    self._note_chunk(path)
                elif name == CATALOGUE:
                    self._note_catalogue(path)

    def _note_chunk(self, path: Path) -> None:
        """A blank may hold a chunk, if its server ended before it was given its own name."""
        is_blank = path.suffix == BLANK_SUFFIX
        self.report.chunk_files += not is_blank
        try:
            with path.open("rb") as file:
                header, _ = decode_header(file.read(HEADER_BYTES_MAX))
        except (CorruptChunk, OSError):
            self.report.damaged_chunk_files += not is_blank
            return
        if not header.sealed:
            self.report.open_chunk_files += 1
            return
        if self._cluster_id not in ("", header.cluster_id):
            raise InvalidConfig(
                f"{path} belongs to cluster {header.cluster_id}, the chunks before it to "
                f"{self._cluster_id}: rescue one cluster at a time"
            )
        self._cluster_id = header.cluster_id
        self._index.execute(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                header.file_id,
                header.index,
                header.handle,
                header.version,
                header.digest.to_bytes(8, "big"),
                header.length_bytes,
                header.chunk_bytes,
                path.parent.name == TRASH,
                header.path_hint,
                os.fsencode(path),
            ),
        )

    def _note_catalogue(self, path: Path) -> None:
        try:
            for row in read_catalogue(path):
                self._index.execute(_KEEP_NEWER, _values(row))
        except sqlite3.DatabaseError as error:
            self.report.damaged_catalogues.append(f"{path}: {error}")

    # Restoring

    def restore(self, told: Callable[[Rescued], None] = lambda _: None) -> RescueReport:
        """Write what can be put together; ``told`` hears of each file."""
        self._index.execute("CREATE INDEX places ON chunks (file_id, place)")
        self._index.execute("CREATE INDEX handles ON chunks (handle)")
        self._index.execute("CREATE TABLE claimed (handle INTEGER PRIMARY KEY) WITHOUT ROWID")
        for row in self._known_files():
            outcome = self._restore_known(row)
            if outcome is not None:
                told(outcome)
        for file_id in self._unknown_files():
            told(self._restore_unknown(file_id))
        return self.report

    def _known_files(self) -> Iterator[CatalogueRow]:
        """The newest first where several claim one path."""
        with closing(self._index.cursor()) as cursor:
            for row in cursor.execute("SELECT * FROM files ORDER BY path, stamp DESC"):
                yield CatalogueRow(*row)

    def _unknown_files(self) -> Iterator[FileId]:
        query = """SELECT DISTINCT file_id FROM chunks WHERE NOT is_trash
            AND file_id NOT IN (SELECT file_id FROM files)
            AND handle NOT IN (SELECT handle FROM claimed) ORDER BY file_id"""
        with closing(self._index.cursor()) as cursor:
            for (file_id,) in cursor.execute(query):
                yield file_id

    def _replicas_by_handle(self, row: CatalogueRow) -> _ReplicasByPlace:
        """The chunk files of a file as the masters told its chunks."""
        found = {}
        for place, handle in enumerate(row.handles):
            self._index.execute("INSERT OR IGNORE INTO claimed VALUES (?)", (handle,))
            for group in self._replicas("handle = ?", handle).values():
                found[place] = group
        return found

    def _replicas(self, condition: str, value: int) -> _ReplicasByPlace:
        """The chunk files of which it is true, by the place they say they have."""
        query = f"""SELECT place, handle, version, digest, length_bytes, chunk_bytes, is_trash,
            hint, path FROM chunks WHERE {condition} ORDER BY is_trash"""
        found: _ReplicasByPlace = {}
        for row in self._index.execute(query, (value,)):
            place, handle, version, digest, length_bytes, chunk_bytes, is_trash, hint, path = row
            replica = _Replica(
                handle,
                version,
                int.from_bytes(digest, "big"),
                length_bytes,
                chunk_bytes,
                bool(is_trash),
                hint,
                os.fsdecode(path),
            )
            found.setdefault(place, []).append(replica)
        return found

    def _restore_known(self, row: CatalogueRow) -> Rescued | None:
        try:
            replicas, chosen = self._chosen(row)
            if replicas is None:
                self.report.known_without_chunks += 1
                return None
            target, is_conflict = self._place(row.path, row.file_id)
            size_bytes = self._write(target, chosen, row.modified_ms)
        except CorruptChunk as error:
            self.report.incomplete += 1
            return Rescued(
                path=row.path, file_id=row.file_id, outcome="incomplete", detail=error.message
            )
        self._count_stale(replicas, chosen)
        self.report.bytes += size_bytes
        self.report.rescued += 1
        self.report.conflicts += is_conflict
        return Rescued(
            path=row.path,
            file_id=row.file_id,
            outcome="conflict" if is_conflict else "rescued",
            target=str(target),
        )

    def _chosen(self, row: CatalogueRow) -> tuple[_ReplicasByPlace | None, list[list[_Replica]]]:
        """All chunk files of a file, and those to take; None if there is none outside the trash.

        Raises ``CorruptChunk`` if they do not make the file.
        """
        found = [self._replicas_by_handle(row), self._replicas("file_id = ?", row.file_id)]
        found = [replicas for replicas in found if _is_live(replicas)]
        if not row.chunk_count:
            return {}, []
        failure: CorruptChunk | None = None
        for replicas in found:
            try:
                return replicas, _choose(row, replicas)
            except CorruptChunk as error:  # the chunks may be others by now than were told
                failure = failure or error
        if failure is not None:
            raise failure
        return None, []

    def _restore_unknown(self, file_id: FileId) -> Rescued:
        replicas = self._replicas("file_id = ?", file_id)
        hint = next(iter(replicas.values()))[0].hint
        try:
            chosen = _choose_newest(replicas)
            target, _ = self._place(f"/{_UNCONFIRMED}{hint}", file_id)
            self.report.bytes += self._write(target, chosen, None)
        except CorruptChunk as error:
            self.report.incomplete += 1
            return Rescued(path=hint, file_id=file_id, outcome="incomplete", detail=error.message)
        self.report.unconfirmed += 1
        return Rescued(path=hint, file_id=file_id, outcome="unconfirmed", target=str(target))

    def _count_stale(self, replicas: _ReplicasByPlace, chosen: list[list[_Replica]]) -> None:
        used = sum(map(len, chosen))
        self.report.stale_chunk_files += sum(map(len, replicas.values())) - used

    def _place(self, path: str, file_id: FileId) -> tuple[Path, bool]:
        """Where a file goes, and whether another one has its name already."""
        parts = [_safe_name(part) for part in path.split("/") if part] or [f"file-{file_id}"]
        folder = self._target
        for part in parts[:-1]:
            folder = _made(folder / part, file_id)
        target = folder / parts[-1]
        if not target.exists():
            return target, False
        return target.with_name(f"{_shortened(target.name)}.~{file_id}"), True

    def _write(self, target: Path, chosen: list[list[_Replica]], modified_ms: int | None) -> int:
        part = target.with_name(f".rescue-{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                for group in chosen:
                    for piece in _pieces(group):
                        file.write(piece)
                size_bytes = file.tell()
                file.flush()
                os.fsync(file.fileno())
            if modified_ms is not None:
                os.utime(part, ns=(modified_ms * 1_000_000,) * 2)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        return size_bytes


def _is_live(replicas: _ReplicasByPlace) -> bool:
    return any(not replica.is_trash for group in replicas.values() for replica in group)


def _values(row: CatalogueRow) -> tuple[object, ...]:
    return (
        row.file_id,
        row.path,
        row.size_bytes,
        row.chunk_count,
        row.digest,
        row.modified_ms,
        row.stamp,
        row.chunk_runs,
    )


def _choose(row: CatalogueRow, replicas: _ReplicasByPlace) -> list[list[_Replica]]:
    """For each place the replicas whose bytes, together, have the file's digest."""
    options: list[list[list[_Replica]]] = []
    for place in range(row.chunk_count):
        groups = _by_content(replicas.get(place, []))
        if not groups:
            raise CorruptChunk(f"no chunk file has part {place} of {row.chunk_count}")
        options.append(groups)
    for combination in islice(product(*options), _COMBINATIONS_MAX):
        if file_digest([group[0].digest for group in combination]) == row.digest:
            return list(combination)
    raise CorruptChunk(
        "there is a chunk file for every part, but not for the state of the file that was "
        "published last"
    )


def _choose_newest(replicas: _ReplicasByPlace) -> list[list[_Replica]]:
    """The newest chunk of each place, if they make a row without a gap."""
    chosen = []
    for place in range(max(replicas) + 1):
        groups = _by_content(replicas.get(place, []))
        if not groups:
            raise CorruptChunk(f"no chunk file has part {place} of at least {max(replicas) + 1}")
        chosen.append(groups[0])
    for group in chosen[:-1]:
        if group[0].length_bytes != group[0].chunk_bytes:
            raise CorruptChunk("a part in the middle is not full")
    return chosen


def _by_content(replicas: list[_Replica]) -> list[list[_Replica]]:
    """Replicas of the same bytes together, the newest first; those in the trash last in each."""
    groups: dict[tuple[int, int, int, int], list[_Replica]] = {}
    for replica in replicas:
        groups.setdefault(replica.content, []).append(replica)
    return [groups[content] for content in sorted(groups, reverse=True)]


def _pieces(group: list[_Replica]) -> Iterator[bytes]:
    """The bytes of a chunk, each piece from the first replica that has it right."""
    sources = [source for replica in group if (source := _Source.open(replica)) is not None]
    try:
        if not sources:
            raise CorruptChunk(f"no replica of chunk {group[0].handle:x} has its sums whole")
        for start in range(0, group[0].length_bytes, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, group[0].length_bytes)
            yield _read(sources, start, end)
    finally:
        for source in sources:
            source.close()


def _read(sources: "list[_Source]", start: int, end: int) -> bytes:
    for source in sources:
        if (data := source.read(start, end)) is not None:
            return data
    if end - start <= CHECKSUM_BLOCK_BYTES:
        block = start // CHECKSUM_BLOCK_BYTES
        raise CorruptChunk(
            f"block {block} of chunk {sources[0].header.handle:x} is damaged in all of "
            f"{len(sources)} replicas"
        )
    return b"".join(
        _read(sources, at, min(at + CHECKSUM_BLOCK_BYTES, end))
        for at in range(start, end, CHECKSUM_BLOCK_BYTES)
    )


class _Source:
    """One replica, open; its sums are whole."""

    def __init__(self, descriptor: int, replica: _Replica) -> None:
        self._descriptor = descriptor
        self.header, layout = decode_header(os.pread(descriptor, HEADER_BYTES_MAX, 0))
        self._data_offset = layout.data_offset
        table_bytes = block_count(self.header.length_bytes) * SUM_BYTES
        self._table = os.pread(descriptor, table_bytes, layout.table_offset)
        check_table(self.header, self._table)
        assert digest_of_table(self._table) == replica.digest

    @classmethod
    def open(cls, replica: _Replica) -> "_Source | None":
        try:
            descriptor = os.open(replica.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return cls(descriptor, replica)
        except (CorruptChunk, OSError):
            os.close(descriptor)
            return None

    def read(self, start: int, end: int) -> bytes | None:
        """The bytes, if all of their blocks are right."""
        try:
            data = os.pread(self._descriptor, end - start, self._data_offset + start)
        except OSError:
            return None
        first_block = start // CHECKSUM_BLOCK_BYTES
        expected = table_slice(self._table, first_block, end - start)
        bad = first_bad_block(data, expected, handle=self.header.handle, first_block=first_block)
        return data if bad is None and len(data) == end - start else None

    def close(self) -> None:
        os.close(self._descriptor)


def _made(folder: Path, file_id: FileId) -> Path:
    """A directory of that name; beside it, if a file has the name."""
    if folder.exists() and not folder.is_dir():
        folder = folder.with_name(f"{_shortened(folder.name)}.~{file_id}")
    folder.mkdir(exist_ok=True)
    return folder


def _safe_name(part: str) -> str:
    """A name of the cluster as one of this file system: it never leads out of the target."""
    if part in (".", "..") or "\0" in part:
        part = part.replace(".", "_").replace("\0", "_")
    encoded = part.encode("utf-8", "surrogatepass")
    return part if len(encoded) <= _NAME_BYTES_MAX else _shortened(part)


def _shortened(name: str) -> str:
    """So much of a name, in bytes, that something may be added to it."""
    return name.encode("utf-8", "surrogatepass")[:200].decode("utf-8", "ignore")
