"""One member of the group as an event machine: consensus, log, machines and snapshots joined.

::

    tick receive propose read ...  --->  Member  --->  due(): messages  jobs  outcomes
    done(job) failed(job, error)   --->

A member has no clock, no thread, no socket and no chance of its own. Events never block; whatever
blocks is a ``Job`` that somebody runs elsewhere. So heartbeats leave while a write is being synced,
and the same member runs on real threads, in a simulator and in a test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minigfs.ids import Origin
from minigfs.raft import (
    Configuration,
    MembershipChange,
    NodeId,
    RaftConfig,
    Role,
    SoftState,
)
from minigfs.replication.jobs import Job, Lane
from minigfs.replication.peer_messages import PeerMessage
from minigfs.replication.tickets import Outcome, Ticket

__all__ = ["Due", "Job", "Lane", "Member", "MemberSettings", "MemberView", "Outcome", "Ticket"]

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings:
    """Limits of one member; ticks are ``Member.tick`` calls."""

    snapshot_every_entries: int = 10_000
    snapshot_every_bytes: int = 64 * _MIB
    keep_entries: int = 5_000
    """Entries kept behind a snapshot for members that are a little late."""
    piece_bytes: int = 256 * _KIB
    pieces_in_flight: int = 4
    reserve_bytes: int = 4 * _MIB
    """Log space that clients may not use when the disk is full: votes and no-ops need it."""
    apply_entries_max: int = 256
    """Commands applied in one ``due``: applying never holds up the loop for long."""


class Due:
    """What is due. Falsy if nothing is."""

    messages: tuple[PeerMessage, ...]
    """Send now; any may be lost. ``target`` says to whom."""
    jobs: tuple[Job, ...]
    """Run each in a thread of its lane, then ``done`` or ``failed``."""
    outcomes: tuple[Outcome, ...]
    soft_state: SoftState | None
    """Set when role or leader changed."""
    more: bool
    """There is more to do at once (commands to apply): let others run, then call ``due`` again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member as it sees itself and its group, for reports."""

    member_id: NodeId
    role: Role
    is_removed: bool
    """A committed configuration has removed it: it rests, and its directory may be emptied."""
    term: int
    leader_id: NodeId | None
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    snapshot_index: int
    configuration: Configuration
    addresses: Mapping[NodeId, str]
    match_indexes: Mapping[NodeId, int]
    """The leader's view of how far the others are; empty elsewhere."""
    disk_is_full: bool


class Member:
    """Belongs to one thread, the owner's; only ``Job.run`` may be called on others."""

    def __init__(
        self,
        *,
        config: RaftConfig,
        log: "DurableLog",
        machines: "ReplicatedMachines",
        rng: "Rng",
        now_ms: Callable[[], int],
        settings: MemberSettings = MemberSettings(),
    ) -> None:
        """A restart: machines are restored from the log's snapshot (this blocks), the rest follows
        from the log. ``config.node_id`` must be ``log.member_id``."""
        raise NotImplementedError

    def tick(self) -> None:
        """Time has passed; the only clock."""

    def receive(self, message: PeerMessage) -> None:
        """A message arrived from another member. Raises ``ProtocolError`` for one addressed to
        somebody else (drop it), ``SafetyViolation`` (end the process)."""

    def propose(self, machine: str, command: bytes, origin: Origin | None, ticket: Ticket) -> None:
        """Leader: append a command; one outcome follows, unless this process ends before.

        Raises, and then nothing was appended and no outcome follows: ``errors.NotLeader``,
        ``NoSpace`` (this disk is full), ``raft.ProposalDropped`` (too much is uncommitted, or
        leadership is being handed over: try again in a moment).
        """

    def read(self, ticket: Ticket) -> None:
        """Ask for a linearizable read. Its outcome comes when the machines may be read, with reply
        ``b""``; or the error ``NotLeader``: try again."""

    def change_membership(self, change: MembershipChange, ticket: Ticket) -> None:
        """Leader: append a change; its outcome comes when it is committed.

        Raises ``errors.NotLeader`` or ``raft.MembershipRefused``.
        """

    def transfer_leadership(self, target: NodeId) -> None:
        """Leader: hand over. Raises ``errors.NotLeader`` or ``raft.TransferRefused``."""

    def unreachable(self, peer: NodeId) -> None:
        """The link to ``peer`` lost messages."""

    def done(self, job: Job) -> None:
        """``job.run`` returned."""

    def failed(self, job: Job, error: Exception) -> None:
        """``job.run`` raised. A full disk is waited out; any other error is raised again, and the
        process must end."""

    def due(self) -> Due:
        """Everything due now, each thing once. Call after events, and again while ``more``."""
        raise NotImplementedError

    # Views, all cheap

    @property
    def member_id(self) -> NodeId: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def leads_for_certain(self) -> bool:
        """Leads, and has applied an entry of its own term: the machines are up to date."""

    @property
    def term(self) -> int: ...

    @property
    def leader_id(self) -> NodeId | None: ...

    @property
    def commit_index(self) -> int: ...

    @property
    def applied_index(self) -> int: ...

    def status(self) -> MemberView:
        """A consistent view for reports."""
        raise NotImplementedError
