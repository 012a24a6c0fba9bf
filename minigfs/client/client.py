"""The file system as a library: metadata calls to the masters, readers and writers of files.

Cheap to make: sockets live in pools that all clients of a cluster in this process share, and
connect when they are needed. Thread-safe and fork-safe; a reader or writer opened before a fork
belongs to the parent.

Paths are absolute, ``/``-separated, without empty parts, ``.`` or ``..``. Every method may raise
``Unreachable``, ``NoQuorum``, ``DeadlineExceeded`` or ``AuthenticationFailed``. What changes the
tree is done exactly once, whatever happens to the masters meanwhile; only when none answers until
the deadline it may raise ``OutcomeUnknown``: look before trying again.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from msgspec.structs import replace as with_fields

from minigfs.client.appender import Appender
from minigfs.client.config import ClientConfig
from minigfs.client.hedging import HedgePolicy
from minigfs.client.leases import WriterLeases
from minigfs.client.lent_chunks import Lenders
from minigfs.client.locations import FIRST_BATCH_COUNT, ChunkMap
from minigfs.client.masters import MasterCaller
from minigfs.client.new_files import NewFiles
from minigfs.client.open_chunk_reads import with_open_chunk
from minigfs.client.reader import FileReader
from minigfs.client.replica_reads import ReplicaReader, SuspectServers
from minigfs.client.scrub_times import ScrubTimes, scrub_times
from minigfs.client.spare_files import SpareFiles
from minigfs.client.transaction import Transaction
from minigfs.client.updater import UpdatableFile
from minigfs.client.writer import FileWriter
from minigfs.errors import FileExists, FileMissing, IsDirectory, NotDirectory
from minigfs.master.messages import (
    ClusterReport,
    CreateEmptyFile,
    EntryKind,
    FileStatus,
    Find,
    GetClusterReport,
    ListDirectory,
    Locate,
    Located,
    LocatedChunk,
    MakeDirectory,
    Remove,
    Removed,
    Rename,
    Stat,
)
from minigfs.master.tree_messages import (
    CHUNKS_PER_STEP_MAX,
    CLONE_WAIT_MS,
    AwaitClone,
    Clone,
    GetPolicy,
    ListTrash,
    PolicyReport,
    SetPolicy,
    SetReplication,
    TakeToken,
    Transact,
    Transacted,
    TrashEntry,
    Undelete,
)
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool

__all__ = ["MinigfsClient", "Usage"]

_LOCATE_COUNT = 1024
_SMALL_BYTES_MAX = 64 * 1024  # stored in about the time that the master takes for its leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What lies at and below a path."""

    size_bytes: int
    file_count: int
    directory_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all clients of one cluster in this process share."""

    pool: ConnectionPool
    masters: MasterCaller
    leases: WriterLeases
    new_files: NewFiles
    suspects: SuspectServers
    lenders: Lenders
    hedging: HedgePolicy


_shared_by_config: dict[ClientConfig, _Shared] = {}


def _shared(config: ClientConfig) -> _Shared:
    known = _shared_by_config.get(config)
    if known is not None:
        return known
    pool = ConnectionPool(config.security())
    masters = MasterCaller(config, pool)
    leases = WriterLeases(masters)
    made = _Shared(
        pool=pool,
        masters=masters,
        leases=leases,
        new_files=NewFiles(masters, leases, SpareFiles(), pool=pool, timeout_ms=config.timeout_ms),
        suspects=SuspectServers(),
        lenders=Lenders(pool),
        hedging=HedgePolicy(),
    )
    # One atomic step and no lock: a fork may happen while another thread is in here.
    return _shared_by_config.setdefault(config, made)


class MinigfsClient:
    """A client of one cluster."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._shared = _shared(config)
        self._masters = self._shared.masters

    def __reduce__(self) -> tuple[type["MinigfsClient"], tuple[ClientConfig]]:
        return MinigfsClient, (self._config,)

    @property
    def config(self) -> ClientConfig:
        return self._config

    def stat(self, path: str) -> FileStatus:
        """Raises ``FileMissing`` if nothing is there."""
        status = self._masters.call(Stat(path=path))
        return self._locate(path, 0, 1).status if status.is_open else status

    def exists(self, path: str) -> bool:
        """Whether something is there; an unreachable cluster raises, it is not False."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def list_directory(self, path: str) -> Iterator[FileStatus]:
        """The entries right below a directory, sorted; of a file, the file itself."""
        return self._pages(ListDirectory(path=path))

    def find(self, path: str) -> Iterator[FileStatus]:
        """Everything below a directory, at any depth, sorted; of a file, the file itself."""
        return self._pages(Find(path=path))

    def usage(self, path: str) -> Usage:
        size_bytes = file_count = directory_count = 0
        for status in self.find(path):
            size_bytes += status.size_bytes
            file_count += status.kind is EntryKind.FILE
            directory_count += status.kind is EntryKind.DIRECTORY
        return Usage(size_bytes=size_bytes, file_count=file_count, directory_count=directory_count)

    def make_directory(self, path: str, *, parents: bool = False, exist_ok: bool = False) -> None:
        self._masters.change(MakeDirectory(path=path, parents=parents, exist_ok=exist_ok))

    def rename(self, source: str, target: str, *, replace: bool = False) -> None:
        """Move a file or a whole directory by one atomic change; see ``Rename``."""
        request = Rename(source=source, target=target, replace=replace)
        self._masters.change(request)

    def remove(self, path: str, *, recursive: bool = False, now: bool = False) -> Removed:
        """Move a file or directory to the trash, for as long as the policies above it say.

        ``now``, or of what lies in the trash: for good. See ``undelete``.
        """
        return self._masters.change(Remove(path=path, recursive=recursive, now=now))

    def transaction(self) -> Transaction:
        """Collects writers and changes of the tree that are made together or not at all."""
        return Transaction(self)

    def transact(self, request: Transact) -> Transacted:
        return self._masters.change(request)

    def take_token(self, path: str) -> int:
        """A directory's next fencing token, for transactions; those taken before hold no more."""
        return self._masters.change(TakeToken(path=path)).token

    def clone(self, source: str, target: str, *, replace: bool = False) -> None:
        """Copy a file or a whole directory, as it is at one moment, without moving its bytes.

        ``target`` appears with all that is in it at once. While a large tree is cloned others wait
        who would change it.
        """
        cloned = self._masters.change(Clone(source=source, target=target, replace=replace))
        while not cloned.is_done:
            cloned = self._masters.call(AwaitClone(copy_id=cloned.copy_id), answer_ms=CLONE_WAIT_MS)

    def undelete(self, path: str, target: str | None = None) -> None:
        """Bring back what was removed last from ``path``, alone or with a directory above it."""
        self._masters.change(Undelete(path=path, target=path if target is None else target))

    def list_trash(self, path: str = "/") -> Iterator[TrashEntry]:
        """What was removed at or below a path and is still kept; what expires first comes first."""
        request, more = ListTrash(path=path), True
        while more:
            page = self._masters.call(request)
            yield from page.entries
            more = page.more
            request = with_fields(request, start_after=page.next_after)

    def policy(self, path: str) -> PolicyReport:
        """How many replicas new files get at a path, and how long what is removed there is kept."""
        return self._masters.call(GetPolicy(path=path))

    def set_policy(
        self, path: str, *, replication: int | None = None, retention_ms: int | None = None
    ) -> None:
        """Of a directory: None leaves a value as it is, -1 lets it be what those above say."""
        request = SetPolicy(path=path, replication=replication, retention_ms=retention_ms)
        self._masters.change(request)

    def set_replication(self, path: str, replication: int, *, recursive: bool = False) -> int:
        """Give a file another number of replicas, or a directory for what is made below it.

        ``recursive``: files that are below the directory already, too. How many files were given
        it. Chunks gain or lose replicas in the background.
        """
        status = self.stat(path)
        if status.kind is EntryKind.FILE:
            return self._set_replication([status], replication)
        self.set_policy(path, replication=replication)
        if not recursive:
            return 0
        count = 0
        batch: list[FileStatus] = []
        batch_work = 0
        for entry in self.find(path):
            work = entry.chunk_count + 1
            if batch and batch_work + work > CHUNKS_PER_STEP_MAX:
                count += self._set_replication_of_found(batch, replication)
                batch, batch_work = [], 0
            if entry.kind is EntryKind.FILE and entry.replication != replication:
                batch.append(entry)
                batch_work += work
        return count + self._set_replication_of_found(batch, replication)

    def _set_replication_of_found(self, files: list[FileStatus], replication: int) -> int:
        """Without those that were removed since they were listed: one must not stop the rest."""
        try:
            return self._set_replication(files, replication)
        except (FileMissing, IsDirectory, NotDirectory):
            if len(files) == 1:
                return 0
        middle = len(files) // 2
        return sum(
            self._set_replication_of_found(half, replication)
            for half in (files[:middle], files[middle:])
        )

    def _set_replication(self, files: list[FileStatus], replication: int) -> int:
        """Files that go together in one step, or one file."""
        paths = tuple(status.path for status in files)
        for first in range(
            0, max((f.chunk_count for f in files), default=0) or 1, CHUNKS_PER_STEP_MAX
        ):
            if paths:
                self._masters.change(
                    SetReplication(paths=paths, replication=replication, first_index=first)
                )
        return len(paths)

    def locations(self, path: str, start: int = 0, length: int | None = None) -> Located:
        """Status, chunk size, and the chunks (with live replicas) that a range of a file touches.

        ``length`` None means to the end. Raises ``IsDirectory`` for a directory.
        """
        located = self._locate(path, 0, 1)
        size_bytes = located.status.size_bytes
        end = size_bytes if length is None else min(size_bytes, start + length)
        if start >= end:
            return with_fields(located, chunks=())
        chunk_map = ChunkMap(self._masters, located)
        index, stop = chunk_map.place(start)[0], chunk_map.place(end - 1)[0] + 1
        if (index, stop) == (0, 1):
            return located
        chunks: list[LocatedChunk] = []
        while index < stop:
            batch = self._locate(path, index, min(_LOCATE_COUNT, stop - index)).chunks
            if not batch:
                break
            chunks.extend(batch)
            index += len(batch)
        return with_fields(located, chunks=tuple(chunks))

    def scrub_times(self, located: Located) -> ScrubTimes:
        """When each replica was last read whole by its server, and found sound."""
        return scrub_times(self._shared.pool, located.chunks)

    def report(self, *, stale_ok: bool = False) -> ClusterReport:
        """``stale_ok``: as any master knows it, without what only a leader can know."""
        return self._masters.call(GetClusterReport(stale_ok=stale_ok))

    def open_reader(self, path: str) -> FileReader:
        """Raises ``FileMissing`` or ``IsDirectory``; learns the first chunks' locations at once."""
        chunk_map = ChunkMap(self._masters, self._locate(path, 0, FIRST_BATCH_COUNT))
        replicas = ReplicaReader(
            chunk_map,
            masters=self._masters,
            pool=self._shared.pool,
            suspects=self._shared.suspects,
            lenders=self._shared.lenders,
            hedging=self._shared.hedging,
            timeout_ms=self._config.timeout_ms,
        )
        return FileReader(chunk_map, replicas)

    def read_buffer(self, path: str, offset: int, length: int) -> memoryview:
        """A range of a file, not copied if it lies on this machine: ``FileReader.read_buffer``."""
        with self.open_reader(path) as reader:
            return reader.read_buffer(offset, length)

    def open_writer(
        self, path: str, *, exclusive: bool = False, replication: int | None = None
    ) -> FileWriter:
        """Begin a file that will appear at ``path`` when the writer is closed.

        It replaces a file that stands there then, unless ``exclusive``, which refuses now and at
        close with ``FileExists``. ``replication`` None means the cluster's default.
        """
        return self._shared.new_files.open_writer(path, exclusive, replication)

    def write_file(
        self,
        path: str,
        data: Buffer,
        *,
        exclusive: bool = False,
        replication: int | None = None,
    ) -> FileStatus:
        """Make a whole file at once; see ``open_writer``. A small one costs less in this way."""
        size_bytes = memoryview(data).nbytes
        if not size_bytes:
            return self._masters.change(
                CreateEmptyFile(path=path, exclusive=exclusive, replication=replication)
            )
        if size_bytes <= _SMALL_BYTES_MAX:
            return self._shared.new_files.write_small(
                path, data, exclusive=exclusive, replication=replication
            )
        with self.open_writer(path, exclusive=exclusive, replication=replication) as writer:
            writer.write(data)
            return writer.close()

    def open_appender(self, path: str, *, create: bool = True) -> Appender:
        """Append records to a file, exactly once each, beside any number of other appenders.

        The file is made if it is not there, unless ``create`` is off: then ``FileMissing``.
        """
        while True:
            try:
                located = self._masters.call(Locate(path=path, count=1))
                break
            except FileMissing:
                if not create:
                    raise
                with suppress(FileExists):
                    self.write_file(path, b"", exclusive=True)
        if located.status.kind is EntryKind.DIRECTORY:
            raise IsDirectory(f"{path}: is a directory; name a file to append to")
        return Appender(
            path,
            located.status.file_id,
            located.chunk_bytes,
            pool=self._shared.pool,
            masters=self._masters,
            leases=self._shared.leases,
            timeout_ms=self._config.timeout_ms,
        )

    def open_for_update(self, path: str, *, refuse_conflicts: bool = False) -> UpdatableFile:
        """Write into a file at any offset, and truncate it. Raises ``FileMissing``.

        With ``refuse_conflicts`` a flush raises ``PreconditionFailed``, and changes nothing, if
        somebody else has changed a chunk meanwhile that it would change.
        """
        return UpdatableFile(
            path,
            self.locations(path),
            refuse_conflicts=refuse_conflicts,
            pool=self._shared.pool,
            masters=self._masters,
            leases=self._shared.leases,
            locate=self.locations,
            open_reader=self.open_reader,
            timeout_ms=self._config.timeout_ms,
        )

    def append(self, path: str, record: Buffer) -> int:
        """Append one record; its offset. See ``open_appender``, which is faster for more."""
        with self.open_appender(path) as appender:
            return appender.append(record)

    def _locate(self, path: str, first_index: int, count: int) -> Located:
        request = Locate(path=path, first_index=first_index, count=count)
        located = self._masters.call(request)
        if located.status.kind is EntryKind.DIRECTORY:
            raise IsDirectory(f"{path}: is a directory; name a file")
        if located.status.is_open:
            located = with_open_chunk(self._masters, self._shared.pool, located)
        return located

    def _pages(self, request: ListDirectory | Find) -> Iterator[FileStatus]:
        more = True
        while more:
            listing = self._masters.call(request)
            yield from listing.entries
            more = listing.more
            if more:
                request = with_fields(request, start_after=listing.entries[-1].path)
