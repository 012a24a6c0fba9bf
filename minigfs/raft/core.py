"""The door of the core: inputs in, ``Ready`` out. It dispatches; the rules are next door.

The contract, with the loop a driver runs, is the docstring of ``minigfs.raft``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from minigfs.errors import ProtocolError
from minigfs.raft import election, membership, reads, replication, snapshots, thrift, transfer
from minigfs.raft.config import RaftConfig
from minigfs.raft.messages import (
    AnyMessage,
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
from minigfs.raft.progress import ProgressState
from minigfs.raft.ready import (
    NOTHING_READY,
    Persist,
    PersistToken,
    Ready,
    Role,
    SoftState,
)
from minigfs.raft.records import (
    Configuration,
    Entry,
    HardState,
    LogPosition,
    MembershipChange,
    NodeId,
    SnapshotMetadata,
)
from minigfs.raft.state import NodeState
from minigfs.raft.storage import LogStorage

__all__ = ["PeerStatus", "RaftNode", "Status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """A leader's view of one other member."""

    state: ProgressState
    match_index: int
    next_index: int
    inflight_count: int
    recently_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A consistent view of one node, for people, drivers and checkers."""

    node_id: NodeId
    role: Role
    leader_id: NodeId | None
    current_term: int
    voted_for: NodeId | None
    first_index: int
    last_index: int
    last_term: int
    stable_index: int
    commit_index: int
    last_applied: int
    configuration: Configuration
    configuration_index: int
    transfer_target: NodeId | None
    peers: dict[NodeId, PeerStatus]
    """Empty unless this node leads."""


class RaftNode:
    """One member of a Raft group, without clock, chance, disk or network.

    Equal inputs in equal order give equal outputs, in any process. Not for use by two threads.
    """

    def __init__(
        self, config: RaftConfig, storage: LogStorage, draw_election_timeout: Callable[[], int]
    ) -> None:
        """Start or restart from what storage holds; the machine must be at storage's snapshot.

        ``draw_election_timeout`` answers with a random number of ticks, at least
        ``config.election_timeout_ticks`` and usually less than twice that; each call draws anew.
        Raises ``CorruptLog`` if the record of term and vote is older than the log.
        """
        self.state = NodeState(config, storage, draw_election_timeout)
        self._hard_state_written = self.state.durable_hard_state
        self._soft_state_told = self._soft_state()

    # Inputs

    def tick(self) -> None:
        """One unit of time has passed."""
        state = self.state
        reads.tick_forwarded(state)
        if state.leadership is None:
            election.tick_follower(state)
            return
        transfer.tick(state)
        replication.tick_leader(state)
        election.tick_check_quorum(state)

    def step(self, message: AnyMessage) -> None:
        """A message arrived. Any loss, repetition, delay or reordering is allowed.

        Raises ``ProtocolError`` for one addressed to another node, ``SafetyViolation`` if it proves
        that a member's disk lost or changed what it had promised: end the process then.
        """
        state = self.state
        if message.target != state.node_id:
            raise ProtocolError(f"{state.node_id} was given a message for {message.target}")
        if not election.admit(state, message):
            return
        if state.leadership is not None and message.source in state.leadership.progress:
            state.leadership.progress[message.source].recently_active = True
        self._dispatch(message)
        self._settle()

    def propose(self, data: bytes) -> LogPosition:
        """Append a command. It is accepted when committed *at this position*, and will never be if
        another entry is committed at its index.

        Raises ``NotLeader`` (not appended) or ``ProposalDropped`` (not appended; back off).
        """
        return replication.propose(self.state, data)  # it moves no match: nothing to settle

    def propose_membership_change(self, change: MembershipChange) -> LogPosition:
        """Append the configuration after ``change``, in force at once (see ``membership``).

        Raises ``NotLeader`` or ``MembershipRefused``.
        """
        position = membership.propose_change(self.state, change)
        self._settle()
        return position

    def transfer_leadership(self, target: NodeId) -> None:
        """Hand leadership to ``target``; given up after one election timeout (see ``transfer``).

        Raises ``NotLeader`` or ``TransferRefused``.
        """
        transfer.transfer_leadership(self.state, target)

    def read_index(self, context: bytes) -> None:
        """Ask for a linearizable read; a later Ready names ``context`` in ``read_states`` or in
        ``reads_dropped``. Any member may ask.

        Raises ``NotLeader`` if none is known, ``ReadDropped`` if too many reads wait.
        """
        reads.read_index(self.state, context)
        self._settle()

    def campaign(self) -> None:
        """Behave as if the election timeout had passed."""
        if self.state.leadership is None and election.is_promotable(self.state):
            election.campaign(self.state)

    def forget_leader(self) -> None:
        """The leader's process is known to have ended: vote for another before the timeout, and
        refuse none because of it. If it is heard after all, it is followed again."""
        election.forget_leader(self.state)

    def tell_commit(self) -> None:
        """Leader: tell every member of commits that nothing else told it of; for drivers without
        ``commit_news_at_once``."""
        replication.tell_commit(self.state)

    @property
    def has_untold(self) -> bool:
        """Whether a ``thrifty`` leader has entries that wait for ``tell_rest``."""
        return thrift.has_untold(self.state)

    def tell_rest(self) -> None:
        """Leader: send the members that were not sent the newest entries what there is by now."""
        if self.state.leadership is not None:
            thrift.tell_rest(self.state)

    def report_unreachable(self, peer: NodeId) -> None:
        """Sending to ``peer`` failed: what is on the way is probably lost, probe again."""
        progress = replication.progress_of(self.state, peer)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe()
            progress.probe_outstanding = True  # until a heartbeat's reply: nothing in a tight loop

    def report_snapshot(self, peer: NodeId, *, delivered: bool) -> None:
        """The last snapshot to ``peer`` did, or did not, arrive."""
        snapshots.report_snapshot(self.state, peer, delivered=delivered)

    # Outputs

    def has_ready(self) -> bool:
        """Whether ``ready`` would ask for anything."""
        self._send_due()
        return (
            self.state.gate.outstanding is None and self._has_unwritten()
        ) or not self._nothing_is_ready()

    def ready(self) -> Ready:
        """Everything that is due now; each thing is handed out once."""
        self._send_due()
        unwritten = self._has_unwritten()
        if not unwritten and self._nothing_is_ready():
            return NOTHING_READY
        state = self.state
        state.gate.sort_held(unwritten=unwritten)
        persist = self._begin_write() if unwritten else None
        restore, state.restore_due = state.restore_due, None
        if restore is not None:
            state.applying_index = restore.metadata.last_included_index
        read_states, state.read_states = tuple(state.read_states), []
        reads_dropped, state.reads_dropped = tuple(state.reads_dropped), []
        soft_state = self._soft_state() if self._soft_state_changed else None
        self._soft_state_told = soft_state or self._soft_state_told
        return Ready(
            messages=state.gate.take_released(),
            persist=persist,
            restore=restore,
            committed_entries=self._take_entries_to_apply(),
            read_states=read_states,
            reads_dropped=reads_dropped,
            soft_state=soft_state,
        )

    def _nothing_is_ready(self) -> bool:
        """Apart from what is to be written."""
        state = self.state
        return not (
            state.gate.has_messages
            or state.restore_due is not None
            or self.has_entries_to_apply
            or state.read_states
            or state.reads_dropped
            or self._soft_state_changed
        )

    def persisted(self, token: PersistToken) -> None:
        """The write is durable. Its promises come out in the next Ready; a leader counts itself,
        a candidate its own vote."""
        state = self.state
        state.gate.complete(token)
        state.durable_hard_state = self._hard_state_written
        restored = state.log.end_write()
        if restored is not None:
            state.restore_due = restored
        election.count_own_vote(state)
        self._settle()

    def applied(self, index: int) -> None:
        """The machine has applied (or restored) everything handed out up to ``index``."""
        state = self.state
        assert state.last_applied <= index <= state.applying_index, "applied what was handed out"
        state.last_applied = index

    def advance(self, ready: Ready) -> None:
        """All that ``ready`` asked for is done: for drivers that do everything in order.

        The same as ``persisted`` and ``applied``; do not call it before the write is durable.
        """
        if ready.persist is not None and ready.persist.token == self.state.gate.outstanding:
            self.persisted(ready.persist.token)
        if ready.committed_entries:
            self.applied(ready.committed_entries[-1].index)
        elif ready.restore is not None:
            self.applied(ready.restore.metadata.last_included_index)

    # Views

    @property
    def node_id(self) -> NodeId:
        return self.state.node_id

    @property
    def leader_id(self) -> NodeId | None:
        """Who leads, as far as this node knows."""
        return self.state.leader_id

    def snapshot_metadata_at(self, index: int) -> SnapshotMetadata:
        """What to record with a snapshot of the machine at ``index``, which it has applied and
        which is not older than storage's snapshot.

        Raises ``SnapshotTemporarilyUnavailable`` on a new member until the entry that added it, or
        a later one, is applied.
        """
        return snapshots.snapshot_metadata_at(self.state, index)

    def status(self) -> Status:
        state = self.state
        leading = state.leadership
        return Status(
            node_id=state.node_id,
            role=state.role,
            leader_id=state.leader_id,
            current_term=state.current_term,
            voted_for=state.voted_for,
            first_index=state.log.first_index,
            last_index=state.log.last_index,
            last_term=state.log.last_term,
            stable_index=state.log.stable_index,
            commit_index=state.commit_index,
            last_applied=state.last_applied,
            configuration=state.configuration,
            configuration_index=state.configuration_index,
            transfer_target=leading.transfer.target if leading and leading.transfer else None,
            peers=self._peer_status(),
        )

    def _peer_status(self) -> dict[NodeId, PeerStatus]:
        if self.state.leadership is None:
            return {}
        return {
            peer: PeerStatus(
                state=progress.state,
                match_index=progress.match_index,
                next_index=progress.next_index,
                inflight_count=progress.inflights.count,
                recently_active=progress.recently_active,
            )
            for peer, progress in self.state.leadership.progress.items()
        }

    # Dispatch

    def _dispatch(self, message: AnyMessage) -> None:
        """One handler a message type; the term is this node's own by now."""
        state = self.state
        match message:
            case AppendEntries():
                replication.handle_append_entries(state, message)
            case AppendEntriesReply():
                replication.handle_append_entries_reply(state, message)
                transfer.heard_from(state, message.source)
            case Heartbeat():
                replication.handle_heartbeat(state, message)
            case HeartbeatReply():
                replication.handle_heartbeat_reply(state, message)
                transfer.heard_from(state, message.source)
            case RequestVote():
                election.handle_request_vote(state, message)
            case RequestVoteReply():
                election.handle_request_vote_reply(state, message)
            case PreVote():
                election.handle_pre_vote(state, message)
            case PreVoteReply():
                election.handle_pre_vote_reply(state, message)
            case InstallSnapshot():
                snapshots.handle_install_snapshot(state, message)
            case InstallSnapshotReply():
                snapshots.handle_install_snapshot_reply(state, message)
                transfer.heard_from(state, message.source)
            case TimeoutNow():
                transfer.handle_timeout_now(state)
            case ReadIndex():
                reads.handle_read_index(state, message)
            case ReadIndexReply():
                reads.handle_read_index_reply(state, message)
            case _:
                assert_never(message)

    def _settle(self) -> None:
        """What follows for a leader from anything that may have moved a match or a confirmation."""
        state = self.state
        if state.leadership is None:
            return
        replication.advance_commit_index(state)
        reads.advance(state)
        membership.step_down_if_removed(state)

    def _send_due(self) -> None:
        if self.state.leadership is None:
            return
        replication.send_appends(self.state)
        snapshots.send_snapshots(self.state)
        reads.send_rounds(self.state)

    # Writing

    def _has_unwritten(self) -> bool:
        """Whether there is state that no write contains, done or under way."""
        state = self.state
        return state.log.has_unwritten or not state.equals_hard_state(self._hard_state_written)

    def _begin_write(self) -> Persist | None:
        """One write for everything since the last one (group commit), one at a time."""
        state = self.state
        if state.gate.outstanding is not None:
            return None
        hard_state: HardState | None = None
        if not state.equals_hard_state(self._hard_state_written):
            hard_state = self._hard_state_written = state.hard_state
        snapshot, entries = state.log.begin_write()
        return Persist(
            token=state.gate.next_token(),
            snapshot=snapshot,
            hard_state=hard_state,
            entries=entries,
        )

    # Applying

    def _apply_limit(self) -> int:
        """Figure 2: "if commit_index > last_applied, apply"; here only what is durable as well,
        and nothing above a snapshot that the machine has not been given."""
        state = self.state
        if state.log.pending_snapshot is not None or state.restore_due is not None:
            return state.applying_index
        return min(state.commit_index, state.log.stable_index)

    @property
    def has_entries_to_apply(self) -> bool:
        """Whether the next ``ready`` has entries to apply."""
        return self._apply_limit() > self.state.applying_index

    def _take_entries_to_apply(self) -> tuple[Entry, ...]:
        state = self.state
        first, last = state.applying_index + 1, self._apply_limit()
        entries: tuple[Entry, ...] = ()
        if first <= last:
            entries = tuple(state.log.entries(first, last, state.config.apply_bytes_max))
            state.applying_index = entries[-1].index
        return entries

    @property
    def _soft_state_changed(self) -> bool:
        state, told = self.state, self._soft_state_told
        return state.role is not told.role or state.leader_id != told.leader_id

    def _soft_state(self) -> SoftState:
        return SoftState(role=self.state.role, leader_id=self.state.leader_id)
