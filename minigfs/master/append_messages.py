"""Requests about published files that change: of clients to the master, of the master to
chunkservers. Tags are the protocol: they never change.

A client asks where to append, and asks again, naming the chunk that took its record no more. The
master then seals that chunk, which ends for ever what may be added to it, and says what became of
it: whoever does not know whether a record got in can ask any of its replicas, once and for all.
"""

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.messages import Change, FileStatus, Replica, SealedChunk
from minigfs.transport.messages import Empty, Message, Request

__all__ = [
    "AppendTarget",
    "ChunkMember",
    "EndAppend",
    "FinalizeChunk",
    "FreezeChunk",
    "FrozenReplica",
    "GetAppendTarget",
    "InstallChunk",
    "PatchFile",
    "PatchedChunk",
    "SealFile",
    "SettledChunk",
]


class SettledChunk(Message, frozen=True):
    """What became of a chunk that was open; of length 0, it was given up and holds nothing."""

    handle: ChunkHandle
    version: ChunkVersion
    start_bytes: int  # in its file
    length_bytes: int
    replicas: tuple[Replica, ...]
    is_known: bool = True  # False: it is gone, and nobody can tell any more what it held


class AppendTarget(Message, frozen=True):
    """Where a file grows now."""

    file_id: FileId
    path: str
    chunk_bytes: int
    handle: ChunkHandle
    version: ChunkVersion
    start_bytes: int  # of the chunk in its file
    replicas: tuple[Replica, ...]  # the primary first, then its chain
    before: SettledChunk | None = None  # the chunk that was named


class GetAppendTarget(Request[AppendTarget], frozen=True, tag="fs.append"):
    """Of the file at ``path``, or of ``file_id`` if that is not 0. Bears repetition.

    ``after`` names a chunk that takes no more: the answer is another one, and what became of it.
    ``suspects`` are addresses that did not answer; new chunks are put elsewhere if possible.
    ``holder`` names the process (see ``HoldWriters``).
    """

    appender_id: int
    path: str = ""
    file_id: FileId = FileId(0)
    after: ChunkHandle = ChunkHandle(0)
    suspects: tuple[str, ...] = ()
    holder: str = ""


class EndAppend(Request[FileStatus], frozen=True, tag="fs.append.end"):
    """An appender is done; the file is sealed if it was the last one. Bears repetition."""

    appender_id: int
    file_id: FileId


class SealFile(Request[FileStatus], frozen=True, tag="fs.seal"):
    """Seal what is open of a file. Appenders go on in a fresh chunk. Bears repetition."""

    path: str


class PatchedChunk(Message, frozen=True):
    index: int
    expected: ChunkHandle  # what stands there; 0 behind the last
    chunk: SealedChunk


class PatchFile(Change[FileStatus], frozen=True, tag="fs.patch"):
    """Let chunks that were written into a temporary file take the places of a file's, all at once;
    or cut it after ``kept_count`` chunks.

    ``WriterFenced`` if the file has changed since it was looked at (``chunk_count``, and what is
    expected at each place), or is open for appending: look again. The temporary file is gone
    afterwards.
    """

    file_id: FileId
    temporary_id: FileId | None
    chunk_count: int
    kept_count: int
    replaced: tuple[PatchedChunk, ...]


class ChunkMember(Message, frozen=True, array_like=True):
    chunkserver_id: ChunkserverId
    address: str


class InstallChunk(Request[Empty], frozen=True, tag="chunk.install"):
    """Make an empty open replica, durably, and take part in its mutations from now on.

    The first member is the primary. Repeated, it is no error.
    """

    handle: ChunkHandle
    version: ChunkVersion
    file_id: FileId
    index: int
    path_hint: str
    chunk_bytes: int
    members: tuple[ChunkMember, ...]


class FrozenReplica(Message, frozen=True):
    """What a member holds, and will hold until it is told what to keep of it."""

    is_here: bool
    length_bytes: int = 0
    committed_bytes: int = 0  # it knows that every member has these
    digest: int = 0  # of the first ``FreezeChunk.length_bytes``, if that many were asked about
    is_doubtful: bool = False  # it may have had more, or other bytes: its disk does not say


class FreezeChunk(Request[FrozenReplica], frozen=True, tag="chunk.freeze"):
    """Accept no mutation of this version any more; also after a restart. Bears repetition.

    With ``drain_ms``, a primary first ends the mutation that is under way, if it can in that time.
    """

    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int = 0
    drain_ms: int = 0


class FinalizeChunk(Request[Empty], frozen=True, tag="chunk.finalize"):
    """The log says that the open chunk is sealed: keep this much of it, as this version."""

    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int
