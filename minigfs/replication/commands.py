"""What the data of a COMMAND entry is: a command of one machine, when it was proposed, by whom.

Several machines live on one log, so an entry names its machine. ``now_ms`` is the clock of the
leader that proposed it: the only time the replicated state knows (see ``sessions``). ``origin``
tells a retry from a new request; commands the masters propose by themselves have none.

Two machines are part of replication itself. Their commands are here too: clients open and close
sessions, and members say where they listen. All of it is the format of the log: fields are added
at the end, with a default, and tags never change their meaning.
"""

from typing import TypeAlias

import msgspec

from minigfs.errors import CorruptLog
from minigfs.ids import Origin, SessionId
from minigfs.raft import NodeId

__all__ = [
    "MEMBERS_MACHINE",
    "SESSIONS_MACHINE",
    "CloseSession",
    "LoggedCommand",
    "MemberAddress",
    "OpenSession",
    "SessionCommand",
    "decode_logged_command",
    "decode_member_command",
    "decode_session_command",
    "decode_session_id",
    "encode_logged_command",
    "encode_member_command",
    "encode_session_command",
    "encode_session_id",
]

SESSIONS_MACHINE = "sessions"  # their names in the log
MEMBERS_MACHINE = "members"


class LoggedCommand(msgspec.Struct, frozen=True, array_like=True, gc=False):
    machine: str
    now_ms: int
    command: bytes
    origin: Origin | None = None


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A client begins; the reply is its session's id (``decode_session_id``)."""


class CloseSession(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A client ends in order; one that just vanishes is forgotten an hour later."""

    session_id: SessionId


SessionCommand: TypeAlias = OpenSession | CloseSession


class MemberAddress(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Where a member listens from now on."""

    member: NodeId
    address: str


_encoder = msgspec.msgpack.Encoder()
_logged_decoder = msgspec.msgpack.Decoder(LoggedCommand)
_session_decoder: msgspec.msgpack.Decoder[SessionCommand] = msgspec.msgpack.Decoder(SessionCommand)
_member_decoder = msgspec.msgpack.Decoder(MemberAddress)
_session_id_decoder = msgspec.msgpack.Decoder(int)


def encode_logged_command(logged: LoggedCommand) -> bytes:
    return _encoder.encode(logged)


def decode_logged_command(data: bytes, index: int) -> LoggedCommand:
    """The command of the entry at ``index``; ``CorruptLog`` if it is none."""
    try:
        return _logged_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptLog(
            f"entry {index} of the log is no command ({error}): a newer release wrote it? Start "
            "this master with that release"
        ) from error


def encode_session_command(command: SessionCommand) -> bytes:
    return _encoder.encode(command)


def decode_session_command(command: bytes) -> SessionCommand:
    return _session_decoder.decode(command)


def encode_member_command(command: MemberAddress) -> bytes:
    return _encoder.encode(command)


def decode_member_command(command: bytes) -> MemberAddress:
    return _member_decoder.decode(command)


def encode_session_id(session_id: SessionId) -> bytes:
    return _encoder.encode(session_id)


def decode_session_id(reply: bytes) -> SessionId:
    """What ``OpenSession`` was answered."""
    return SessionId(_session_id_decoder.decode(reply))
