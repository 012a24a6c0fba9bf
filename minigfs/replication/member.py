"""One member of the group as an event machine: consensus, log, machines and snapshots joined.

::

    tick receive propose read ...  --->  Member  --->  due(): messages  jobs  outcomes
    done(job) failed(job, error)   --->

A member has no clock, no thread, no socket and no chance of its own. Events never block; whatever
blocks is a ``Job`` that somebody else runs. So heartbeats leave while a write is being synced, and
the same member runs on real threads, in a simulator and in a test.

``due`` is the Ready loop of ``minigfs.raft``, taken apart::

    Ready.messages           go out at once; an InstallSnapshot becomes a transfer of its file
    Ready.persist            becomes a LOG job; what arrives meanwhile is the next (group commit)
    Ready.restore            becomes a SNAPSHOT job; nothing is applied before its end
    Ready.committed_entries  are applied here, some at a time; each decides the ticket of its index
    Ready.read_states        decide their tickets when the machines have come that far

All proposals between two calls of ``due`` travel in one message and one write, so an owner that
calls it once a turn of its loop has batches that grow with the load.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from minigfs.errors import NoSpace, NotLeader, UsageError
from minigfs.ids import Origin
from minigfs.ports import Rng
from minigfs.raft import (
    NOTHING_READY,
    Configuration,
    Entry,
    MembershipChange,
    NodeId,
    Persist,
    RaftConfig,
    RaftNode,
    Ready,
    Role,
    Snapshot,
    SoftState,
)
from minigfs.raft import NotLeader as RaftNotLeader
from minigfs.raft.errors import ReadDropped
from minigfs.raft.messages import InstallSnapshot, PreVote, RequestVote
from minigfs.replication.commands import LoggedCommand, encode_logged_command
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.incoming_snapshot import IncomingSnapshot
from minigfs.replication.jobs import Job, Lane
from minigfs.replication.log_lane import LogLane
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.outgoing_snapshots import OutgoingSnapshots
from minigfs.replication.own_snapshot import OwnSnapshots
from minigfs.replication.peer_messages import (
    PeerMessage,
    RemovedNotice,
    SnapshotPiece,
    SnapshotPieceReply,
)
from minigfs.replication.settings import MemberSettings
from minigfs.replication.snapshot_lane import SnapshotLane
from minigfs.replication.tickets import OpenProposals, OpenReads, Outcome, Ticket
from minigfs.replication.wal_format import PAYLOAD_BYTES_MAX

__all__ = [
    "COMMAND_BYTES_MAX",
    "Due",
    "Job",
    "Lane",
    "Member",
    "MemberSettings",
    "MemberView",
    "Outcome",
    "Ticket",
]

COMMAND_BYTES_MAX = PAYLOAD_BYTES_MAX - 4096
RECORD_OVERHEAD_BYTES = 256  # of a write in the log, and more than an entry's


class Due(msgspec.Struct, frozen=True):
    """What is due. Falsy if nothing is."""

    messages: tuple[PeerMessage, ...]
    """Send now; any may be lost. ``target`` says to whom."""
    jobs: tuple[Job, ...]
    """Run each in a thread of its lane, then ``done`` or ``failed``."""
    outcomes: tuple[Outcome, ...]
    soft_state: SoftState | None
    """Set when role or leader changed."""
    more: bool
    """There are commands left to apply: let others run, then call ``due`` again."""

    def __bool__(self) -> bool:
        return bool(
            self.messages or self.jobs or self.outcomes or self.soft_state is not None or self.more
        )


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
        log: DurableLog,
        machines: ReplicatedMachines,
        rng: Rng,
        now_ms: Callable[[], int],
        settings: MemberSettings | None = None,
    ) -> None:
        """A restart: machines are restored from the log's snapshot (this blocks), the rest follows
        from the log. ``config.node_id`` must be ``log.member_id``; ``config.incarnation`` must be
        new in every life."""
        assert config.node_id == log.member_id, "a log belongs to one member"
        self._log = log
        self._machines = machines
        self._now_ms = now_ms
        self._settings = settings or MemberSettings()
        ticks = config.election_timeout_ticks
        self._node = RaftNode(config, log, lambda: rng.uniform_ms(ticks, 2 * ticks - 1))
        if log.snapshot_metadata().last_included_index > 0:
            self._restore(log.snapshot())

        self._proposals = OpenProposals()
        self._reads = OpenReads()
        self._outcomes: list[Outcome] = []
        self._messages: list[PeerMessage] = []
        self._to_apply: deque[Entry] = deque()
        self._restoring: Snapshot | None = None
        self._applied_term = 0
        self._unsaved_bytes = 0
        self._is_removed = False

        self._log_lane = LogLane(log)
        self._snapshot_lane = SnapshotLane()
        self._own_snapshots = OwnSnapshots(
            node=self._node,
            log=log,
            machines=machines,
            log_lane=self._log_lane,
            snapshot_lane=self._snapshot_lane,
            settings=self._settings,
            needed_from_index=lambda: self._outgoing.needed_from_index,
        )
        self._outgoing = OutgoingSnapshots(
            node=self._node,
            log=log,
            lane=self._snapshot_lane,
            limits=self._settings.transfer_limits,
            post=self._messages.append,
            on_damaged_file=self._own_snapshots.make_another,
        )
        self._incoming = IncomingSnapshot(
            node=self._node,
            log=log,
            lane=self._snapshot_lane,
            limits=self._settings.transfer_limits,
            post=self._messages.append,
        )

    # Events: time and messages

    def tick(self) -> None:
        """Time has passed; the only clock."""
        self._log_lane.tick()
        self._own_snapshots.tick()
        self._outgoing.tick()
        self._incoming.tick()
        if self._is_removed and not self.is_leader:
            return  # it would only ask for votes that nobody may give
        self._node.tick()

    def receive(self, message: PeerMessage) -> None:
        """A message from another member arrived.

        Raises ``ProtocolError`` for one addressed to somebody else: drop it. ``SafetyViolation``:
        end the process.
        """
        if isinstance(message, SnapshotPiece):
            self._incoming.received(message)
        elif isinstance(message, SnapshotPieceReply):
            self._outgoing.received(message)
        elif isinstance(message, RemovedNotice):
            self._rest()
        else:
            if isinstance(message, (PreVote, RequestVote)):
                self._tell_if_removed(message)
            self._node.step(message)

    def unreachable(self, peer: NodeId) -> None:
        """The link to ``peer`` lost messages."""
        self._node.report_unreachable(peer)

    def gone(self, peer: NodeId) -> None:
        """The process of ``peer`` ended, as far as its connections tell. A leader that is gone is
        not waited for: its followers vote for another at once."""
        if peer == self.leader_id:
            self._node.forget_leader()

    def campaign(self) -> None:
        """Nobody leads: do not wait for the timeout. Does nothing while a leader is heard of."""
        is_idle = self._node.state.role is Role.FOLLOWER and self.leader_id is None
        if is_idle and not self._is_removed:
            self._node.campaign()

    def tell_commit(self) -> None:
        """Tell followers of what is committed, if nothing told them yet."""
        self._node.tell_commit()

    @property
    def has_untold(self) -> bool:
        """Leads, and has entries that only a majority was sent: ``tell_rest`` in a moment."""
        return self._node.has_untold

    def tell_rest(self) -> None:
        """Send all members what there is by now."""
        self._node.tell_rest()

    # Events: requests

    def propose(
        self, machine: str, command: bytes, origin: Origin | None, ticket: Ticket,
        *, to_lead: bool = False,
    ) -> None:  # fmt: skip
        """Leader: append a command; one outcome follows, unless this process ends before.

        ``to_lead``: a new leader logs it before it serves anybody, so the reserve is there for it.

        Raises, and then nothing was appended and no outcome follows: ``errors.NotLeader``,
        ``NoSpace`` (this disk is full), ``raft.ProposalDropped`` (too much is uncommitted, or
        leadership is being handed over: try again in a moment), ``UsageError``.
        """
        if machine not in self._machines:
            raise UsageError(f"this master has no machine {machine!r}: is it of an older release?")
        if len(command) > COMMAND_BYTES_MAX:
            raise UsageError(
                f"a command of {len(command)} bytes is too large, {COMMAND_BYTES_MAX} go"
            )
        data = encode_logged_command(LoggedCommand(machine, self._now_ms(), command, origin))
        size_bytes = len(data) + RECORD_OVERHEAD_BYTES
        if self._log_lane.is_full and self.is_leader:
            self._check_room(size_bytes + (0 if to_lead else self._settings.reserve_bytes))
        try:
            position = self._node.propose(data)
        except RaftNotLeader:
            raise self._not_leader() from None
        self._unsaved_bytes += size_bytes
        self._proposals.add(position, ticket)

    def read(self, ticket: Ticket) -> None:
        """Ask for a linearizable read, of any member. Its outcome comes when the machines may be
        read, with reply ``b""``; or with the error ``NotLeader``: try again."""
        self._reads.add(ticket)

    def change_membership(self, change: MembershipChange, ticket: Ticket) -> None:
        """Leader: append a change; its outcome comes when it is committed.

        Raises ``errors.NotLeader`` or ``raft.MembershipRefused``.
        """
        try:
            position = self._node.propose_membership_change(change)
        except RaftNotLeader:
            raise self._not_leader() from None
        self._proposals.add(position, ticket)

    def transfer_leadership(self, target: NodeId) -> None:
        """Leader: hand over. Raises ``errors.NotLeader`` or ``raft.TransferRefused``."""
        try:
            self._node.transfer_leadership(target)
        except RaftNotLeader:
            raise self._not_leader() from None

    # Events: jobs

    def done(self, job: Job) -> None:
        """``job.run`` returned."""
        self._came_back(job)
        job.then()

    def failed(self, job: Job, error: Exception) -> None:
        """``job.run`` raised. A full disk is waited out; any other error is raised again, and the
        process must end: it is not known what the disk holds."""
        if not isinstance(error, NoSpace):
            raise error
        self._came_back(job)
        job.no_space()

    def _came_back(self, job: Job) -> None:
        if job.lane is Lane.LOG:
            self._log_lane.came_back(job)
        else:
            self._snapshot_lane.came_back(job)

    # What is due

    def due(self) -> Due:
        """Everything due now, each thing once. Call after events, and again while ``more``.

        A machine that raises does so here: the process must end.
        """
        self._begin_reads()
        ready = self._node.ready()
        if ready is not NOTHING_READY:
            self._take(ready)
        more = False
        if self._restoring is None:
            if self._to_apply:
                self._apply_some()
            self._own_snapshots.begin_if_due()
            more = bool(self._to_apply) or self._node.has_entries_to_apply
        messages = tuple(self._messages)
        self._messages.clear()
        outcomes, self._outcomes = tuple(self._outcomes), []
        lanes = (self._log_lane.take_job(), self._snapshot_lane.take_job())
        jobs = tuple([job for job in lanes if job is not None])
        return Due(messages, jobs, outcomes, ready.soft_state, more)

    def _take(self, ready: Ready) -> None:
        for message in ready.messages:
            if isinstance(message, InstallSnapshot):
                self._outgoing.send(message)
            else:
                self._messages.append(message)
        if ready.persist is not None:
            self._write(ready.persist)
        if ready.restore is not None:
            self._begin_restore(ready.restore)
        self._to_apply.extend(ready.committed_entries)
        if ready.read_states:
            self._reads.confirmed(ready.read_states)
            self._outcomes += self._reads.applied(self.applied_index)
        if ready.reads_dropped:
            self._outcomes += self._reads.dropped(ready.reads_dropped, self._not_leader())

    def _write(self, persist: Persist) -> None:
        proposed_bytes = self._unsaved_bytes  # all of it is in this write or an earlier one
        if persist.snapshot is not None:
            self._own_snapshots.abandon()

        def written() -> None:
            self._unsaved_bytes -= proposed_bytes
            self._node.persisted(persist.token)

        self._log_lane.add("save", lambda: self._log.begin_save(persist), written)

    def _apply_some(self) -> None:
        """Apply what is committed and durable, in order, and decide the tickets."""
        queue, apply, outcomes = self._to_apply, self._machines.apply, self._outcomes
        decide = self._proposals.applied if self._proposals else None
        end_ms = self._now_ms() + self._settings.apply_ms_max
        count = size_bytes = 0
        while queue and count < self._settings.apply_entries_max:
            if count and self._now_ms() >= end_ms:
                break
            entry = queue.popleft()
            answer = apply(entry)
            count += 1
            size_bytes += len(entry.data)
            if decide is not None:
                decide(entry.index, entry.term, answer, outcomes)
        self._applied_term = entry.term
        self._node.applied(entry.index)
        self._own_snapshots.count(count, size_bytes)
        self._outcomes += self._reads.applied(entry.index)
        configuration = self._node.state.configuration
        if self.member_id in configuration.retired and self._configuration_is_committed:
            self._rest()

    # Restoring

    def _begin_restore(self, snapshot: Snapshot) -> None:
        """A snapshot from the leader, durable by now, takes the place of the machines' state, and
        of the entries that lead up to it."""
        index = snapshot.metadata.last_included_index
        self._to_apply.clear()
        self._outcomes += self._proposals.covered(index)
        self._own_snapshots.abandon()
        self._restoring = snapshot

        def restored() -> None:
            if self._restoring is snapshot:  # else a newer one follows in the lane
                self._restoring = None
                self._node.applied(index)
                self._outcomes.extend(self._reads.applied(index))

        self._snapshot_lane.add(
            "restore",
            lambda: self._restore(snapshot),
            then=restored,
            no_space=lambda: self._begin_restore(snapshot),
        )

    def _restore(self, snapshot: Snapshot) -> None:
        with self._log.snapshots.open(snapshot.data.decode()) as reader:
            self._machines.restore(reader.pieces(), snapshot.metadata.last_included_index)

    # Reads

    def _begin_reads(self) -> None:
        """One round for all reads asked for since the last time."""
        context = self._reads.begin_round()
        if context is None:
            return
        try:
            if self._is_removed:
                raise RaftNotLeader("removed")
            self._node.read_index(context)
        except (RaftNotLeader, ReadDropped):
            self._outcomes += self._reads.dropped([context], self._not_leader())

    # Refusals, and the end of a membership

    def _check_room(self, size_bytes: int) -> None:
        if size_bytes > self._log.room_bytes - self._unsaved_bytes:
            raise NoSpace(
                f"master {self.member_id} takes no changes, because its disk is full: free space "
                "there (`admin masters list` shows where), and it goes on by itself"
            )

    def _not_leader(self) -> NotLeader:
        leader_id = self.leader_id
        if leader_id is None or leader_id == self.member_id:
            return NotLeader("no master leads just now: try again in a moment")
        return NotLeader(f"this master does not lead: ask {leader_id}")

    def _tell_if_removed(self, message: PreVote | RequestVote) -> None:
        """A removed member may never have heard of it: the leader stopped writing to it."""
        state = self._node.state
        if message.source in state.configuration.retired and self._configuration_is_committed:
            notice = RemovedNotice(
                source=self.member_id, target=message.source, term=state.current_term
            )
            self._messages.append(notice)

    @property
    def _configuration_is_committed(self) -> bool:
        state = self._node.state
        return state.configuration_index <= state.commit_index

    def _rest(self) -> None:
        """Removed for ever: ask for no more votes, confirm no more reads."""
        if not self._is_removed:
            self._is_removed = True
            self._outcomes += self._reads.drop_unconfirmed(self._not_leader())

    # Views, all cheap

    @property
    def member_id(self) -> NodeId:
        return self._node.node_id

    @property
    def is_leader(self) -> bool:
        return self._node.state.leadership is not None

    @property
    def leads_for_certain(self) -> bool:
        """Leads, and has applied an entry of its own term: the machines are up to date."""
        return self.is_leader and self._applied_term == self._node.state.current_term

    @property
    def term(self) -> int:
        return self._node.state.current_term

    @property
    def leader_id(self) -> NodeId | None:
        return self._node.state.leader_id

    @property
    def commit_index(self) -> int:
        return self._node.state.commit_index

    @property
    def applied_index(self) -> int:
        return self._node.state.last_applied

    @property
    def disk_is_full(self) -> bool:
        """This member's log cannot grow; nobody else's disk is meant."""
        return self._log_lane.is_full

    @property
    def node(self) -> RaftNode:
        """The core, to be looked at: for checkers."""
        return self._node

    def status(self) -> MemberView:
        """A consistent view for reports."""
        status = self._node.status()
        return MemberView(
            member_id=status.node_id,
            role=status.role,
            is_removed=self._is_removed,
            term=status.current_term,
            leader_id=status.leader_id,
            commit_index=status.commit_index,
            applied_index=status.last_applied,
            first_index=status.first_index,
            last_index=status.last_index,
            snapshot_index=self._log.snapshot_metadata().last_included_index,
            configuration=status.configuration,
            addresses=self._machines.member_addresses,
            match_indexes={peer: view.match_index for peer, view in status.peers.items()},
            disk_is_full=self.disk_is_full,
        )
