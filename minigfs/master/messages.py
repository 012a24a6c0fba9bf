"""Requests the master answers, with their replies. Tags are the protocol: they never change.

Paths are absolute, ``/``-separated, without ``.``, ``..``, empty parts or a trailing slash; ``/``
is the root. Offsets and lengths are bytes, times are milliseconds since the epoch.

The leader answers; another master refuses with ``NotLeader``. A read is linearizable, unless it
says ``stale_ok``: then any master answers from what it has applied so far (GFS section 5.1.3,
shadow masters).
"""

from enum import StrEnum
from typing import Generic

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId, Origin, SessionId
from minigfs.transport.messages import Empty, Message, ReplyT, Request

__all__ = [
    "HOLD_MS",
    "AllocateChunks",
    "Allocated",
    "Change",
    "ChunkserverReport",
    "ClusterReport",
    "CreateEmptyFile",
    "CreateFile",
    "Created",
    "DiscardFile",
    "EntryKind",
    "FileStatus",
    "Find",
    "GetClusterReport",
    "HoldWriters",
    "ListDirectory",
    "Listing",
    "Locate",
    "Located",
    "LocatedChunk",
    "MakeDirectory",
    "MasterReport",
    "OpenSession",
    "PrepareWrite",
    "PublishFile",
    "Remove",
    "Removed",
    "Rename",
    "RenewWriters",
    "SPARE_USE_MS",
    "RepairReport",
    "Replica",
    "ReportDamage",
    "SealedChunk",
    "SessionOpened",
    "SetDecommission",
    "StartRebalance",
    "Stat",
    "WriteTerms",
]


SPARE_USE_MS = 20_000  # of the lease of 60 s: a writer that begins late still has time
HOLD_MS = 25_000  # a call of a process that writes waits so long, and is asked again


class Change(Request[ReplyT], Generic[ReplyT], frozen=True, kw_only=True):
    """Base of requests that change the tree. With an ``origin`` it is executed once and every
    repetition gets the first reply; without one, each copy that arrives is executed."""

    origin: Origin | None = None


class SessionOpened(Message, frozen=True):
    session_id: SessionId


class OpenSession(Request[SessionOpened], frozen=True, tag="session.open"):
    """Begin a session, for the origins of changes. Repeated, it opens another."""


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"


class FileStatus(Message, frozen=True):
    path: str
    file_id: FileId
    kind: EntryKind
    size_bytes: int  # 0 for a directory
    created_ms: int
    modified_ms: int
    replication: int  # the goal; 0 for a directory
    chunk_count: int
    digest: str  # hex xxh3-64 over the chunks' digests, in order; "" for a directory, or while open
    is_open: bool = False  # for appending: what its last chunk holds is not in the size yet


class Stat(Request[FileStatus], frozen=True, tag="fs.stat"):
    path: str
    stale_ok: bool = False


class Listing(Message, frozen=True):
    entries: tuple[FileStatus, ...]  # sorted by path, compared as bytes
    more: bool  # ask again with start_after = the last path


class ListDirectory(Request[Listing], frozen=True, tag="fs.list"):
    """The entries right below a directory; of a file, the file itself."""

    path: str
    start_after: str = ""
    limit: int = 4_000
    stale_ok: bool = False


class Find(Request[Listing], frozen=True, tag="fs.find"):
    """Everything below a directory, at any depth; of a file, the file itself."""

    path: str
    start_after: str = ""
    limit: int = 4_000
    stale_ok: bool = False


class Replica(Message, frozen=True):
    chunkserver_id: ChunkserverId
    address: str
    host: str
    lending_address: str = ""  # Unix socket where it lends files to its machine's processes


class LocatedChunk(Message, frozen=True):
    handle: ChunkHandle
    version: ChunkVersion
    index: int  # of the chunk in its file, from 0
    length_bytes: int  # 0 until the file is published
    digest: int  # xxh3-64 over the block sums; 0 until the file is published
    replicas: tuple[Replica, ...]  # on live servers only; may be empty for a moment after a restart
    is_open: bool = False  # for appending: the length is its primary's to say, the first replica
    gone_from: tuple[str, ...] = ()  # all of its servers, if they are there and none has it


class Located(Message, frozen=True):
    status: FileStatus
    chunk_bytes: int
    chunks: tuple[LocatedChunk, ...]
    starts: tuple[int, ...] = ()  # of a ragged file: where each of its chunks starts in it

    def start_bytes(self, index: int) -> int:
        """Where a chunk starts in the file."""
        return self.starts[index] if self.starts else index * self.chunk_bytes


class Locate(Request[Located], frozen=True, tag="fs.locate"):
    """Status of a file and the chunks ``first_index`` to ``first_index + count``, clipped.

    With a ``file_id`` it is that file, wherever it lies now, and the path is only what the status
    calls it: a reader goes on with the file it opened when the path means another, or nothing.
    """

    path: str
    first_index: int = 0
    count: int = 64
    stale_ok: bool = False
    file_id: FileId | None = None


class MakeDirectory(Change[Empty], frozen=True, tag="fs.mkdir"):
    path: str
    parents: bool = False
    exist_ok: bool = False


class Created(Message, frozen=True):
    file_id: FileId
    chunk_bytes: int
    replication: int
    chunks: tuple[LocatedChunk, ...] = ()


class WriteTerms(Message, frozen=True):
    chunk_bytes: int
    replication: int  # the goal of a file at this path
    spare: Created | None = None


class PrepareWrite(Request[WriteTerms], frozen=True, tag="fs.prepare"):
    """Refuse what creating the file would be refused for, as far as this leader knows. Nothing
    changes; what counts is the moment when the file is published.

    A process that names itself as ``holder`` gets a temporary file with one chunk as well, if the
    leader has one to spare, and may use it within ``SPARE_USE_MS`` for any path with the same
    number of replicas: as one that it has created.
    """

    path: str
    exclusive: bool = False
    replication: int | None = None  # as the policies above the path say
    holder: str = ""


class CreateFile(Change[Created], frozen=True, tag="fs.create"):
    """Open a temporary inode for ``path``, with its first ``chunk_count`` chunks allocated; nothing
    is visible before ``PublishFile``.

    Missing parents are made at publish. The inode is discarded when its writer has not been heard
    of (any request naming it) for 60 s, or some seconds after the connection of its ``holder``
    ended (see ``HoldWriters``).
    """

    path: str
    exclusive: bool = False  # refuse now (and again at publish) if the path exists
    replication: int | None = None  # as the policies above the path say
    chunk_count: int = 0
    holder: str = ""  # which process writes it


class CreateEmptyFile(Change[FileStatus], frozen=True, tag="fs.create-empty"):
    """Publish a file without bytes, by one change."""

    path: str
    exclusive: bool = False
    replication: int | None = None


class Allocated(Message, frozen=True):
    chunks: tuple[LocatedChunk, ...]


class AllocateChunks(Change[Allocated], frozen=True, tag="fs.allocate"):
    """Chunks ``first_index ...`` of a temporary inode, each with the servers to write through.

    Asking again for an index abandons the chunk given before: how a writer goes on when a server
    in its chain died (``excluded`` names it).
    """

    file_id: FileId
    first_index: int
    count: int
    excluded: tuple[ChunkserverId, ...] = ()


class SealedChunk(Message, frozen=True):
    handle: ChunkHandle
    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]  # that acknowledged the sealed chunk as durable


class PublishFile(Change[FileStatus], frozen=True, tag="fs.publish"):
    """Give the finished inode its path by one atomic change, replacing a file that stands there.

    Publishing the same ``file_id`` again answers with the status: a retry is safe.
    """

    file_id: FileId
    path: str
    chunks: tuple[SealedChunk, ...]
    exclusive: bool = False


class DiscardFile(Change[Empty], frozen=True, tag="fs.discard"):
    """Forget a temporary inode; unknown or published ids are no error."""

    file_id: FileId


class RenewWriters(Request[Empty], frozen=True, tag="fs.renew"):
    file_ids: tuple[FileId, ...]
    holder: str = ""


class HoldWriters(Request[Empty], frozen=True, tag="fs.hold-writers"):
    """Kept waiting by a process with open writers, for its connection to tell when it ends.

    Answered after ``HOLD_MS``, to be asked again. ``holder`` is a name the process made up.
    """

    holder: str


class Rename(Change[Empty], frozen=True, tag="fs.rename"):
    """Move a file or a whole directory by one atomic change.

    ``replace`` lets a file take the place of a file; a directory never replaces anything. Parents
    of the target are not made.
    """

    source: str
    target: str
    replace: bool = False


class Removed(Message, frozen=True):
    file_count: int
    directory_count: int


class Remove(Change[Removed], frozen=True, tag="fs.remove"):
    """Move something to the trash, where it is kept as long as the policies above it say; ``now``,
    or of what lies in the trash: for good."""

    path: str
    recursive: bool = False
    now: bool = False


class ReportDamage(Request[Empty], frozen=True, tag="fs.damage"):
    """A reader met wrong bytes, or none, at a replica: it is offered to nobody from now on."""

    handle: ChunkHandle
    chunkserver_id: ChunkserverId
    reason: str


class MasterReport(Message, frozen=True):
    id: str
    role: str  # "leader", "follower", "candidate", "learner", "silent"
    term: int
    pid: int
    address: str
    dir: str
    commit_index: int


class ChunkserverReport(Message, frozen=True):
    id: ChunkserverId
    pid: int
    address: str
    dir: str
    host: str
    rack: str
    chunks: int
    bytes: int
    capacity_bytes: int
    free_bytes: int
    alive: bool
    last_heard_ms_ago: int
    damaged: int = 0  # chunks with wrong bytes that are not replaced yet
    last_scrubbed_ms: int = 0  # since the epoch: all of it was read since then; 0: never yet
    scrub_bound_ms: int = 0  # every byte is read again within this time
    duty: str = "serving"  # "full": takes no data; "leaving", then "empty": decommissioned
    chunks_left: int = 0  # of a server that is leaving: what is not safe elsewhere yet


class RepairReport(Message, frozen=True):
    """What is being done by itself for chunks with too few replicas, and to even out disks."""

    waiting: int  # chunks that need a replica, with no copy under way
    copying: int
    missing_bytes: int  # of replicas that are to be made
    bytes_per_second: int  # lately; 0: nothing was copied
    remaining_ms: int | None  # None: not known
    rebalancing: bool  # until the servers are nearly alike
    single_replicas: int = 0  # chunks with one live replica that should have more


class TrashReport(Message, frozen=True):
    """What was removed and can still be brought back."""

    things: int  # files and directories that were removed, each with what is below it
    files: int
    directories: int  # below those that were removed, and they
    next_expiry_ms: int | None  # since the epoch: when the first of it goes; None: it is empty


class ClusterReport(Message, frozen=True):
    cluster_id: str
    chunk_bytes: int
    replication: int
    health: str  # "OK", "DEGRADED", "DATA_AT_RISK", "LOST"; clients add "NO_QUORUM"
    reasons: tuple[str, ...]
    masters: tuple[MasterReport, ...]
    elections: int  # since the cluster was made, the first one included: the highest term
    chunkservers: tuple[ChunkserverReport, ...]
    file_count: int
    directory_count: int
    chunk_count: int
    notes: tuple[str, ...] = ()  # what is under way; no reason to worry
    repair: RepairReport | None = None  # a master that does not lead has none
    trash: TrashReport | None = None


class SetDecommission(Request[ChunkserverReport], frozen=True, tag="cluster.decommission"):
    """Empty a chunkserver, or use it like the others again. Twice is no error.

    Refused if too few others would be left for the replicas that new files ask for, unless
    ``force``: then chunks move as far as they can.
    """

    chunkserver_id: ChunkserverId
    decommission: bool
    force: bool = False


class StartRebalance(Request[Empty], frozen=True, tag="cluster.rebalance"):
    """Move replicas until the chunkservers are filled nearly alike."""


class GetClusterReport(Request[ClusterReport], frozen=True, tag="cluster.report"):
    """What ``status`` shows of the storage side. A follower knows no chunkservers."""

    stale_ok: bool = False
