"""The limits and switches of one node. Ticks are the only unit of time."""

from dataclasses import dataclass

from minigfs.errors import InvalidConfig
from minigfs.raft.records import NodeId

__all__ = ["RaftConfig"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Settings of a node; all members of a group should have the same, apart from ``node_id``.

    ``pre_vote`` (thesis 9.6), ``check_quorum`` (6.2) and ``refuse_votes_while_led`` (4.2.3) belong
    together: the first keeps terms from growing, the second replaces a leader that hears nobody,
    the third keeps a node that hears nobody from deposing a leader the others hear. Turn one off
    only to show what it is for.
    """

    node_id: NodeId
    election_timeout_ticks: int = 10
    """Shortest silence before an election; the injected source draws the actual ones."""
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    refuse_votes_while_led: bool = True
    message_bytes_max: int = _MIB
    """Entries in one AppendEntries; a single larger entry still travels, alone (etcd: 1 MiB)."""
    inflight_count_max: int = 256
    """AppendEntries on the way to one peer (etcd's server: 512)."""
    inflight_bytes_max: int = 16 * _MIB
    uncommitted_bytes_max: int = 64 * _MIB
    """Command bytes the leader holds uncommitted before ``propose`` raises ProposalDropped."""
    apply_bytes_max: int = 4 * _MIB
    """Committed entries in one Ready, so that applying never stalls the loop for long."""
    pending_reads_max: int = 4096
    commit_news_at_once: bool = True
    """Tell followers of every commit without delay, as Raft does. A leader that does not lets the
    next entries or heartbeats say it, or ``RaftNode.tell_commit``: half as many messages."""
    thrifty: bool = False
    """Send new entries to a majority at once, and to the others in runs: the driver calls
    ``RaftNode.tell_rest`` a moment after it ``has_untold`` (see ``thrift``)."""
    snapshot_retry_ticks: int = 100
    """A snapshot neither acknowledged nor reported for so long is taken for lost and sent again."""
    incarnation: int = 0
    """A number this node id has not used in an earlier life (a random one will do). It marks reads
    forwarded to the leader: an answer meant for the life before must not confirm a read of this."""

    def __post_init__(self) -> None:
        if self.heartbeat_ticks < 1:
            raise InvalidConfig(f"heartbeat_ticks is {self.heartbeat_ticks}; it must be at least 1")
        if self.election_timeout_ticks <= self.heartbeat_ticks:
            raise InvalidConfig(
                f"election_timeout_ticks is {self.election_timeout_ticks}; it must exceed "
                f"heartbeat_ticks ({self.heartbeat_ticks}), ten times is usual"
            )
        for name in (
            "message_bytes_max",
            "inflight_count_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "apply_bytes_max",
            "pending_reads_max",
            "snapshot_retry_ticks",
        ):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"{name} is {getattr(self, name)}; it must be at least 1")
