"""What must hold after every event (Figure 3 and its small print), as checks that raise.

``check_node`` looks at one node, ``check_cluster`` at the live nodes of a group side by side, and
``ClusterHistory`` remembers what was true before, across crashes. They read; they change nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from minigfs.raft.core import RaftNode
from minigfs.raft.errors import LogUnavailable
from minigfs.raft.progress import Progress, ProgressState
from minigfs.raft.ready import Role
from minigfs.raft.records import Entry, HardState, NodeId
from minigfs.raft.replication import committed_bytes
from minigfs.raft.state import NodeState

__all__ = ["ClusterHistory", "InvariantBroken", "check_cluster", "check_node"]

_WHOLE_LOG_BYTES = 1 << 62


class InvariantBroken(AssertionError):
    """Raft's promise is broken; the message says which and where."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvariantBroken(message)


# One node


def check_node(node: RaftNode) -> None:
    """Order of the indexes, term and vote, and a leader's view of the others."""
    state = node.state
    _check_indexes(state)
    _check_terms(state)
    _check_configurations(state)
    _require(
        (state.role is Role.LEADER) == (state.leadership is not None),
        f"{state.node_id} is {state.role} but its leader state says otherwise",
    )
    if state.leadership is not None:
        _check_leader(state)


def _check_indexes(state: NodeState) -> None:
    log, name = state.log, state.node_id
    ascending = (state.last_applied, state.applying_index, state.commit_index, log.last_index)
    _require(
        list(ascending) == sorted(ascending),
        f"{name}: applied <= applying <= committed <= last is broken by {ascending}",
    )
    if log.pending_snapshot is None and state.restore_due is None:
        _require(
            log.first_index - 1 <= state.applying_index <= log.stable_index,
            f"{name}: applies {state.applying_index} of {log.first_index}..{log.stable_index}",
        )


def _check_terms(state: NodeState) -> None:
    name, durable = state.node_id, state.durable_hard_state
    _require(
        durable.current_term <= state.current_term,
        f"{name}: term {state.current_term} is behind the recorded {durable.current_term}",
    )
    if durable.current_term == state.current_term and durable.voted_for is not None:
        _require(
            durable.voted_for == state.voted_for,
            f"{name}: voted for {state.voted_for} after {durable.voted_for} in one term",
        )
    terms = [position.term for position in state.log.unstable_positions()]
    _require(
        terms == sorted(terms) and state.log.last_term <= state.current_term,
        f"{name}: terms {terms} fall, or pass {state.current_term}",
    )


def _check_configurations(state: NodeState) -> None:
    indexes = [index for index, _ in state.configurations]
    _require(
        indexes == sorted(set(indexes)) and indexes[-1] <= state.log.last_index,
        f"{state.node_id}: configurations at {indexes} of {state.log.last_index} entries",
    )
    for (_, before), (index, after) in pairwise(state.configurations):
        _require(
            not before.voters or len(set(before.voters) ^ set(after.voters)) <= 1,
            f"{state.node_id}: more than one voter changes at {index}: {before} to {after}",
        )
    for _, configuration in state.configurations:
        ids = (*configuration.voters, *configuration.learners, *configuration.retired)
        _require(len(set(ids)) == len(ids), f"{state.node_id}: an id has two parts in {ids}")


def _check_leader(state: NodeState) -> None:
    name, leading = state.node_id, state.leading
    _require(state.leader_id == name, f"{name} leads but believes in {state.leader_id}")
    _require(
        state.durable_hard_state == state.hard_state,
        f"{name} leads in term {state.current_term}, which is not recorded",
    )
    _require(
        tuple(leading.progress) == state.peers,
        f"{name} follows {tuple(leading.progress)} instead of {state.peers}",
    )
    _require(
        leading.uncommitted_bytes == committed_bytes(state, state.log.last_index),
        f"{name}: {leading.uncommitted_bytes} uncommitted bytes are not what the log holds",
    )
    for peer, progress in leading.progress.items():
        _check_progress(state, peer, progress)


def _check_progress(state: NodeState, peer: NodeId, progress: Progress) -> None:
    name, config = f"{state.node_id}'s view of {peer}", state.config
    _require(
        0 <= progress.match_index < progress.next_index,
        f"{name}: match {progress.match_index} < next {progress.next_index} is broken",
    )
    _require(
        progress.match_index <= state.log.last_index, f"{name}: match is above the leader's log"
    )
    _require(
        progress.inflights.count <= config.inflight_count_max
        and (progress.inflights.count == 0 or progress.state is ProgressState.REPLICATE),
        f"{name}: {progress.inflights.count} in flight in state {progress.state}",
    )


# A group at one moment


def check_cluster(nodes: Sequence[RaftNode]) -> None:
    """Election Safety, Log Matching and State Machine Safety among live nodes (Figure 3).

    Compares whole logs: for small groups after interesting moments. ``ClusterHistory`` does the
    same bit by bit.
    """
    for node in nodes:
        check_node(node)
    for left, right in combinations([node.state for node in nodes], 2):
        both_lead = left.role is Role.LEADER and right.role is Role.LEADER
        _require(
            not both_lead or left.current_term != right.current_term,
            f"{left.node_id} and {right.node_id} both lead in term {left.current_term}",
        )
        _check_log_matching(left, right)


def _check_log_matching(left: NodeState, right: NodeState) -> None:
    """If two logs hold an entry with the same index and term, they are equal up to it."""
    first = max(left.log.first_index, right.log.first_index)
    last = min(left.log.last_index, right.log.last_index)
    pairs = list(
        zip(
            left.log.entries(first, last, _WHOLE_LOG_BYTES),
            right.log.entries(first, last, _WHOLE_LOG_BYTES),
            strict=True,
        )
    )
    committed = min(left.commit_index, right.commit_index)
    names = f"{left.node_id} and {right.node_id}"
    must_be_equal = False
    for one, other in reversed(pairs):
        must_be_equal = must_be_equal or one.term == other.term or one.index <= committed
        _require(not must_be_equal or one == other, f"{names} differ at {one} and {other}")


# A group over time


class ClusterHistory:
    """Everything promised so far, to be held against every later moment.

    Call ``observe`` after each event with the live nodes and those the event touched, and
    ``crashed`` when a node loses its memory.
    """

    def __init__(self) -> None:
        self._leader_of_term: dict[int, NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._committed: dict[int, Entry] = {}
        self._committed_in_term: dict[int, int] = {}
        self._durable: dict[NodeId, HardState] = {}
        self._life: dict[NodeId, tuple[int, int, int]] = {}
        self._leader_log: dict[NodeId, tuple[int, int, int]] = {}

    @property
    def leader_count(self) -> int:
        return len(self._leader_of_term)

    @property
    def committed(self) -> dict[int, Entry]:
        """Every entry any node has known to be committed, by index."""
        return self._committed

    def crashed(self, node_id: NodeId) -> None:
        self._life.pop(node_id, None)
        self._leader_log.pop(node_id, None)

    def observe(self, nodes: Iterable[RaftNode], touched: Iterable[RaftNode]) -> None:
        for node in touched:
            check_node(node)
            self._check_durable_vote(node.state)
            self._record_entries(node.state)
            self._check_commits(node.state)
            self._check_leader(node.state)
        self._check_matches({node.node_id: node.state for node in nodes})

    def _check_durable_vote(self, state: NodeState) -> None:
        """Terms never fall and a vote in a term is never changed, crashes or not (5.2)."""
        before = self._durable.get(state.node_id, HardState())
        now = state.durable_hard_state
        _require(
            now.current_term > before.current_term
            or (
                now.current_term == before.current_term
                and before.voted_for in (None, now.voted_for)
            ),
            f"{state.node_id}: recorded {now} after {before}",
        )
        self._durable[state.node_id] = now

    def _record_entries(self, state: NodeState) -> None:
        """Log Matching by induction: one content and one predecessor for each (index, term)."""
        for index, term in ((p.index, p.term) for p in state.log.unstable_positions()):
            entry = state.log.entries(index, index, 1)[0]
            try:
                previous_term = state.log.term_at(index - 1)
            except LogUnavailable:
                continue
            known = self._entries.setdefault((index, term), (entry, previous_term))
            _require(
                known == (entry, previous_term),
                f"{state.node_id}: {entry} after term {previous_term}, elsewhere {known}",
            )

    def _check_commits(self, state: NodeState) -> None:
        """What is committed stays, everywhere; commit, term and applied only grow in a life."""
        now = (state.current_term, state.commit_index, state.last_applied)
        before = self._life.get(state.node_id, (0, state.log.first_index - 1, 0))
        _require(
            all(later >= earlier for later, earlier in zip(now, before, strict=True)),
            f"{state.node_id}: (term, commit, applied) went from {before} to {now}",
        )
        self._life[state.node_id] = now
        first = max(before[1] + 1, state.log.first_index)
        for entry in state.log.entries(first, state.commit_index, _WHOLE_LOG_BYTES):
            known = self._committed.setdefault(entry.index, entry)
            self._committed_in_term.setdefault(entry.index, state.current_term)
            _require(known == entry, f"{state.node_id} committed {entry}, another node {known}")

    def _check_leader(self, state: NodeState) -> None:
        """Election Safety, Leader Append-Only and Leader Completeness (Figure 3)."""
        if state.role is not Role.LEADER:
            self._leader_log.pop(state.node_id, None)
            return
        term, name = state.current_term, state.node_id
        known = self._leader_of_term.setdefault(term, name)
        _require(known == name, f"{known} and {name} both led in term {term}")
        log_before = self._leader_log.get(name)
        if log_before is None or log_before[0] != term:
            self._check_completeness(state)
        else:
            _require(
                state.log.matches(log_before[1], log_before[2])
                or log_before[1] < state.log.first_index,
                f"{name} overwrote its own entry {log_before[1]} while it led in term {term}",
            )
        self._leader_log[name] = (term, state.log.last_index, state.log.last_term)

    def _check_completeness(self, state: NodeState) -> None:
        """A new leader's log holds every entry committed in earlier terms (5.4.3)."""
        for index, entry in self._committed.items():
            earlier = self._committed_in_term[index] < state.current_term
            if index >= state.log.first_index and earlier:
                _require(
                    state.log.matches(index, entry.term),
                    f"{state.node_id} leads in term {state.current_term} without {entry}",
                )

    def _check_matches(self, states: dict[NodeId, NodeState]) -> None:
        """A leader believes of a follower only what is on the follower's disk."""
        for leader in states.values():
            if leader.leadership is None:
                continue
            for peer, progress in leader.leadership.progress.items():
                follower = states.get(peer)
                if follower is None or follower.current_term != leader.current_term:
                    continue
                _require(
                    follower.log.pending_snapshot is not None
                    or progress.match_index <= follower.log.stable_index,
                    f"{leader.node_id} counts on {progress.match_index} at {peer}, whose disk "
                    f"holds {follower.log.stable_index}",
                )
