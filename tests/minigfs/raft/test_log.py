"""The log against a list: any order of merges, writes that end late, snapshots and compactions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minigfs.raft import Entry, MemoryStorage, Persist, PersistToken, Snapshot, SnapshotMetadata
from minigfs.raft.errors import Compacted, NotYetWritten
from minigfs.raft.log import RaftLog
from minigfs.raft.storage import take_bytes

_ANY_BYTES = 1 << 30


class LogAgainstList(RuleBasedStateMachine):
    """``model`` holds what a log of infinite memory would: index -> term from 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.log = RaftLog(self.storage)
        self.model: list[int] = []
        self.first = 1
        self.commit = 0
        self.durable = 0
        self.writing: Persist | None = None
        self.writing_terms: list[int] = []

    def entries(self, first: int, terms: list[int]) -> list[Entry]:
        return [Entry(index=first + offset, term=term) for offset, term in enumerate(terms)]

    @rule(new_terms=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def append(self, new_terms: list[int]) -> None:
        term = self.model[-1] if self.model else 1
        terms = [term := term + step for step in new_terms]
        self.log.append(self.entries(len(self.model) + 1, terms))
        self.model += terms

    @rule(data=st.data(), new_terms=st.lists(st.integers(0, 1), max_size=4))
    def merge(self, data: st.DataObject, new_terms: list[int]) -> None:
        """A leader's message: some entries this log has, then perhaps others of a later term."""
        lowest = max(self.commit, self.first - 1)
        prev = data.draw(st.integers(lowest, len(self.model)))
        shared = data.draw(st.integers(prev, len(self.model)))
        term = (self.model[-1] if self.model else 0) + 1
        terms = [term := term + step for step in new_terms]
        message = self.entries(prev + 1, self.model[prev:shared] + terms)
        deleted_from = self.log.merge(message, commit_index=self.commit)
        conflicts = bool(terms) and shared < len(self.model)
        assert deleted_from == (shared + 1 if conflicts else None)
        if terms:
            self.model = self.model[:shared] + terms
            self.durable = min(self.durable, shared)

    @precondition(lambda self: self.writing is None and self.log.has_unwritten)
    @rule()
    def begin_write(self) -> None:
        snapshot, entries = self.log.begin_write()
        self.writing = Persist(
            token=PersistToken(1), snapshot=snapshot, hard_state=None, entries=entries
        )
        self.writing_terms = list(self.model)

    @precondition(lambda self: self.writing is not None)
    @rule()
    def end_write(self) -> None:
        assert self.writing is not None
        self.storage.save(self.writing)
        self.log.end_write()
        self.writing = None

    @rule(data=st.data())
    def commit_some(self, data: st.DataObject) -> None:
        self.commit = data.draw(st.integers(self.commit, len(self.model)))

    @precondition(lambda self: self.writing is None and self.log.pending_snapshot is None)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        limit = min(self.commit, self.log.stable_index)
        if limit < self.first:
            return
        index = data.draw(st.integers(self.first, limit))
        metadata = SnapshotMetadata(
            last_included_index=index, last_included_term=self.model[index - 1]
        )
        if index >= self.storage.snapshot_metadata().last_included_index:
            self.storage.save_snapshot(Snapshot(metadata=metadata))
            self.storage.compact(index)
            self.first = index + 1

    @rule(distance=st.integers(1, 3))
    def restore(self, distance: int) -> None:
        index = len(self.model) + distance
        term = (self.model[-1] if self.model else 0) + 1
        metadata = SnapshotMetadata(last_included_index=index, last_included_term=term)
        self.log.restore(Snapshot(metadata=metadata))
        self.model += [term] * distance
        self.first, self.commit = index + 1, index

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert (self.log.first_index, self.log.last_index) == (self.first, len(self.model))
        held = self.log.entries(self.first, len(self.model), _ANY_BYTES)
        assert [entry.term for entry in held] == self.model[self.first - 1 :]
        assert [entry.index for entry in held] == list(range(self.first, len(self.model) + 1))

    @invariant()
    def what_is_stable_is_in_storage(self) -> None:
        stable = self.log.stable_index
        if stable >= self.first:
            stored = self.storage.entries(self.first, stable, _ANY_BYTES)
            assert [entry.term for entry in stored] == self.model[self.first - 1 : stable]

    @invariant()
    def everything_is_stable_once_written(self) -> None:
        if self.writing is None and not self.log.has_unwritten:
            assert self.log.stable_index == len(self.model)
            assert self.storage.last_index() >= len(self.model)


LogAgainstList.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_a_log_behaves_like_a_list = LogAgainstList.TestCase


def log_of(terms: list[int]) -> RaftLog:
    storage = MemoryStorage()
    entries = tuple(Entry(index=index, term=term) for index, term in enumerate(terms, start=1))
    storage.save(Persist(token=PersistToken(1), snapshot=None, hard_state=None, entries=entries))
    return RaftLog(storage)


ascending = st.lists(st.integers(1, 6), max_size=12).map(sorted)


@given(ascending, ascending)
def test_logs_are_compared_by_last_term_then_length(mine: list[int], theirs: list[int]) -> None:
    last_term = theirs[-1] if theirs else 0
    my_term = mine[-1] if mine else 0
    expected = last_term > my_term or (last_term == my_term and len(theirs) >= len(mine))
    assert log_of(mine).is_up_to_date(len(theirs), last_term) == expected


@given(ascending, ascending, ascending)
def test_a_hint_never_passes_a_match_and_skips_a_term_each(
    shared: list[int], leader_tail: list[int], follower_tail: list[int]
) -> None:
    """Leader and follower take turns as in the protocol, down from the leader's last entry.

    The tails have even and odd terms: in Raft, logs that differ share no entry behind that.
    """
    leader_terms = shared + [10 + 2 * term for term in leader_tail]
    follower_terms = shared + [11 + 2 * term for term in follower_tail]
    leader, follower = log_of(leader_terms), log_of(follower_terms)
    prev, rounds = len(leader_terms), 0
    while not follower.matches(prev, leader.term_at(prev)):
        hint, hint_term = follower.last_match_by_term(
            min(prev, follower.last_index), leader.term_at(prev)
        )
        if hint_term:
            hint, _ = leader.last_match_by_term(hint, hint_term)
        assert hint < prev, "each rejection is progress"
        assert hint >= len(shared), "and passes no match"
        prev, rounds = hint, rounds + 1
    assert prev == len(shared)
    assert rounds <= min(len(set(leader_tail)), len(set(follower_tail))) + 1


def test_the_ends_of_the_log_say_which_end() -> None:
    log = log_of([1, 1, 2])
    assert log.term_at(0) == 0
    with pytest.raises(NotYetWritten):
        log.term_at(4)
    log.restore(Snapshot(metadata=SnapshotMetadata(last_included_index=9, last_included_term=3)))
    assert log.term_at(9) == 3
    with pytest.raises(Compacted):
        log.term_at(8)
    with pytest.raises(Compacted):
        log.entries(8, 9, 1)


@given(st.lists(st.integers(0, 50), max_size=10), st.integers(1, 200))
def test_a_batch_is_the_longest_within_its_bytes_and_never_empty(
    sizes: list[int], bytes_max: int
) -> None:
    entries = [
        Entry(index=index, term=1, data=b"x" * size) for index, size in enumerate(sizes, start=1)
    ]
    taken = take_bytes(entries, bytes_max)
    assert list(taken) == entries[: len(taken)]
    assert bool(taken) == bool(entries)
    total = sum(entry.size_bytes for entry in taken)
    assert len(taken) == 1 or total <= bytes_max
    if 0 < len(taken) < len(entries):
        assert total + entries[len(taken)].size_bytes > bytes_max


def test_a_batch_cut_in_storage_does_not_go_on_with_the_tail() -> None:
    """Entry 2 is too large for the batch; entry 3, not stored yet, would fit: no batch is 1, 3."""
    storage = MemoryStorage()
    storage.save(
        Persist(
            token=PersistToken(0),
            snapshot=None,
            hard_state=None,
            entries=(Entry(index=1, term=1), Entry(index=2, term=1, data=b"x" * 500)),
        )
    )
    log = RaftLog(storage)
    log.append([Entry(index=3, term=1)])
    for bytes_max, indexes in ((100, [1]), (580, [1, 2]), (700, [1, 2, 3])):
        assert [entry.index for entry in log.entries(1, 3, bytes_max)] == indexes
