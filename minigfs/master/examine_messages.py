"""What ``fsck`` and ``scrub`` ask: all that the log says of the chunks of a tree, in pages."""

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.messages import FileStatus
from minigfs.transport.messages import Message, Request

__all__ = [
    "Examine",
    "Examined",
    "ExaminedAside",
    "ExaminedChunk",
    "ExaminedFile",
    "ExaminedServer",
]


class ExaminedServer(Message, frozen=True, array_like=True):
    chunkserver_id: ChunkserverId
    address: str  # "" if the leading master has not heard of it (yet)
    host: str
    alive: bool


class ExaminedChunk(Message, frozen=True, array_like=True):
    index: int  # in its file
    handle: ChunkHandle
    version: ChunkVersion
    replication: int  # the goal
    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]  # all that are meant to have it, alive or not
    is_open: bool = False  # for appending: what it will hold is not in the log yet


class ExaminedAside(Message, frozen=True, array_like=True):
    """A replica of a version that the masters never gave, kept out of use on a server."""

    handle: ChunkHandle
    version: ChunkVersion
    chunkserver_id: ChunkserverId
    address: str
    host: str


class ExaminedFile(Message, frozen=True, array_like=True):
    status: FileStatus
    chunks: tuple[ExaminedChunk, ...]  # may go on in the next page


class Examined(Message, frozen=True):
    files: tuple[ExaminedFile, ...]
    servers: tuple[ExaminedServer, ...]  # that the chunks name
    more: bool  # ask again with the two below
    start_after: str = ""
    first_index: int = 0
    set_aside: tuple[ExaminedAside, ...] = ()  # of these files' chunks


class Examine(Request[Examined], frozen=True, tag="fs.examine"):
    """All files at and below ``path`` whose path comes after ``start_after``, by bytes.

    With a ``first_index``, the file at ``start_after`` goes before them, from that chunk on.
    """

    path: str
    start_after: str = ""
    first_index: int = 0
