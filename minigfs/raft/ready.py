"""What a node asks of its driver, and the gate that keeps promises until they are true.

A message that promises durable state must not leave before that state is on disk: a vote, an
acknowledgement, a request for votes (the candidate's own vote), or anything at all in a term that
is not recorded yet. Such messages are therefore *not in the Ready* that carries the write. They
wait in the ``PersistGate`` and come out in ``Ready.messages`` after ``RaftNode.persisted(token)``,
so a driver cannot send one too early: it does not have it.

::

    step/tick/propose --> messages --promises--> [ gate ] --persisted(token)--> Ready.messages
                                   \\--the others------------------------------/

At most one write is outstanding. What arrives meanwhile is gathered into the next one (group
commit), while heartbeats and the leader's AppendEntries flow on: the leader may write in parallel
with its followers (thesis 10.2.1).
"""

import enum
from typing import NewType

import msgspec

from minigfs.raft.messages import (
    AnyMessage,
    AppendEntriesReply,
    InstallSnapshotReply,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from minigfs.raft.records import Entry, HardState, NodeId, Snapshot

__all__ = [
    "NOTHING_READY",
    "Persist",
    "PersistGate",
    "PersistToken",
    "ReadState",
    "Ready",
    "Role",
    "SoftState",
]

PersistToken = NewType("PersistToken", int)
"""Names one write of one node's life; made by ``ready()``, handed back to ``persisted``."""

_PROMISES = (
    AppendEntriesReply,
    InstallSnapshotReply,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
"""Refusals wait as well: they are not worth the proof that they need not."""


class Role(enum.Enum):
    """What a node is doing; a learner is a follower that is no voter."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class SoftState(msgspec.Struct, frozen=True, kw_only=True):
    """Volatile; for redirecting clients and for people. Never to be persisted."""

    role: Role
    leader_id: NodeId | None


class Persist(msgspec.Struct, frozen=True, kw_only=True):
    """One write: make all of it durable (fsync), then call ``persisted(token)``.

    Order: ``snapshot``, ``hard_state``, ``entries``; see ``LogStorage`` for what each discards.
    """

    token: PersistToken
    snapshot: Snapshot | None
    hard_state: HardState | None
    entries: tuple[Entry, ...]


class ReadState(msgspec.Struct, frozen=True, kw_only=True):
    """The read asked for with ``context`` is linearizable once ``read_index`` is applied."""

    context: bytes
    read_index: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver owes. Empty fields ask for nothing; ``RaftNode.advance`` says it is done."""

    messages: tuple[AnyMessage, ...] = ()
    """Send now, in any order; losing some is allowed. All they promise is durable."""
    persist: Persist | None = None
    """Write, sync, report. None while an earlier write is still outstanding."""
    restore: Snapshot | None = None
    """Replace the machine's state by this one, before applying anything. It is durable."""
    committed_entries: tuple[Entry, ...] = ()
    """Apply in order, each once. All are durable here."""
    read_states: tuple[ReadState, ...] = ()
    reads_dropped: tuple[bytes, ...] = ()
    """Contexts of reads that will never be confirmed (leadership lost, or no answer): try again."""
    soft_state: SoftState | None = None
    """Set when role or leader changed since the last Ready."""


NOTHING_READY = Ready()


class PersistGate:
    """Holds promises back, and knows the one outstanding write.

    Every held message waits for a write number: the outstanding write if it covers everything the
    message may promise, otherwise the next one.
    """

    def __init__(self) -> None:
        self._released: list[AnyMessage] = []
        self._held: list[AnyMessage] = []
        self._waiting: list[tuple[PersistToken, AnyMessage]] = []
        self._last_token = PersistToken(0)
        self.outstanding: PersistToken | None = None

    @property
    def has_messages(self) -> bool:
        return bool(self._released or self._held)

    def put(self, message: AnyMessage, *, term_is_durable: bool) -> None:
        """Take a message; everything in a term not yet recorded waits with the promises."""
        if term_is_durable and not isinstance(message, _PROMISES):
            self._released.append(message)
        else:
            self._held.append(message)

    def next_token(self) -> PersistToken:
        """Begin a write."""
        assert self.outstanding is None, "one write at a time"
        self._last_token = PersistToken(self._last_token + 1)
        self.outstanding = self._last_token
        return self._last_token

    def sort_held(self, *, unwritten: bool) -> None:
        """Decide what each held message waits for.

        ``unwritten``: there is state that no write covers yet, not even the outstanding one.
        """
        if not self._held:
            return
        if unwritten:
            needed = PersistToken(self._last_token + 1)
        elif self.outstanding is not None:
            needed = self.outstanding
        else:
            self._released.extend(self._held)
            self._held.clear()
            return
        self._waiting.extend((needed, message) for message in self._held)
        self._held.clear()

    def complete(self, token: PersistToken) -> None:
        """The write is durable: let go what waited for it."""
        assert token == self.outstanding, f"write {token} is not the one outstanding"
        self.outstanding = None
        still: list[tuple[PersistToken, AnyMessage]] = []
        for needed, message in self._waiting:
            if needed <= token:
                self._released.append(message)
            else:
                still.append((needed, message))
        self._waiting = still

    def take_released(self) -> tuple[AnyMessage, ...]:
        messages = tuple(self._released)
        self._released.clear()
        return messages
