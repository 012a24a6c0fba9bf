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

__all__ = [
    "AdjustReplicas",
    "AllocateChunks",
    "BeginTenure",
    "ChunksAllocated",
    "Command",
    "CommandReply",
    "Configure",
    "CreateFile",
    "DiscardFiles",
    "Done",
    "EntriesRemoved",
    "FileCreated",
    "FilePublished",
    "ForgetGarbage",
    "MakeDirectory",
    "PublishFile",
    "Reap",
    "Refused",
    "Remove",
    "Rename",
    "ReplicaChange",
    "SealedReplicas",
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
    replication: int


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


Command: TypeAlias = (
    Configure
    | MakeDirectory
    | CreateFile
    | AllocateChunks
    | PublishFile
    | DiscardFiles
    | Rename
    | Remove
    | ForgetGarbage
    | Reap
    | BeginTenure
    | AdjustReplicas
)


class Done(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The change was made, or there was nothing to change."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Nothing changed; the error, as it crosses the wire."""

    code: str
    message: str


class FileCreated(msgspec.Struct, frozen=True, array_like=True, tag=2):
    file_id: FileId


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


class EntriesRemoved(msgspec.Struct, frozen=True, array_like=True, tag=5):
    file_count: int
    directory_count: int


CommandReply: TypeAlias = (
    Done | Refused | FileCreated | ChunksAllocated | FilePublished | EntriesRemoved
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
