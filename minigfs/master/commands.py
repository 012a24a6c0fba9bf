"""What stands in the log: every change of the file system, as a value, and what came of it.

A command carries everything that its outcome depends on besides the state: the time, stamped by
the master that proposed it, and the servers it chose. Handles and file ids come from counters in
the state. So the same commands give the same state on every machine, in every release; the tags
and the order of the fields are the format of the log and only ever grow at their ends.
"""

from typing import TypeAlias

import msgspec

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.server_place import ServerPlace

__all__ = [
    "AdjustReplicas",
    "AllocateChunks",
    "AppendChunk",
    "BeginTenure",
    "Change",
    "ChunkAppended",
    "ChunksAllocated",
    "Clone",
    "CloneBegun",
    "CloneStep",
    "Command",
    "CommandReply",
    "Condition",
    "Configure",
    "CreateEmptyFile",
    "CreateFile",
    "CreateSpareFiles",
    "DiscardFiles",
    "Done",
    "EntriesRemoved",
    "ExpireTrash",
    "FileCreated",
    "FilePublished",
    "ForgetGarbage",
    "MakeDirectory",
    "PatchFile",
    "PlaceServers",
    "PublishFile",
    "Reap",
    "Refused",
    "Remove",
    "Rename",
    "ReplicaChange",
    "SealChunk",
    "SealedReplicas",
    "SetDraining",
    "SetPolicy",
    "SetReplication",
    "SpareFilesCreated",
    "TakeToken",
    "TokenTaken",
    "Transact",
    "Transacted",
    "Undelete",
    "decode_command",
    "decode_reply",
    "encode_command",
    "encode_reply",
]


class _Command(msgspec.Struct, frozen=True, array_like=True):
    now_ms: int


class Configure(_Command, frozen=True, array_like=True, tag=1):
    """The first entry of every log: what is fixed for the life of the cluster."""

    config: FileSystemConfig


class MakeDirectory(_Command, frozen=True, array_like=True, tag=2):
    path: str
    parents: bool
    exist_ok: bool


class CreateFile(_Command, frozen=True, array_like=True, tag=3):
    path: str
    exclusive: bool
    replication: int  # 0: as the policies above the path say, or else the cluster
    replica_sets: tuple[tuple[ChunkserverId, ...], ...] = ()  # of its first chunks, one each


class CreateEmptyFile(_Command, frozen=True, array_like=True, tag=41):
    """Publish a file without bytes, which nobody needs to write."""

    path: str
    exclusive: bool
    replication: int  # as in ``CreateFile``


class CreateSpareFiles(_Command, frozen=True, array_like=True, tag=42):
    """Temporary files for writers to come, each with one chunk and no path yet."""

    replication: int
    replica_sets: tuple[tuple[ChunkserverId, ...], ...]  # one for each file


class AllocateChunks(_Command, frozen=True, array_like=True, tag=4):
    """One chunk for each of ``replica_sets``, for the places ``first_index ...`` of the file."""

    file_id: FileId
    first_index: int
    replica_sets: tuple[tuple[ChunkserverId, ...], ...]


class SealedReplicas(msgspec.Struct, frozen=True, array_like=True):
    handle: ChunkHandle
    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]


class PublishFile(_Command, frozen=True, array_like=True, tag=5):
    file_id: FileId
    path: str
    chunks: tuple[SealedReplicas, ...]
    exclusive: bool


class DiscardFiles(_Command, frozen=True, array_like=True, tag=6):
    """Forget temporary inodes; ids that are none are passed over."""

    file_ids: tuple[FileId, ...]


class Rename(_Command, frozen=True, array_like=True, tag=7):
    source: str
    target: str
    replace: bool


class Remove(_Command, frozen=True, array_like=True, tag=8):
    path: str
    recursive: bool
    keep_ms: int = (
        0  # in the trash, where no policy says otherwise; 0: not at all, whatever they say
    )


class ForgetGarbage(_Command, frozen=True, array_like=True, tag=9):
    """No live server holds these handles any more; those that are no garbage are passed over."""

    handles: tuple[ChunkHandle, ...]


class Reap(_Command, frozen=True, array_like=True, tag=10):
    """Take apart some more of what is condemned, if anything is."""


class BeginTenure(_Command, frozen=True, array_like=True, tag=40):
    """The first entry of a term of leadership (see ``history``)."""

    term: int
    first_index: int  # above all that was committed before
    nonce: int


class ReplicaChange(msgspec.Struct, frozen=True, array_like=True):
    handle: ChunkHandle
    version: ChunkVersion
    add: tuple[ChunkserverId, ...]
    remove: tuple[ChunkserverId, ...]


class AdjustReplicas(_Command, frozen=True, array_like=True, tag=30):
    """Servers that have a sound replica now, and others that are to have none any more.

    Chunks that are gone, still written or of another version by now are passed over, and a change
    that would leave a chunk without any replica.
    """

    changes: tuple[ReplicaChange, ...]


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction expects at a path: nothing (0), anything (None), or one inode as it was
    when it was last seen."""

    path: str
    file_id: FileId | None
    modified_ms: int = 0
    size_bytes: int = 0


class SetPolicy(_Command, frozen=True, array_like=True, tag=24):
    """Of a directory: None leaves what is set, -1 unsets it."""

    path: str
    replication: int | None
    retention_ms: int | None


Change: TypeAlias = MakeDirectory | PublishFile | Rename | Remove | SetPolicy  # in a transaction


class Transact(_Command, frozen=True, array_like=True, tag=20):
    """Changes one after the other, all or none; ``fence``: a directory and a token taken of it."""

    conditions: tuple[Condition, ...]
    changes: tuple[Change, ...]
    fence: tuple[str, int] | None = None


class TakeToken(_Command, frozen=True, array_like=True, tag=21):
    """Fence whoever has an earlier token of a directory."""

    path: str


class Undelete(_Command, frozen=True, array_like=True, tag=22):
    """Bring back what was removed from ``path`` last, to ``target``."""

    path: str
    target: str


class ExpireTrash(_Command, frozen=True, array_like=True, tag=23):
    """Give up the first ``count_max`` things of the trash, if they are kept no longer than this."""

    kept_until_ms: int
    count_max: int


class SetReplication(_Command, frozen=True, array_like=True, tag=25):
    """The goal of files, and of their chunks from ``first_index`` on; see ``policy``."""

    paths: tuple[str, ...]
    replication: int
    first_index: int = 0


class Clone(_Command, frozen=True, array_like=True, tag=26):
    """Begin a clone, and end it if it is a small one."""

    source: str
    target: str
    replace: bool


class CloneStep(_Command, frozen=True, array_like=True, tag=27):
    """Do some more of the clones that are under way, if any are."""


class AppendChunk(_Command, frozen=True, array_like=True, tag=60):
    """Give a published file one more chunk, open for appending: its first version, its replica set
    and, as the first of it, the primary. Refused unless the file ends with ``after`` (0: is empty),
    and that chunk is sealed."""

    file_id: FileId
    after: ChunkHandle
    replicas: tuple[ChunkserverId, ...]


class SealChunk(_Command, frozen=True, array_like=True, tag=61):
    """End the life of an open chunk of ``version``: the next version, the replicas that hold these
    bytes, and no primary any more. With no bytes, the file gives the chunk up."""

    file_id: FileId
    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int
    replicas: tuple[ChunkserverId, ...]


class SetDraining(_Command, frozen=True, array_like=True, tag=31):
    """A chunkserver is to be emptied, or is one like the others again."""

    chunkserver_id: ChunkserverId
    is_draining: bool


class PlaceServers(_Command, frozen=True, array_like=True, tag=32):
    """Where chunkservers are found, for masters that do not hear their heartbeats."""

    places: tuple[ServerPlace, ...]


class PatchFile(_Command, frozen=True, array_like=True, tag=62):
    """Let chunks of a temporary file take the places of some of a published file's.

    Refused unless the published file has ``chunk_count`` chunks, none of them open, and at each
    place of ``replaced`` (in order) the chunk that is expected there: 0 behind the last. Of the
    chunks that were there the first ``kept_count`` stay, but for those replaced. The temporary file
    is gone afterwards.
    """

    file_id: FileId
    temporary_id: FileId | None
    chunk_count: int
    kept_count: int
    replaced: tuple[tuple[int, ChunkHandle, SealedReplicas], ...]


Command: TypeAlias = (
    Configure
    | MakeDirectory
    | CreateFile
    | CreateEmptyFile
    | CreateSpareFiles
    | AllocateChunks
    | PublishFile
    | DiscardFiles
    | Rename
    | Remove
    | ForgetGarbage
    | Reap
    | BeginTenure
    | AdjustReplicas
    | Transact
    | TakeToken
    | Undelete
    | ExpireTrash
    | SetPolicy
    | SetReplication
    | Clone
    | CloneStep
    | AppendChunk
    | SealChunk
    | PatchFile
    | SetDraining
    | PlaceServers
)


class Done(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The change was made, or there was nothing to change."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Nothing changed; the error, as it crosses the wire."""

    code: str
    message: str


class FileCreated(msgspec.Struct, frozen=True, array_like=True, tag=2):
    file_id: FileId
    replication: int = 0  # 0: a reply from before there were policies
    handles: tuple[ChunkHandle, ...] = ()  # of its first chunks


class SpareFilesCreated(msgspec.Struct, frozen=True, array_like=True, tag=6):
    files: tuple[tuple[FileId, ChunkHandle], ...]


class ChunksAllocated(msgspec.Struct, frozen=True, array_like=True, tag=3):
    handles: tuple[ChunkHandle, ...]


class FilePublished(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The file stands at ``path``: the one asked for, or a later one if this was a retry."""

    path: str
    size_bytes: int
    created_ms: int
    modified_ms: int
    replication: int
    chunk_count: int
    digest: str
    file_id: FileId = FileId(0)  # 0: a reply from before empty files were created by one change


class EntriesRemoved(msgspec.Struct, frozen=True, array_like=True, tag=5):
    file_count: int
    directory_count: int


class ChunkAppended(msgspec.Struct, frozen=True, array_like=True, tag=60):
    handle: ChunkHandle


class Transacted(msgspec.Struct, frozen=True, array_like=True, tag=20):
    published: tuple[FilePublished, ...]  # of the changes that are one, in order


class TokenTaken(msgspec.Struct, frozen=True, array_like=True, tag=21):
    token: int


class CloneBegun(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """``copy_id`` is the new inode's. It has its place already, or will be given it."""

    copy_id: FileId
    is_done: bool


CommandReply: TypeAlias = (
    Done
    | Refused
    | FileCreated
    | SpareFilesCreated
    | ChunksAllocated
    | FilePublished
    | EntriesRemoved
    | Transacted
    | TokenTaken
    | CloneBegun
    | ChunkAppended
)

_encoder = msgspec.msgpack.Encoder()
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_reply_decoder: msgspec.msgpack.Decoder[CommandReply] = msgspec.msgpack.Decoder(CommandReply)


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def decode_command(encoded: bytes) -> Command:
    return _command_decoder.decode(encoded)


def encode_reply(reply: CommandReply) -> bytes:
    return _encoder.encode(reply)


def decode_reply(encoded: bytes) -> CommandReply:
    return _reply_decoder.decode(encoded)
