"""Raft's invariants after every event, bit by bit (Figure 3 of the paper and its small print).

``minigfs.raft.invariants`` compares whole logs; that is too slow for every one of some thousand
events a second. The ledger looks at the one member an event touched, first at a handful of numbers,
and only if those changed at what is new in its log. What any member ever held, led or committed
stays in the ledger across crashes, so every later moment is held against all earlier ones.
"""

from collections import Counter
from collections.abc import Mapping

from minigfs.raft import Configuration, Entry, LogStorage, NodeId, Role
from minigfs.raft.core import RaftNode
from minigfs.raft.invariants import check_node
from minigfs.raft.state import NodeState
from minigfs.replication.peer_messages import PeerMessage
from tests.sim.checks.promises import Promises
from tests.sim.checks.shadow import Shadow
from tests.sim.violation import Violation, require

__all__ = ["Ledger"]

WHOLE_LOG_BYTES = 1 << 62
DEEP_CHECK_EVERY = 40  # events of which one is checked by minigfs.raft.invariants too


class Ledger:
    """What was true so far, of all members."""

    def __init__(self, coverage: Counter[str]) -> None:
        self._coverage = coverage
        self._promises = Promises()
        self._shadows: dict[NodeId, Shadow] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int | None]] = {}
        self._committed_terms: dict[int, int] = {}
        self._committed_in_term: dict[int, int] = {}
        self._leader_of_term: dict[int, NodeId] = {}
        self._events = 0
        self.commit_index = 0
        """The highest any member ever knew."""
        self.configuration = Configuration()
        """The latest that is committed."""
        self._configuration_index = 0
        self._configurations: dict[tuple[int, int], Configuration] = {}

    @property
    def leader_of_term(self) -> Mapping[int, NodeId]:
        return self._leader_of_term

    def possible_configurations(self) -> list[Configuration]:
        """The committed one, and all later ones that any log ever held."""
        later = (
            configuration
            for (index, _), configuration in self._configurations.items()
            if index > self._configuration_index
        )
        return [self.configuration, *later]

    # Lives

    def founded(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def started(self, member: NodeId, log: LogStorage) -> None:
        """A member begins a life with what is on its disk."""
        self._promises.restarted(member, log)
        shadow = self._shadows[member] = Shadow(log.first_index())
        for index in range(log.first_index(), log.last_index() + 1):
            shadow.terms.append(log.term(index))

    def sent(self, message: PeerMessage, log: LogStorage) -> None:
        self._promises.sent(message, log, self._shadows[message.source])

    # Events

    def observe(self, node: RaftNode) -> None:
        """The member may have changed: is all still true?"""
        self._events += 1
        state = node.state
        log = state.log
        shadow = self._shadows[state.config.node_id]
        key = (
            state.current_term,
            state.commit_index,
            state.last_applied,
            log.last_index,
            log.first_index,
            state.role,
            state.voted_for,
            log.stable_index,
        )
        if self._events % DEEP_CHECK_EVERY == 0:
            check_node(node)
        before = shadow.key
        if key == before:
            return
        shadow.key = key
        if before:
            _check_never_back(state, before)
        self._check_log(state, shadow)
        if state.role is Role.LEADER:
            self._check_leader(state, shadow)
        else:
            shadow.leading = None
        if not before or before[1] != state.commit_index:
            self._check_commit(state, shadow, int(before[1]) if before else 0)  # type: ignore[call-overload]

    def _check_log(self, state: NodeState, shadow: Shadow) -> None:
        """Log Matching by induction: (index, term) has one content and one predecessor."""
        log, name = state.log, state.node_id
        first, last = log.first_index, log.last_index
        if first > shadow.last_index + 1 or log.pending_snapshot is not None:
            shadow.restart_at(first)
            self._promises.overwritten(name, first, shadow)  # by a snapshot, tail and all
        elif first > shadow.base + 64:
            del shadow.terms[: first - shadow.base]
            shadow.base = first
        known_to = last
        while known_to >= first and shadow.term_at(known_to) != log.term_at(known_to):
            known_to -= 1
        if known_to < shadow.last_index:
            require(
                state.role is not Role.LEADER
                or shadow.leading is None
                or shadow.leading[0] != state.current_term,
                "leader overwrote its log",
                f"{name} leads in term {state.current_term} and cut its log at {known_to + 1}",
            )
            shadow.cut(known_to + 1)
            self._promises.overwritten(name, known_to + 1, shadow)
        if known_to < last:
            self._record(state, shadow, known_to + 1, last)

    def _record(self, state: NodeState, shadow: Shadow, first: int, last: int) -> None:
        previous: int | None = None
        if first > state.log.first_index:
            previous = state.log.term_at(first - 1)
        entries = state.log.entries(first, last, WHOLE_LOG_BYTES)
        require(
            len(entries) == last - first + 1, "hole in a log", f"{state.node_id}: {first}..{last}"
        )
        for index, entry in enumerate(entries, first):
            known, known_previous = self._entries.setdefault((index, entry.term), (entry, previous))
            if known_previous is None and previous is not None:
                self._entries[index, entry.term] = (known, previous)
                known_previous = previous
            if (known is not entry and known != entry) or (
                previous is not None and previous != known_previous
            ):
                raise Violation(
                    "log matching",
                    f"{state.node_id} holds {entry} after term {previous}; elsewhere it is "
                    f"{known} after term {known_previous}",
                )
            if entry.configuration is not None:
                self._record_configuration(state, entry)
            shadow.terms.append(entry.term)
            previous = entry.term

    def _record_configuration(self, state: NodeState, entry: Entry) -> None:
        """A leader appends one when the one before is committed, and something of its own term."""
        key = (entry.index, entry.term)
        if key in self._configurations or entry.configuration is None:
            return
        self._configurations[key] = entry.configuration
        if state.role is not Role.LEADER or entry.term != state.current_term:
            return
        before = [index for index, _ in state.configurations if index < entry.index]
        require(
            max(before, default=0) <= state.commit_index,
            "two changes in flight",
            f"{state.node_id} appends {entry} while {before} are not committed",
        )
        require(
            state.log.matches(state.commit_index, entry.term),
            "change before a commit in the own term",
            f"{state.node_id} appends {entry} with {state.commit_index} committed",
        )

    def _check_leader(self, state: NodeState, shadow: Shadow) -> None:
        term, name = state.current_term, state.node_id
        if shadow.leading is None or shadow.leading[0] != term:
            if term not in self._leader_of_term:
                self._coverage["elections"] += 1
            known = self._leader_of_term.setdefault(term, name)
            require(known == name, "two leaders", f"{known} and {name} both lead in term {term}")
            self._check_completeness(state, shadow)
        elif state.log.last_index < shadow.leading[1]:
            raise Violation("leader overwrote its log", f"{name}: it got shorter in term {term}")
        shadow.leading = (term, state.log.last_index)

    def _check_completeness(self, state: NodeState, shadow: Shadow) -> None:
        """Leader Completeness: all committed in earlier terms is there (5.4.3)."""
        for index in range(self.commit_index, state.log.first_index - 1, -1):
            if self._committed_in_term.get(index, state.current_term) >= state.current_term:
                continue
            require(
                shadow.term_at(index) == self._committed_terms[index],
                "leader incomplete",
                f"{state.node_id} leads in term {state.current_term}; entry {index} was committed "
                f"with term {self._committed_terms[index]}, here it is {shadow.term_at(index)}",
            )

    def _check_commit(self, state: NodeState, shadow: Shadow, before: int) -> None:
        commit_index, name = state.commit_index, state.node_id
        for index in range(max(before + 1, shadow.base), commit_index + 1):
            term = shadow.term_at(index)
            known = self._committed_terms.get(index)
            if known is None:
                assert term is not None, f"{name} committed {index} and does not hold it"
                self._committed_terms[index] = term
                self._committed_in_term[index] = state.current_term
                configuration = self._entries[index, term][0].configuration
                if configuration is not None:
                    self.configuration, self._configuration_index = configuration, index
                    self._coverage["membership changes"] += 1
            elif known != term:
                raise Violation(
                    "committed entry changed",
                    f"{name} commits entry {index} of term {term}; it was committed with {known}",
                )
        if commit_index > self.commit_index:
            if state.role is Role.LEADER:
                self._check_majority(state, commit_index)
            self.commit_index = commit_index

    def _check_majority(self, state: NodeState, index: int) -> None:
        """Who commits first is the leader: by an entry of its own term, with a real majority."""
        term = self._committed_terms[index]
        require(
            term == state.current_term,
            "old term committed by counting",
            f"{state.node_id} commits entry {index} of term {term} in term {state.current_term}",
        )
        voters = state.configuration.voters
        holders = [voter for voter in voters if self._holds(voter, index, term, state)]
        require(
            2 * len(holders) > len(voters),
            "committed without a majority",
            f"{state.node_id} commits entry {index} of term {term}; of {voters} only {holders} "
            "have it",
        )

    def _holds(self, voter: NodeId, index: int, term: int, leader: NodeState) -> bool:
        if voter == leader.node_id:
            return leader.log.stable_index >= index
        shadow = self._shadows.get(voter)
        return (
            shadow is not None
            and self._promises.acked_index(voter) >= index
            and shadow.term_at(index) in (term, None)
        )


def _check_never_back(state: NodeState, before: tuple[object, ...]) -> None:
    now = (state.current_term, state.commit_index, state.last_applied)
    require(
        now[0] >= before[0] and now[1] >= before[1] and now[2] >= before[2],  # type: ignore[operator]
        "something fell",
        f"{state.node_id}: (term, commit, applied) went from {before[:3]} to {now}",
    )
    require(
        now[0] != before[0] or before[6] in (None, state.voted_for),
        "two votes in a term",
        f"{state.node_id}: voted for {before[6]}, now for {state.voted_for} in term {now[0]}",
    )
    require(
        state.last_applied <= state.applying_index <= state.commit_index <= state.log.last_index,
        "applied above committed",
        f"{state.node_id}: {now}, applying {state.applying_index}, last {state.log.last_index}",
    )
