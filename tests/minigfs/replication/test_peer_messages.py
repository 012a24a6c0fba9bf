"""What members say to each other survives the wire, and what is no message is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import FrameTooLarge, ProtocolError
from minigfs.raft import Configuration, Entry, EntryKind, NodeId, Snapshot, SnapshotMetadata
from minigfs.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from minigfs.replication.peer_messages import (
    PEER_MESSAGE_BYTES_MAX,
    PeerMessage,
    RemovedNotice,
    SnapshotPiece,
    SnapshotPieceReply,
    decode_peer_message,
    encode_peer_message,
)

A, B = NodeId("a"), NodeId("b")
METADATA = SnapshotMetadata(
    last_included_index=7, last_included_term=2, configuration=Configuration(voters=(A, B))
)
ENTRIES = (
    Entry(index=4, term=2, data=b"\x00\xffcommand"),
    Entry(index=5, term=2, kind=EntryKind.NOOP),
    Entry(
        index=6,
        term=2,
        kind=EntryKind.CONFIGURATION,
        configuration=Configuration(voters=(A,), learners=(B,), retired=(NodeId("c"),)),
    ),
)
MESSAGES: list[PeerMessage] = [
    AppendEntries(
        source=A,
        target=B,
        term=2,
        prev_log_index=3,
        prev_log_term=1,
        entries=ENTRIES,
        leader_commit=4,
    ),
    AppendEntriesReply(source=A, target=B, term=2, success=False, prev_log_index=3, hint_term=1),
    RequestVote(source=A, target=B, term=2, last_log_index=1, last_log_term=1),
    RequestVoteReply(source=A, target=B, term=2, vote_granted=True),
    PreVote(source=A, target=B, term=2, last_log_index=1, last_log_term=1),
    PreVoteReply(source=A, target=B, term=2, vote_granted=False),
    Heartbeat(source=A, target=B, term=2, commit_index=4, read_sequence=9),
    HeartbeatReply(source=A, target=B, term=2, read_sequence=9),
    InstallSnapshotReply(source=A, target=B, term=2, match_index=7),
    TimeoutNow(source=A, target=B, term=2),
    ReadIndex(source=A, target=B, term=2, incarnation=2**63, sequence=1),
    ReadIndexReply(source=A, target=B, term=2, incarnation=2**63, sequence=1, read_index=4),
    SnapshotPiece(
        source=A,
        target=B,
        term=2,
        metadata=METADATA,
        name="snapshot-7-2",
        size_bytes=1 << 40,
        attempt=3,
        offset=12,
        data=b"bytes",
    ),
    SnapshotPieceReply(
        source=A, target=B, term=2, name="snapshot-7-2", attempt=3, received_bytes=17
    ),
    RemovedNotice(source=A, target=B, term=2),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was(message: PeerMessage) -> None:
    body = encode_peer_message(message)
    assert decode_peer_message(body) == message
    assert decode_peer_message(memoryview(bytearray(body))) == message


def test_a_snapshot_never_travels_in_one_message() -> None:
    message = InstallSnapshot(
        source=A, target=B, term=2, snapshot=Snapshot(metadata=METADATA, data=b"name")
    )
    with pytest.raises(AssertionError):
        encode_peer_message(message)
    with pytest.raises(ProtocolError, match="not in pieces"):
        decode_peer_message(msgspec.msgpack.encode(message))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_peer_message(body)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_cut_short_is_a_protocol_error(message: PeerMessage, data: st.DataObject) -> None:
    body = encode_peer_message(message)
    length = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ProtocolError):
        decode_peer_message(body[:length])


def test_a_message_over_the_limit_is_not_looked_at() -> None:
    with pytest.raises(FrameTooLarge):
        decode_peer_message(bytes(PEER_MESSAGE_BYTES_MAX + 1))
