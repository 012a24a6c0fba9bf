"""What members of a group say to each other: Raft's messages, and what its driver adds.

==================== ============================================================================
SnapshotPiece        leader to member: some bytes of a snapshot file, or an offer of it (no bytes)
SnapshotPieceReply   member to leader: how much of that file is here
RemovedNotice        member to a removed one that asks for votes: you are removed, rest
==================== ============================================================================

``InstallSnapshot`` itself never travels: it names a file of the sender. The file goes in pieces
(``snapshot_transfer``), and the receiving driver makes the message when the file is there.

Every frame may be lost, doubled, delayed or overtaken; a frame that is no message raises
``ProtocolError`` and nothing else.
"""

import msgspec

from minigfs.errors import FrameTooLarge, ProtocolError
from minigfs.raft.messages import AnyMessage, InstallSnapshot, Message
from minigfs.raft.records import SnapshotMetadata

__all__ = [
    "PEER_MESSAGE_BYTES_MAX",
    "PeerMessage",
    "RemovedNotice",
    "SnapshotPiece",
    "SnapshotPieceReply",
    "decode_peer_message",
    "encode_peer_message",
]

PEER_MESSAGE_BYTES_MAX = 80 * 1024 * 1024  # the largest record of the log, and its frame


class SnapshotPiece(Message, frozen=True, kw_only=True):
    """``data`` stands at ``offset`` of the sender's snapshot file ``name`` of ``size_bytes``.

    Empty ``data`` is an offer: it asks how much of the file is there already. ``attempt`` counts
    the offers of one transfer; the answer to a piece repeats it.
    """

    metadata: SnapshotMetadata
    name: str
    size_bytes: int
    attempt: int
    offset: int
    data: bytes = b""


class SnapshotPieceReply(Message, frozen=True, kw_only=True):
    """``received_bytes`` of file ``name``, from its start, are written at the receiver."""

    name: str
    attempt: int
    received_bytes: int


class RemovedNotice(Message, frozen=True, kw_only=True):
    """A committed configuration, known to ``source``, has removed ``target`` for ever."""


PeerMessage = AnyMessage | SnapshotPiece | SnapshotPieceReply | RemovedNotice
"""All of them, as one tagged union."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PeerMessage)


def encode_peer_message(message: PeerMessage) -> bytes:
    """The bytes of one frame."""
    assert not isinstance(message, InstallSnapshot), "a snapshot travels in pieces"
    return _encoder.encode(message)


def decode_peer_message(body: bytes | bytearray | memoryview) -> PeerMessage:
    """The message in a frame; raises ``FrameTooLarge`` or ``ProtocolError`` for anything else."""
    if len(body) > PEER_MESSAGE_BYTES_MAX:
        raise FrameTooLarge(
            f"a message of {len(body)} bytes between masters is over {PEER_MESSAGE_BYTES_MAX}"
        )
    try:
        message: PeerMessage = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a master sent what is no message: {error}") from error
    if isinstance(message, InstallSnapshot):
        raise ProtocolError("a master sent a snapshot that is not in pieces: a newer release?")
    return message
