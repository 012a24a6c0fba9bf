"""The state of one node: Figure 2's box "State", in its order, then what this core adds.

The other modules are functions over this one object, a module per concern::

    core        dispatch: which function answers which input
    election    who leads: terms, votes, pre-votes, timeouts, quorum checks        (5.2, 5.4.1)
    replication how logs become equal, and when an entry is committed              (5.3, 5.4.2)
    thrift      who is sent new entries at once, and who in runs
    snapshots   members the log cannot serve any more                              (7)
    membership  who takes part                                                     (6; thesis 4)
    transfer    handing leadership over                                            (thesis 3.10)
    reads       linearizable reads without log entries                             (8; thesis 6.4)
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from minigfs.errors import CorruptLog
from minigfs.raft.config import RaftConfig
from minigfs.raft.log import RaftLog
from minigfs.raft.messages import AnyMessage
from minigfs.raft.progress import Inflights, Progress
from minigfs.raft.ready import PersistGate, ReadState, Role
from minigfs.raft.records import Configuration, Entry, EntryKind, HardState, NodeId, Snapshot
from minigfs.raft.storage import LogStorage

__all__ = [
    "ForwardedRead",
    "Leadership",
    "NodeState",
    "PendingRead",
    "ReadOrigin",
    "ReadQueue",
    "Transfer",
]


_SCAN_BYTES = 1 << 20
"""How much of the log a restart reads at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOrigin:
    """Who asked: this node (``context``) or a member (its own numbers)."""

    source: NodeId
    context: bytes = b""
    incarnation: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRead:
    """A read at ``read_index``, confirmed when a majority echoed ``sequence`` or a later one."""

    sequence: int
    read_index: int
    origin: ReadOrigin


@dataclass(slots=True)
class ReadQueue:
    """Reads of one leadership; ``sequence`` only grows, and acknowledgements carry it."""

    sequence: int = 0
    sequence_sent: int = 0
    awaiting_first_commit: list[ReadOrigin] = field(default_factory=list)
    pending: deque[PendingRead] = field(default_factory=deque)


@dataclass(slots=True)
class ForwardedRead:
    """A read this node asked its leader about."""

    context: bytes
    elapsed_ticks: int = 0


@dataclass(slots=True)
class Transfer:
    """Leadership is being handed to ``target`` (thesis 3.10)."""

    target: NodeId
    elapsed_ticks: int = 0


@dataclass(slots=True)
class Leadership:
    """What only a leader has. It is made by winning an election and gone with the leadership, so
    nothing of one term can leak into another."""

    # Volatile state on leaders (Figure 2): next_index[] and match_index[], reinitialized after
    # election. The leader's own match_index is ``log.stable_index``: it counts itself only for
    # what is on its own disk.
    progress: dict[NodeId, Progress] = field(default_factory=dict)

    # Beyond Figure 2
    reads: ReadQueue = field(default_factory=ReadQueue)
    transfer: Transfer | None = None
    uncommitted_bytes: int = 0
    told_index: int = 0  # see ``thrift``
    told_before_index: int = 0
    heartbeat_elapsed_ticks: int = 0
    quorum_check_elapsed_ticks: int = 0


class NodeState:
    """Everything a node knows. Restart builds it from storage alone."""

    def __init__(
        self, config: RaftConfig, storage: LogStorage, draw_election_timeout: Callable[[], int]
    ) -> None:
        self.config = config
        hard_state = storage.hard_state()
        snapshot_metadata = storage.snapshot_metadata()

        # Persistent state on all servers (updated on stable storage before responding to RPCs)
        self.current_term = hard_state.current_term
        self.voted_for = hard_state.voted_for
        self.log = RaftLog(storage)

        # Volatile state on all servers. A snapshot is committed and was applied.
        self.commit_index = snapshot_metadata.last_included_index
        self.last_applied = snapshot_metadata.last_included_index

        # Volatile state on leaders; None on the others
        self.leadership: Leadership | None = None

        # Beyond Figure 2: role and election
        self.role = Role.FOLLOWER
        self.leader_id: NodeId | None = None
        self.votes: dict[NodeId, bool] = {}
        self.draw_election_timeout = draw_election_timeout
        self.election_elapsed_ticks = 0
        self.election_timeout_ticks = 0
        self.restart_election_timer()

        # Beyond Figure 2: membership; the last one is in force
        self.configurations = _configurations_in(storage)

        # Beyond Figure 2: what goes out
        self.gate = PersistGate()
        self.durable_hard_state = hard_state
        self.restore_due: Snapshot | None = None
        self.applying_index = self.last_applied
        self.forwarded_reads: dict[int, ForwardedRead] = {}
        self.forwarded_sequence = 0
        self.read_states: list[ReadState] = []
        self.reads_dropped: list[bytes] = []
        _check_storage(hard_state, self.log)

    @property
    def node_id(self) -> NodeId:
        return self.config.node_id

    @property
    def hard_state(self) -> HardState:
        return HardState(current_term=self.current_term, voted_for=self.voted_for)

    def equals_hard_state(self, other: HardState) -> bool:
        """``hard_state == other``, in less time."""
        return other.current_term == self.current_term and other.voted_for == self.voted_for

    @property
    def leading(self) -> Leadership:
        """The leader's state, where the caller knows that this node leads."""
        assert self.leadership is not None, f"{self.node_id} is no leader"
        return self.leadership

    @property
    def configuration(self) -> Configuration:
        """In force: the latest one in the log, committed or not (thesis 4.1)."""
        return self.configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        return self.configurations[-1][0]

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """All members but this one."""
        return tuple(node for node in self.configuration.members if node != self.node_id)

    @property
    def committed_in_own_term(self) -> bool:
        """Whether ``commit_index`` is known to be the group's: true once an entry of this leader's
        own term is committed (section 8)."""
        return self.log.matches(self.commit_index, self.current_term)

    def send(self, message: AnyMessage) -> None:
        """Queue a message; the gate decides when it may go."""
        assert message.target != self.node_id, "nobody writes to itself"
        self.gate.put(message, term_is_durable=self.equals_hard_state(self.durable_hard_state))

    def match_index_of(self, voter: NodeId) -> int:
        """How far a voter's log is durable and equal to this leader's."""
        if voter == self.node_id:
            return self.log.stable_index
        return self.leading.progress[voter].match_index

    def new_progress(self) -> Progress:
        """Figure 2: next_index starts at the leader's last log index + 1, match_index at 0."""
        inflights = Inflights(
            count_max=self.config.inflight_count_max, bytes_max=self.config.inflight_bytes_max
        )
        return Progress(next_index=self.log.last_index + 1, inflights=inflights)

    def restart_election_timer(self) -> None:
        """Start counting anew towards a fresh random timeout (5.2)."""
        self.election_elapsed_ticks = 0
        self.election_timeout_ticks = self.draw_election_timeout()
        assert self.election_timeout_ticks >= self.config.election_timeout_ticks, (
            "draw_election_timeout answers with at least election_timeout_ticks"
        )


def _configurations_in(storage: LogStorage) -> list[tuple[int, Configuration]]:
    """The snapshot's configuration and every later one in the log, as (index, configuration)."""
    metadata = storage.snapshot_metadata()
    found = [(metadata.last_included_index, metadata.configuration)]
    index, last = metadata.last_included_index + 1, storage.last_index()
    while index <= last:
        for entry in storage.entries(index, last, _SCAN_BYTES):
            if entry.kind is EntryKind.CONFIGURATION:
                found.append(_configuration_of(entry))
            index = entry.index + 1
    return found


def _configuration_of(entry: Entry) -> tuple[int, Configuration]:
    assert entry.configuration is not None, "a configuration entry carries its configuration"
    return entry.index, entry.configuration


def _check_storage(hard_state: HardState, log: RaftLog) -> None:
    """Refuse a log whose votes are lost: such a node could vote twice in one term."""
    if hard_state.current_term < log.last_term:
        raise CorruptLog(
            f"the log ends in term {log.last_term} but the recorded term is "
            f"{hard_state.current_term}: the vote record is missing; remove this member, empty its "
            "directory and add it as a new one"
        )
