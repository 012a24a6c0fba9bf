"""The paper, sentence by sentence: each test names the section and the sentence it holds us to.

"Figure 2" and sections are those of the extended version; "thesis" is Ongaro's dissertation.
"""

import dataclasses
import random

import pytest

from minigfs.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogPosition,
    MemoryStorage,
    NodeId,
    Persist,
    PersistToken,
    RaftConfig,
    RaftNode,
    Role,
)
from minigfs.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    RequestVote,
    RequestVoteReply,
)
from tests.minigfs.raft.group import ELECTION_TICKS, Group, names

A, B, C, D, E = (NodeId(name) for name in "12345")


def storage_with(terms: list[int], *, term: int | None = None, size: int = 3) -> MemoryStorage:
    """A disk with entries 1.. of these terms, in a group of ``size`` voters."""
    storage = MemoryStorage(Configuration(voters=tuple(names(size))))
    entries = tuple(
        Entry(index=index, term=entry_term, data=b"%d" % index)
        for index, entry_term in enumerate(terms, start=1)
    )
    current = term if term is not None else max(terms, default=0)
    storage.save(
        Persist(
            token=PersistToken(0),
            snapshot=None,
            hard_state=HardState(current_term=current),
            entries=entries,
        )
    )
    return storage


def plain_node(storage: MemoryStorage, node_id: NodeId = A) -> RaftNode:
    """The paper's Raft, without the guards it does not have."""
    config = RaftConfig(
        node_id=node_id, pre_vote=False, check_quorum=False, refuse_votes_while_led=False
    )
    rng = random.Random(1)
    return RaftNode(config, storage, lambda: rng.randrange(ELECTION_TICKS, 2 * ELECTION_TICKS))


def plain(config: RaftConfig) -> RaftConfig:
    return dataclasses.replace(
        config, pre_vote=False, check_quorum=False, refuse_votes_while_led=False
    )


def drain(node: RaftNode, storage: MemoryStorage) -> list[object]:
    """Do all that is due; the messages that came out."""
    messages: list[object] = []
    while node.has_ready():
        ready = node.ready()
        messages += ready.messages
        if ready.persist is not None:
            storage.save(ready.persist)
        node.advance(ready)
    return messages


def append(
    *entries: Entry,
    prev: tuple[int, int] = (0, 0),
    term: int = 1,
    commit: int = 0,
    source: NodeId = B,
) -> AppendEntries:
    return AppendEntries(
        source=source,
        target=A,
        term=term,
        prev_log_index=prev[0],
        prev_log_term=prev[1],
        entries=entries,
        leader_commit=commit,
    )


def ask(term: int, *, last: tuple[int, int] = (0, 0), source: NodeId = B) -> RequestVote:
    return RequestVote(
        source=source, target=A, term=term, last_log_index=last[0], last_log_term=last[1]
    )


def vote(term: int, source: NodeId, granted: bool = True) -> RequestVoteReply:
    return RequestVoteReply(source=source, target=A, term=term, vote_granted=granted)


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index=index, term=term, data=data)


def leader_of_three(storage: MemoryStorage | None = None) -> tuple[RaftNode, MemoryStorage]:
    storage = storage or storage_with([])
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    node.step(vote(node.status().current_term, B))
    assert node.status().role is Role.LEADER
    return node, storage


# 5.1 Raft basics


@pytest.mark.parametrize("role", list(Role))
def test_5_1_a_larger_term_is_adopted_and_makes_a_follower(role: Role) -> None:
    """If one server's current term is smaller than the other's, it updates; a candidate or leader
    that discovers its term is out of date immediately reverts to follower state."""
    storage = storage_with([])
    node = plain_node(storage)
    if role is not Role.FOLLOWER:
        node.campaign()
        drain(node, storage)
    if role is Role.LEADER:
        node.step(vote(1, B))
    node.step(append(term=5))
    assert node.status().role is Role.FOLLOWER
    assert node.status().current_term == 5
    assert node.leader_id == B


def test_5_1_a_request_with_a_stale_term_is_refused() -> None:
    """If a server receives a request with a stale term number, it rejects the request."""
    storage = storage_with([1, 2], term=3)
    node = plain_node(storage)
    node.step(append(entry(3, 2), prev=(2, 2), term=2))
    node.step(ask(2, last=(9, 2)))
    replies = drain(node, storage)
    assert [type(reply) for reply in replies] == [AppendEntriesReply, RequestVoteReply]
    assert replies[0].success is False  # type: ignore[attr-defined]
    assert replies[1].vote_granted is False  # type: ignore[attr-defined]
    assert {reply.term for reply in replies} == {3}  # type: ignore[attr-defined]
    assert node.status().last_index == 2


def test_5_1_a_stale_answer_is_dropped() -> None:
    """A success of an older term must not advance match_index: the entries may be gone since."""
    node, storage = leader_of_three(storage_with([1, 1], term=4))
    drain(node, storage)
    node.step(
        AppendEntriesReply(
            source=B, target=A, term=4, success=True, prev_log_index=2, match_index=3
        )
    )
    assert node.status().peers[B].match_index == 0
    assert node.status().commit_index == 0


# 5.2 Leader election


def test_5_2_servers_start_as_followers() -> None:
    """When servers start up, they begin as followers."""
    assert plain_node(storage_with([1, 2])).status().role is Role.FOLLOWER


def test_5_2_a_leader_sends_heartbeats() -> None:
    """Leaders send periodic heartbeats to all followers in order to maintain their authority."""
    node, storage = leader_of_three()
    drain(node, storage)
    node.tick()
    beats = [message for message in drain(node, storage) if isinstance(message, Heartbeat)]
    assert [beat.target for beat in beats] == [B, C]


def test_5_2_silence_starts_an_election() -> None:
    """If a follower receives no communication over the election timeout it begins an election: it
    increments its current term and transitions to candidate state, votes for itself, and issues
    RequestVote RPCs in parallel to each of the other servers."""
    storage = storage_with([])
    node = plain_node(storage)
    for _ in range(2 * ELECTION_TICKS):
        node.tick()
        if node.status().role is Role.CANDIDATE:
            break
    requests = drain(node, storage)
    assert node.status().current_term == 1
    assert storage.hard_state() == HardState(current_term=1, voted_for=A)
    assert [(type(r), r.target) for r in requests] == [  # type: ignore[attr-defined]
        (RequestVote, B),
        (RequestVote, C),
    ]


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (1, {}, Role.LEADER),
        (3, {}, Role.CANDIDATE),
        (3, {B: True}, Role.LEADER),
        (3, {B: False}, Role.CANDIDATE),
        (3, {B: False, C: False}, Role.FOLLOWER),
        (5, {B: True}, Role.CANDIDATE),
        (5, {B: True, C: True}, Role.LEADER),
        (5, {B: True, C: False, D: False, E: False}, Role.FOLLOWER),
        (4, {B: True}, Role.CANDIDATE),
        (4, {B: True, C: True}, Role.LEADER),
    ],
)
def test_5_2_a_majority_of_the_full_cluster_wins(
    size: int, votes: dict[NodeId, bool], role: Role
) -> None:
    """A candidate wins an election if it receives votes from a majority of the servers in the full
    cluster for the same term."""
    storage = storage_with([], size=size)
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    for voter, granted in votes.items():
        node.step(vote(1, voter, granted))
    assert node.status().role is role


def test_5_2_one_voter_counts_once() -> None:
    """Each server votes for at most one candidate: a doubled reply is one vote."""
    storage = storage_with([], size=5)
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    for _ in range(5):
        node.step(vote(1, B))
    assert node.status().role is Role.CANDIDATE


def test_5_2_strangers_do_not_vote() -> None:
    """Votes count from servers of the cluster only."""
    storage = storage_with([])
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    node.step(vote(1, NodeId("stranger")))
    assert node.status().role is Role.CANDIDATE


def test_5_2_first_come_first_served() -> None:
    """Each server will vote for at most one candidate in a given term, on a first-come-first-served
    basis; the same candidate may ask again."""
    storage = storage_with([])
    node = plain_node(storage)
    answers = []
    for candidate in (B, C, B):
        node.step(ask(1, source=candidate))
        answers += drain(node, storage)
    assert [answer.vote_granted for answer in answers] == [True, False, True]  # type: ignore[attr-defined]


def test_5_2_the_vote_outlives_the_process() -> None:
    """Figure 2: voted_for is persistent; after a crash the vote of the term is still given."""
    storage = storage_with([])
    node = plain_node(storage)
    node.step(ask(1, source=B))
    drain(node, storage)
    node = plain_node(storage)
    node.step(ask(1, source=C))
    (answer,) = drain(node, storage)
    assert answer.vote_granted is False  # type: ignore[attr-defined]


def test_5_2_stepping_down_within_a_term_keeps_the_vote() -> None:
    """A candidate that finds another leader of its term has still voted for itself in it."""
    storage = storage_with([])
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    node.step(append(term=1))
    assert node.status().role is Role.FOLLOWER
    assert node.status().voted_for == A


def test_5_2_a_candidate_recognises_the_leader_of_its_term() -> None:
    """If the leader's term is at least as large as the candidate's current term, then the candidate
    recognizes the leader as legitimate and returns to follower state."""
    storage = storage_with([])
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    node.step(append(term=1))
    assert (node.status().role, node.leader_id) == (Role.FOLLOWER, B)


def test_5_2_a_candidate_ignores_an_older_leader() -> None:
    """If the term in the RPC is smaller, the candidate rejects the RPC and continues."""
    storage = storage_with([], term=4)
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    node.step(append(term=4))
    assert node.status().role is Role.CANDIDATE


def test_5_2_each_candidate_restarts_with_a_new_random_timeout() -> None:
    """Election timeouts are chosen randomly from a fixed interval; each candidate restarts its
    randomized election timeout at the start of an election."""
    drawn: list[int] = []
    rng = random.Random(3)

    def draw() -> int:
        drawn.append(rng.randrange(ELECTION_TICKS, 2 * ELECTION_TICKS))
        return drawn[-1]

    config = RaftConfig(node_id=A, pre_vote=False)
    node = RaftNode(config, storage_with([]), draw)
    elections: list[int] = []
    for tick in range(1, 2000):
        node.tick()
        if node.status().current_term > len(elections):
            elections.append(tick)
    waits = [later - earlier for earlier, later in zip([0, *elections], elections, strict=False)]
    assert waits == drawn[: len(waits)]
    assert set(waits) == set(range(ELECTION_TICKS, 2 * ELECTION_TICKS))


def test_5_2_split_votes_end() -> None:
    """Randomized timeouts ensure that split votes are rare and that they are resolved quickly."""
    for seed in range(30):
        group = Group(5, seed=seed, configure=plain)
        assert group.await_leader(60).node.status().current_term <= 5


# 5.3 Log replication


def test_5_3_the_leader_appends_then_replicates_then_commits() -> None:
    """The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
    parallel; when the entry has been safely replicated, the leader applies it."""
    node, storage = leader_of_three()
    drain(node, storage)
    assert node.propose(b"set x") == LogPosition(2, 1)
    sends = [message for message in drain(node, storage) if isinstance(message, AppendEntries)]
    assert node.status().commit_index == 0
    assert {message.target for message in sends} <= {B, C}
    node.step(
        AppendEntriesReply(
            source=B, target=A, term=1, success=True, prev_log_index=0, match_index=2
        )
    )
    assert node.status().commit_index == 2
    drain(node, storage)
    assert node.status().last_applied == 2


def test_5_3_an_entry_is_committed_once_a_majority_stores_it() -> None:
    """A log entry is committed once the leader that created the entry has replicated it on a
    majority of the servers; not before, and the leader's own disk counts like any other."""
    group = Group(5)
    group.elect("1")
    group.isolate("1")
    group.propose(b"alone", at="1")
    assert group["1"].node.status().commit_index == 1
    group.heal()
    for name in ("4", "5"):
        group.isolate(name)
    group.tick()
    assert group["1"].node.status().commit_index == 2


def test_5_3_followers_learn_what_is_committed_and_apply_in_log_order() -> None:
    """Once a follower learns that a log entry is committed, it applies the entry to its local state
    machine (in log order)."""
    group = Group(3)
    group.elect("1")
    for number in range(20):
        group.propose(b"%d" % number)
    for member in group.alive:
        assert member.machine == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("prev", [(1, 2), (3, 2), (2, 1), (9, 9)])
def test_5_3_the_consistency_check_refuses_a_gap(prev: tuple[int, int]) -> None:
    """If the follower does not find an entry in its log with the same index and term, then it
    refuses the new entries."""
    storage = storage_with([1, 2])
    node = plain_node(storage)
    node.step(append(entry(prev[0] + 1, 9), prev=prev, term=9))
    (reply,) = drain(node, storage)
    assert isinstance(reply, AppendEntriesReply)
    assert not reply.success
    assert node.status().last_index == 2


@pytest.mark.parametrize(
    ("prev", "sent", "expected"),
    [
        ((2, 2), [(3, 3)], [1, 2, 3]),  # appends
        ((1, 1), [(2, 3), (3, 4)], [1, 3, 4]),  # 2 conflicts: it and all that follow go
        ((0, 0), [(1, 1)], [1, 2]),  # already there: nothing is removed
        ((0, 0), [(1, 3)], [3]),
        ((2, 2), [], [1, 2]),
        ((1, 1), [], [1, 2]),  # an old probe removes nothing
    ],
)
def test_5_3_conflicts_are_overwritten_and_nothing_else(
    prev: tuple[int, int], sent: list[tuple[int, int]], expected: list[int]
) -> None:
    """Figure 2, AppendEntries 3 and 4: if an existing entry conflicts with a new one, delete the
    existing entry and all that follow it; append any new entries not already in the log."""
    storage = storage_with([1, 2])
    node = plain_node(storage)
    node.step(append(*(entry(*item) for item in sent), prev=prev, term=5))
    drain(node, storage)
    assert [item.term for item in storage.entries(1, storage.last_index(), 1 << 20)] == expected


@pytest.mark.parametrize(
    ("prev", "sent", "commit", "expected"),
    [
        ((0, 0), [], 3, 0),
        ((1, 1), [], 3, 1),  # the message covers entry 1 only; entry 2 may be another leader's
        ((1, 1), [(2, 2)], 9, 2),
        ((2, 2), [(3, 2)], 1, 1),
    ],
)
def test_5_3_the_commit_index_stays_within_what_was_checked(
    prev: tuple[int, int], sent: list[tuple[int, int]], commit: int, expected: int
) -> None:
    """Figure 2, AppendEntries 5: commit_index = min(leader_commit, index of last new entry)."""
    node = plain_node(storage_with([1, 2]))
    node.step(append(*(entry(*item) for item in sent), prev=prev, term=3, commit=commit))
    assert node.status().commit_index == expected


def test_5_3_next_index_starts_behind_the_last_entry() -> None:
    """When a leader first comes to power, it initializes all nextIndex values to the index just
    after the last one in its log."""
    node, storage = leader_of_three(storage_with([1, 1, 2]))
    peers = node.status().peers
    assert {peer: (view.next_index, view.match_index) for peer, view in peers.items()} == {
        B: (4, 0),
        C: (4, 0),
    }
    del storage


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("case", FIGURE_7)
def test_5_3_figure_7_every_follower_becomes_equal_with_one_rejection(case: str) -> None:
    """A leader brings a follower's log into consistency with its own by forcing it to duplicate the
    leader's; and with the optimization at the end of 5.3 one rejection is enough here."""
    storages = {
        A: storage_with(FIGURE_7_LEADER, term=7),
        B: storage_with(FIGURE_7[case], term=7),
        C: storage_with([1, 1, 1], term=7),
    }
    group = Group(3, storages=storages)
    group.elect("1")
    rejections = [
        message
        for message in group.sent
        if isinstance(message, AppendEntriesReply) and message.source == B and not message.success
    ]
    assert len(rejections) <= 1
    assert group.terms("2") == group.terms("1") == [0, *FIGURE_7_LEADER, 8]
    group.check_all()


def test_5_3_a_leader_never_overwrites_its_own_log() -> None:
    """Leader Append-Only: a leader never overwrites or deletes entries in its log."""
    group = Group(3, storages={A: storage_with([1, 2], term=2), B: storage_with([1], term=2)})
    group.elect("1")
    assert group.terms("1")[:3] == [0, 1, 2]
    group.check_all()


# 5.4 Safety


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1], (1, 2), True),
        ([1, 1, 1], (1, 2), True),  # the later term wins over the longer log
        ([2], (9, 1), False),
        ([], (0, 0), True),
    ],
)
def test_5_4_1_the_voter_denies_its_vote_to_an_older_log(
    mine: list[int], theirs: tuple[int, int], granted: bool
) -> None:
    """The voter denies its vote if its own log is more up-to-date than that of the candidate: later
    term first, then length."""
    storage = storage_with(mine, term=5)
    node = plain_node(storage)
    node.step(ask(6, last=theirs))
    (reply,) = drain(node, storage)
    assert reply.vote_granted is granted  # type: ignore[attr-defined]
    assert node.status().current_term == 6


def test_5_4_2_figure_8_an_old_entry_is_not_committed_by_counting() -> None:
    """Only log entries from the leader's current term are committed by counting replicas; once one
    is, all prior entries are committed indirectly."""
    storage = storage_with([1, 2], term=3, size=5)
    node = plain_node(storage)
    node.campaign()
    drain(node, storage)
    for voter in (B, C):
        node.step(vote(4, voter))
    drain(node, storage)
    for follower in (B, C):
        node.step(
            AppendEntriesReply(
                source=follower, target=A, term=4, success=True, prev_log_index=1, match_index=2
            )
        )
    assert node.status().commit_index == 0, "entry 2 is on a majority, but of term 2"
    for follower in (B, C):
        node.step(
            AppendEntriesReply(
                source=follower, target=A, term=4, success=True, prev_log_index=2, match_index=3
            )
        )
    assert node.status().commit_index == 3


# 5.5, 5.6


def test_5_5_requests_are_idempotent() -> None:
    """Raft RPCs are idempotent: a repeated AppendEntries is answered the same and changes
    nothing."""
    storage = storage_with([])
    node = plain_node(storage)
    request = append(entry(1, 1), entry(2, 1), term=1)
    node.step(request)
    first = drain(node, storage)
    node.step(request)
    assert drain(node, storage) == first
    assert storage.last_index() == 2


def test_5_5_a_restarted_server_goes_on() -> None:
    """If a server crashes and restarts, the RPCs complete successfully after all."""
    group = Group(3)
    group.elect("1")
    group.propose(b"before")
    group.crash("2")
    group.propose(b"meanwhile")
    group.restart("2")
    group.tick(3)
    assert group["2"].machine == [b"before", b"meanwhile"]


# 6 and thesis 4: the timer rules that keep removed servers harmless


def test_6_votes_are_ignored_while_a_leader_is_heard() -> None:
    """If a server receives a RequestVote RPC within the minimum election timeout of hearing from a
    current leader, it does not update its term or grant its vote."""
    storage = storage_with([])
    rng = random.Random(1)
    node = RaftNode(RaftConfig(node_id=A), storage, lambda: rng.randrange(10, 20))
    node.step(append(term=1))
    drain(node, storage)
    for _ in range(ELECTION_TICKS - 1):
        node.tick()
    node.step(ask(9, source=C))
    assert drain(node, storage) == []
    assert node.status().current_term == 1
    node.tick()
    node.step(ask(9, source=C))
    (reply,) = drain(node, storage)
    assert reply.vote_granted  # type: ignore[attr-defined]


# 7 Log compaction


def test_7_a_snapshot_carries_its_position_and_the_configuration() -> None:
    """The snapshot records the last included index and term, and to enable cluster membership
    changes the latest configuration in the log as of last included index."""
    group = Group(3)
    group.elect("1")
    group.propose(b"a")
    metadata = group["1"].node.snapshot_metadata_at(2)
    assert (metadata.last_included_index, metadata.last_included_term) == (2, 1)
    assert metadata.configuration == group.configuration


# 8 Client interaction


def test_8_a_new_leader_commits_an_empty_entry_of_its_term() -> None:
    """Each leader commits a blank no-op entry into the log at the start of its term."""
    group = Group(3)
    group.elect("1")
    log = group["1"].node.state.log
    (first,) = log.entries(1, 1, 1 << 20)
    assert (first.kind, first.data, first.term) == (EntryKind.NOOP, b"", 1)
    assert group["1"].node.status().commit_index == 1


def test_8_a_read_waits_until_the_leader_knows_what_is_committed() -> None:
    """Before a leader has committed an entry in its term, it does not know which entries are."""
    group = Group(3)
    group.drop = lambda message: isinstance(message, AppendEntries) and bool(message.entries)
    group.elect("1")
    group["1"].node.read_index(b"early")
    group.tick()
    assert group["1"].reads == []
    group.heal()
    group.tick(2)
    assert [(state.context, state.read_index) for state, _ in group["1"].reads] == [(b"early", 1)]


# Thesis


def test_thesis_10_2_1_the_leader_sends_before_its_own_write_ends_and_counts_itself_after() -> None:
    """The leader can write to its disk in parallel with replicating; it may even commit before its
    own disk, if a majority of followers has written."""
    group = Group(3)
    group.elect("1")
    leader = group["1"]
    leader.node.propose(b"x")
    group.post(leader.take_ready())
    assert leader.writing is not None
    request = next(m for m in group.in_flight if isinstance(m, AppendEntries))
    assert request.entries[0].data == b"x"
    for follower in (B, C):
        assert leader.node.status().commit_index == 1
        leader.node.step(
            AppendEntriesReply(
                source=follower, target=A, term=1, success=True, prev_log_index=1, match_index=2
            )
        )
    assert leader.node.status().commit_index == 2
    assert leader.machine == [], "not applied before it is on this disk"
    leader.finish_write()
    leader.take_ready()
    assert leader.machine == [b"x"]
