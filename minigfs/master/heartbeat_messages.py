"""What a chunkserver tells the leading master twice a second, and is told in return.

Tags are the protocol: they never change. Units are as in `minigfs.master.messages`.
"""

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.transport.messages import Message, Request

__all__ = [
    "AheadReplica",
    "CatalogueBatch",
    "CataloguedFile",
    "CopyOrder",
    "CopyReport",
    "Heartbeat",
    "HeartbeatReply",
    "HistoryPosition",
    "ReplicaReport",
    "SealOrder",
]


class ReplicaReport(Message, frozen=True, array_like=True, gc=False):
    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int = 0  # of the sums it was sealed with; 0: not known


class HistoryPosition(Message, frozen=True, array_like=True):
    """A place in one history of the file system (see ``minigfs.master.history``)."""

    term: int
    index: int
    nonce: int  # the term's number


class AheadReplica(Message, frozen=True, array_like=True):
    """A replica of a version that the masters never gave."""

    handle: ChunkHandle
    version: ChunkVersion


class SealOrder(Message, frozen=True, array_like=True):
    """An open replica's chunk was sealed: keep this much of it, as this version."""

    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int


class CopyOrder(Message, frozen=True):
    """Have a sound replica of a sealed chunk: see whether yours is one, else make one of what the
    sources have. Repeated with every heartbeat until it is reported; one that is repeated no more
    is withdrawn."""

    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int  # xxh3-64 over the block sums, from the log
    sources: tuple[str, ...]  # addresses; those that are known as damaged come last
    bytes_per_second: int  # for all copies of the server together


class CopyReport(Message, frozen=True):
    """What became of a copy order: with an empty ``failure``, a sound replica is durable here."""

    handle: ChunkHandle
    version: ChunkVersion
    failure: str = ""
    damaged_sources: tuple[str, ...] = ()  # addresses of those that had wrong bytes, or none


class CataloguedFile(Message, frozen=True, array_like=True):
    """What ``rescue`` must know of a published file."""

    file_id: FileId
    path: str
    size_bytes: int
    chunk_count: int
    digest: str
    modified_ms: int
    # Its chunks, in order: first handle and how many follow it; a clone has those of another file.
    # None of a file in more pieces than are worth telling: its chunk files know their places.
    chunk_runs: tuple[tuple[ChunkHandle, int], ...] = ()


class CatalogueBatch(Message, frozen=True):
    """Files that the chunkserver holds chunks of; replaces what it knew of them."""

    stamp: int  # later batches have higher ones, also another leader's
    files: tuple[CataloguedFile, ...]
    forget_below: int = 0  # files last told of with a lower stamp are gone


class HeartbeatReply(Message, frozen=True):
    send_full_report: bool  # the master does not know this server's chunks (yet, or any more)
    delete: tuple[ChunkHandle, ...]
    masters: tuple[str, ...] = ()  # where all of them listen now
    delete_at_once: tuple[ChunkHandle, ...] = ()  # of ``delete``: no file ever had them
    restore: tuple[ChunkHandle, ...] = ()  # of the heartbeat's ``trashed``
    position: HistoryPosition | None = None  # the newest of this master
    confirms: HistoryPosition | None = None  # the heartbeat's ``seen``, if it is in its history
    copy: tuple[CopyOrder, ...] = ()
    catalogue: CatalogueBatch | None = None
    seal: tuple[SealOrder, ...] = ()
    set_aside: tuple[AheadReplica, ...] = ()  # if they are in these versions, or later ones


class Heartbeat(Request[HeartbeatReply], frozen=True, tag="cs.heartbeat"):
    """Sent twice a second. ``chunks`` are all sealed chunks in a full report, else those new since
    the last one; ``gone`` are the handles deleted or found damaged since.

    A full report comes in parts, from 0 on, of which all but the last say that ``more`` follow;
    ``report`` counts the full reports that this process has begun.
    """

    chunkserver_id: ChunkserverId
    cluster_id: str
    address: str
    host: str
    rack: str
    pid: int
    directory: str
    capacity_bytes: int
    free_bytes: int
    chunk_count: int
    stored_bytes: int
    full: bool
    chunks: tuple[ReplicaReport, ...] = ()
    gone: tuple[ChunkHandle, ...] = ()
    report: int = 0
    part: int = 0
    more: bool = False
    damaged: tuple[ChunkHandle, ...] = ()  # here, but not what was written: news of them
    damaged_count: int = 0
    last_scrubbed_ms: int = 0  # all of it was read since then; 0: never yet
    scrub_bound_ms: int = 0  # it is read again within this time
    trashed: tuple[ChunkHandle, ...] = ()  # some of what was deleted and could be restored
    seen: HistoryPosition | None = None  # newest position of a master that this server believed
    catalogue_stamp: int = 0  # of the last batch that was stored
    lending_address: str = ""
    copied: tuple[CopyReport, ...] = ()
    open_chunks: tuple[ReplicaReport, ...] = ()  # for appending; as many as fit, in turns
    set_aside: tuple[AheadReplica, ...] = ()  # that wait for a person; the first of them
    set_aside_count: int = 0
