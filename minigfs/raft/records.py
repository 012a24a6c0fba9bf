"""The values Raft stores and sends: log entries, hard state, configurations, snapshots.

All are immutable and compare by value. ``data`` is the replicated machine's and is never looked at.
"""

import enum
from collections.abc import Sequence
from typing import NewType

import msgspec

from minigfs.raft.errors import MembershipRefused

__all__ = [
    "ENTRY_OVERHEAD_BYTES",
    "ChangeKind",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "LogPosition",
    "MembershipChange",
    "NodeId",
    "Snapshot",
    "SnapshotMetadata",
    "total_bytes",
]

NodeId = NewType("NodeId", str)
"""Name of a member. It is made at random together with the member's disk: a wiped disk is a new
member under a new id, because the votes and acknowledgements of the old one are lost."""

ENTRY_OVERHEAD_BYTES = 32
"""What index, term and framing add to an entry's data, roughly; without it a million empty entries
would count as nothing against a byte limit."""


class ChangeKind(enum.Enum):
    """The three single-server changes (thesis 4.1); a voter is always a learner first (4.2.1)."""

    ADD_LEARNER = "add-learner"
    PROMOTE_LEARNER = "promote-learner"
    REMOVE = "remove"


class MembershipChange(msgspec.Struct, frozen=True):
    kind: ChangeKind
    node: NodeId


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes part. Each tuple is sorted and without repetition; they share no id.

    ``retired`` holds every id ever removed, so that none can come back with an empty disk and vote
    a second time in an old term (anchors: ids are never reused).
    """

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    retired: tuple[NodeId, ...] = ()

    @property
    def members(self) -> tuple[NodeId, ...]:
        return self.voters + self.learners

    def changed(self, change: MembershipChange) -> "Configuration":
        """The configuration after one change; raises ``MembershipRefused`` if it makes no sense."""
        node = change.node
        match change.kind:
            case ChangeKind.ADD_LEARNER:
                return self._with_learner(node)
            case ChangeKind.PROMOTE_LEARNER:
                if node not in self.learners:
                    raise MembershipRefused(f"{node} is no learner; add it as a learner first")
                return msgspec.structs.replace(
                    self,
                    voters=tuple(sorted((*self.voters, node))),
                    learners=_without(self.learners, node),
                )
            case ChangeKind.REMOVE:
                return self._with_removed(node)

    def _with_learner(self, node: NodeId) -> "Configuration":
        if node in self.members:
            raise MembershipRefused(f"{node} is a member already")
        if node in self.retired:
            raise MembershipRefused(
                f"{node} was removed once and its id cannot be used again; start the new member "
                "with an empty directory, it will choose a new id"
            )
        return msgspec.structs.replace(self, learners=tuple(sorted((*self.learners, node))))

    def _with_removed(self, node: NodeId) -> "Configuration":
        if node not in self.members:
            raise MembershipRefused(f"{node} is no member")
        if self.voters == (node,):
            raise MembershipRefused(f"{node} is the only voter; promote another member first")
        return Configuration(
            voters=_without(self.voters, node),
            learners=_without(self.learners, node),
            retired=tuple(sorted((*self.retired, node))),
        )


def _without(nodes: tuple[NodeId, ...], leaving: NodeId) -> tuple[NodeId, ...]:
    return tuple(node for node in nodes if node != leaving)


class EntryKind(enum.Enum):
    COMMAND = "command"
    """``data`` is for the replicated machine."""
    NOOP = "no-op"
    """The empty entry a leader starts its term with (section 8)."""
    CONFIGURATION = "configuration"
    """``configuration`` is in force from this entry on (thesis 4.1)."""


class LogPosition(msgspec.Struct, frozen=True):
    """Names one entry for ever: two logs that hold it are equal up to it (Log Matching, 5.3)."""

    index: int
    term: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of the log; indexes count from 1."""

    index: int
    term: int
    kind: EntryKind = EntryKind.COMMAND
    data: bytes = b""
    configuration: Configuration | None = None

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.index, self.term)

    @property
    def size_bytes(self) -> int:
        return len(self.data) + ENTRY_OVERHEAD_BYTES


def total_bytes(entries: Sequence[Entry]) -> int:
    """The sum of their ``size_bytes``."""
    return sum([len(entry.data) for entry in entries]) + ENTRY_OVERHEAD_BYTES * len(entries)


class HardState(msgspec.Struct, frozen=True, kw_only=True):
    """Figure 2's persistent state beside the log; must be durable before anything it promises."""

    current_term: int = 0
    voted_for: NodeId | None = None


class SnapshotMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot replaces (section 7), and the configuration in force at that index.

    Index 0 is the state before the first entry: its configuration is the founding one, the same on
    every founding voter, and empty on a node that will be added later.
    """

    last_included_index: int = 0
    last_included_term: int = 0
    configuration: Configuration = Configuration()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """``data`` is the machine's: the bytes themselves, or a name its driver knows them by."""

    metadata: SnapshotMetadata
    data: bytes = b""
