"""Every message between nodes: one class a type, Figure 2's argument names in Figure 2's order.

Each names its ``source``, its ``target`` and the sender's ``term`` (the exceptions are PreVote and
a granted PreVoteReply, see there). Messages may be lost, doubled, delayed and reordered at will;
they must not be altered, and ``source`` must be true.
"""

import msgspec

from minigfs.raft.records import Entry, NodeId, Snapshot

__all__ = [
    "AnyMessage",
    "AppendEntries",
    "AppendEntriesReply",
    "Heartbeat",
    "HeartbeatReply",
    "InstallSnapshot",
    "InstallSnapshotReply",
    "Message",
    "PreVote",
    "PreVoteReply",
    "ReadIndex",
    "ReadIndexReply",
    "RequestVote",
    "RequestVoteReply",
    "TimeoutNow",
]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What every message carries."""

    source: NodeId
    target: NodeId
    term: int


class AppendEntries(Message, frozen=True, kw_only=True):
    """Leader to member: entries to store after (``prev_log_index``, ``prev_log_term``) (5.3)."""

    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    leader_commit: int


class AppendEntriesReply(Message, frozen=True, kw_only=True):
    """The answer, sent when the entries are durable.

    ``success``: the log equals the leader's up to ``match_index``, on disk. Otherwise the log has
    no entry (``prev_log_index``, its term); a match is not to be looked for above ``hint_index``,
    whose term here is ``hint_term`` (0: not known). With a term above the leader's it only says
    that the leader is deposed.
    """

    success: bool
    prev_log_index: int
    match_index: int = 0
    hint_index: int = 0
    hint_term: int = 0


class RequestVote(Message, frozen=True, kw_only=True):
    """Candidate to voter (5.2, 5.4.1). ``leadership_transfer``: the old leader asked for it, so
    that voters who hear a leader answer all the same (thesis 4.2.3)."""

    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False


class RequestVoteReply(Message, frozen=True, kw_only=True):
    """The vote, sent when it is durable."""

    vote_granted: bool


class PreVote(Message, frozen=True, kw_only=True):
    """Would you vote for me in ``term``? The sender is still one term below it (thesis 9.6)."""

    last_log_index: int
    last_log_term: int


class PreVoteReply(Message, frozen=True, kw_only=True):
    """``term`` is the asked one if granted, the voter's own if refused: only a refusal from a later
    term teaches the sender that term."""

    vote_granted: bool


class Heartbeat(Message, frozen=True, kw_only=True):
    """Leader to member, on time whatever the log does.

    ``commit_index`` is never above what this member has acknowledged. ``read_sequence`` is the
    newest read waiting to be confirmed.
    """

    commit_index: int
    read_sequence: int


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """Confirms that ``source`` still followed ``target`` in ``term`` (6.4); echoes the sequence."""

    read_sequence: int


class InstallSnapshot(Message, frozen=True, kw_only=True):
    """Leader to a member whose next entry is compacted away (section 7).

    A driver with large snapshots sends ``snapshot.data`` in pieces and steps this message into the
    target when all of it has arrived; the core neither splits nor looks.
    """

    snapshot: Snapshot


class InstallSnapshotReply(Message, frozen=True, kw_only=True):
    """Sent when the snapshot, or the newer log found instead, is durable up to ``match_index``."""

    match_index: int


class TimeoutNow(Message, frozen=True, kw_only=True):
    """Leader to the one it hands over to: start an election at once (thesis 3.10)."""


class ReadIndex(Message, frozen=True, kw_only=True):
    """Member to leader: the commit index for a linearizable read (thesis 6.4).

    (``incarnation``, ``sequence``) is the member's own, used once; the caller's context never
    travels, so equal contexts cannot be mixed up.
    """

    incarnation: int
    sequence: int


class ReadIndexReply(Message, frozen=True, kw_only=True):
    """Leadership was confirmed after the request came; read once ``read_index`` is applied."""

    incarnation: int
    sequence: int
    read_index: int


AnyMessage = (
    AppendEntries
    | AppendEntriesReply
    | RequestVote
    | RequestVoteReply
    | PreVote
    | PreVoteReply
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | InstallSnapshotReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)
"""All of them, as one tagged union: ``msgspec.msgpack.Decoder(AnyMessage)`` decodes any."""
