"""Replication under loss, lag and restarts: Figure 8, flow control, durability, damage."""

import dataclasses
from typing import Any

import pytest

from minigfs.raft import NodeId, PeerStatus, ProposalDropped, SafetyViolation
from minigfs.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
)
from minigfs.raft.progress import ProgressState
from tests.minigfs.raft.group import Configure, Group

A, B, C = NodeId("1"), NodeId("2"), NodeId("3")


def limited(**limits: Any) -> Configure:
    return lambda config: dataclasses.replace(config, **limits)


def peer(group: Group, name: str) -> PeerStatus:
    return group.leader().node.status().peers[NodeId(name)]


# Figure 8


def test_figure_8_a_replicated_old_entry_can_still_be_overwritten() -> None:
    """(a) 1 leads and replicates to 2 only; (b) 5 is elected and keeps an entry to itself; (c) 1 is
    back and spreads its old entry to a majority, which commits nothing; (d) 5 overwrites it."""
    group = Group(5, configure=limited(message_bytes_max=1))  # one entry a message
    group.elect("1")
    for name in "345":
        group.isolate(name)
    old = group.propose(b"old", at="1")
    group.crash("1")
    group.heal()
    group.drop = lambda message: isinstance(message, AppendEntries)
    group.elect("5")  # 3, 4 vote; its no-op stays with it
    group.crash("5")
    group.restart("1")
    # Node 1 leads again, in term 3; its old entry spreads, but nobody accepts the no-op above it.
    group.drop = lambda message: (
        isinstance(message, AppendEntries)
        and any(entry.term == 3 for entry in message.entries)
        and group[message.target].node.state.log.matches(2, 1)
    )
    group["1"].node.campaign()  # refused, and learns term 2
    group.run()
    group.elect("1")
    assert [group.terms(name) for name in "1234"] == [[0, 1, 1, 3], *[[0, 1, 1]] * 3]
    assert group["1"].node.status().commit_index < old.index
    group.crash("1")
    group.restart("5")
    group.heal()
    group.elect("5")
    group.restart("1")
    group.tick(3)
    assert all(b"old" not in member.machine for member in group.alive)
    group.check_all()


def test_figure_8_an_entry_of_the_own_term_commits_the_old_ones_below_it() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntriesReply)
    group.propose(b"old", at="1")
    group.crash("1")
    group.heal()
    group.elect("2")
    assert group["3"].machine == group["2"].machine == [b"old"]


# Lag and loss


def test_a_member_that_was_away_catches_up() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    for number in range(50):
        group.propose(b"%d" % number)
    group.heal()
    group.tick(3)
    assert group["3"].machine == group["1"].machine
    assert peer(group, "3").state is ProgressState.REPLICATE


def test_a_deposed_leader_gives_up_what_it_could_not_commit() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("1")
    for number in range(5):
        group.propose(b"lost-%d" % number, at="1")
    group.elect("2")
    group.propose(b"kept", at="2")
    group.heal()
    group.tick(3)
    assert group["1"].machine == [b"kept"]
    group.check_all()


def test_a_lost_window_heals_although_it_is_full() -> None:
    group = Group(3, configure=limited(inflight_count_max=2, message_bytes_max=1))
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntries) and message.target == C
    for number in range(10):
        group.propose(b"%d" % number)
    assert peer(group, "3").inflight_count == 2
    group.heal()
    group.tick(4)
    assert group["3"].machine == [b"%d" % number for number in range(10)]


def test_a_full_window_sends_one_empty_append_a_heartbeat() -> None:
    group = Group(3, configure=limited(inflight_count_max=2, message_bytes_max=1))
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntries) and message.target == C
    for number in range(10):
        group.propose(b"%d" % number)
    group.sent.clear()
    group.tick()
    sent = [m for m in group.sent if isinstance(m, AppendEntries) and m.target == C]
    assert [message.entries for message in sent] == [()]


def test_a_window_is_bounded_by_bytes() -> None:
    group = Group(3, configure=limited(inflight_bytes_max=300, message_bytes_max=120))
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntriesReply) and message.source == C
    for _ in range(20):
        group.propose(b"x" * 68)  # 100 bytes each with overhead
    assert peer(group, "3").inflight_count == 3
    group.heal()
    group.tick(10)
    assert group["3"].machine == group["1"].machine


def test_messages_are_bounded_but_one_large_entry_travels() -> None:
    group = Group(3, configure=limited(message_bytes_max=100))
    group.elect("1")
    for size in (10, 10, 500, 10, 10, 10):
        group.leader().node.propose(b"x" * size)
    group.sent.clear()
    group.run()
    sizes = [
        [len(entry.data) for entry in message.entries]
        for message in group.sent
        if isinstance(message, AppendEntries) and message.target == B and message.entries
    ]
    assert sizes == [[10, 10], [500], [10, 10], [10]]


def test_what_is_proposed_between_two_readies_travels_together() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.sent.clear()
    for number in range(10):
        leader.node.propose(b"%d" % number)
    group.run()
    with_entries = [m for m in group.sent if isinstance(m, AppendEntries) and m.entries]
    assert [len(message.entries) for message in with_entries] == [10, 10]


def test_uncommitted_bytes_are_bounded_and_freed_by_commits() -> None:
    group = Group(3, configure=limited(uncommitted_bytes_max=100))
    leader = group.elect("1")
    group.isolate("1")
    leader.node.propose(b"x" * 250)  # the first is always let in
    with pytest.raises(ProposalDropped, match="250 bytes wait"):
        leader.node.propose(b"y")
    leader.node.propose(b"")  # and an empty one is never refused
    group.heal()
    group.tick(3)
    leader.node.propose(b"y")


def test_a_refused_proposal_leaves_no_trace() -> None:
    group = Group(3, configure=limited(uncommitted_bytes_max=10))
    leader = group.elect("1")
    group.isolate("1")
    leader.node.propose(b"x" * 10)
    before = leader.node.status()
    with pytest.raises(ProposalDropped):
        leader.node.propose(b"x")
    assert leader.node.status() == before


def test_a_follower_in_probe_returns_to_replicate_without_a_proposal() -> None:
    group = Group(3)
    group.elect("1")
    group.leader().node.report_unreachable(B)
    assert peer(group, "2").state is ProgressState.PROBE
    group.tick()
    assert peer(group, "2").state is ProgressState.REPLICATE


def test_a_probe_is_sent_once_a_heartbeat() -> None:
    group = Group(3)
    leader = group.elect("1")
    leader.node.report_unreachable(C)
    group.drop = lambda message: isinstance(message, AppendEntries) and message.target == C
    group.sent.clear()
    for number in range(6):
        group.propose(b"%d" % number)
    group.tick(3)
    probes = [m for m in group.sent if isinstance(m, AppendEntries) and m.target == C]
    assert len(probes) <= 3


def test_a_lost_commit_message_is_made_good_by_a_heartbeat() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: (
        isinstance(message, AppendEntries) and message.target == C and not message.entries
    )
    group.propose(b"x")
    assert group["3"].machine == []
    group.tick()
    assert group["3"].machine == [b"x"]


def test_a_heartbeat_never_tells_a_commit_index_above_the_match() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntries) and message.target == C
    group.propose(b"x")
    group.sent.clear()
    group.tick()
    beats = {m.target: m.commit_index for m in group.sent if isinstance(m, Heartbeat)}
    assert beats == {B: 2, C: 1}


def test_a_stale_rejection_moves_nothing_back() -> None:
    group = Group(3)
    leader = group.elect("1")
    for number in range(5):
        group.propose(b"%d" % number)
    before = peer(group, "2")
    leader.node.step(
        AppendEntriesReply(source=B, target=A, term=1, success=False, prev_log_index=3)
    )
    assert peer(group, "2") == before


def test_a_rejected_probe_never_goes_back_to_what_is_matched() -> None:
    """After a lost connection the leader probes at match + 1; the rejection of that probe must not
    lower next_index to what the member has acknowledged, whatever its hint says."""
    group = Group(3)
    leader = group.elect("1")
    for number in range(5):
        group.propose(b"%d" % number)
    leader.node.report_unreachable(B)
    assert (peer(group, "2").match_index, peer(group, "2").next_index) == (6, 7)
    leader.node.step(
        AppendEntriesReply(
            source=B, target=A, term=1, success=False, prev_log_index=6, hint_index=2
        )
    )
    assert (peer(group, "2").match_index, peer(group, "2").next_index) == (6, 7)


def test_doubled_and_reordered_appends_remove_nothing() -> None:
    group = Group(3)
    group.elect("1")
    for number in range(5):
        group.propose(b"%d" % number)
    old = [m for m in group.sent if isinstance(m, AppendEntries)]
    for message in reversed(old):
        group.deliver(message)
    group.run()
    assert group["2"].machine == group["1"].machine
    group.check_all()


def test_whole_terms_are_skipped_by_one_rejection() -> None:
    """A hundred entries of one lost term cost one rejection, not a hundred (end of 5.3)."""
    group = Group(3)
    group.elect("1")
    group.isolate("1")
    for number in range(100):
        group["1"].node.propose(b"%d" % number)
    group.run()
    group.elect("2")
    for number in range(100):
        group.propose(b"new-%d" % number, at="2")
    group.heal()
    group.sent.clear()
    group.tick(3)
    rejections = [m for m in group.sent if isinstance(m, AppendEntriesReply) and not m.success]
    assert len([m for m in rejections if m.term == group.leader().node.status().current_term]) <= 1
    assert group["1"].machine == group["2"].machine


# What a write may be believed


def test_a_late_write_does_not_vouch_for_entries_replaced_meanwhile() -> None:
    """etcd's ABA race: the write of (2, term 1) ends after (2, term 2) took its place."""
    group = Group(3)
    follower = group["2"]

    def append(term: int, data: bytes) -> AppendEntries:
        from minigfs.raft import Entry

        return AppendEntries(
            source=A if term == 1 else C,
            target=B,
            term=term,
            prev_log_index=0,
            prev_log_term=0,
            entries=(
                Entry(index=1, term=1, data=b"same"),
                Entry(index=2, term=term, data=data),
            ),
            leader_commit=0,
        )

    follower.node.step(append(1, b"old"))
    follower.take_ready()
    follower.node.step(append(2, b"new"))
    released = follower.take_ready()
    assert released == ()
    follower.finish_write()
    assert follower.node.status().stable_index == 1, "the old entry 2 counts for nothing"
    replies = follower.take_ready()
    assert [reply.term for reply in replies] == [1], "true of term 1, and harmless in term 2"
    follower.finish_write()
    (reply,) = follower.take_ready()
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.term, reply.match_index) == (2, 2)
    assert [entry.data for entry in follower.storage.entries(1, 2, 1 << 20)] == [b"same", b"new"]


def test_a_follower_acknowledges_what_a_message_covers_and_not_its_whole_log() -> None:
    """Above that, its entries may be another leader's: acknowledging them would commit what only
    the leader has."""
    group = Group(3)
    group.elect("1")
    group.isolate("1")
    for number in range(3):
        group.propose(b"lost-%d" % number, at="1")
    late = group["1"]
    late.node.step(
        AppendEntries(
            source=B,
            target=A,
            term=2,
            prev_log_index=1,
            prev_log_term=1,
            entries=(),
            leader_commit=0,
        )
    )
    group.sent.clear()
    group.pump(late)
    (reply,) = [message for message in group.sent if isinstance(message, AppendEntriesReply)]
    assert (reply.success, reply.match_index, late.node.status().last_index) == (True, 1, 4)


def test_an_acknowledgement_waits_for_its_write() -> None:
    group = Group(3)
    group.elect("1")
    group["1"].node.propose(b"x")
    group.post(group["1"].take_ready())
    request = next(m for m in group.in_flight if m.target == B and isinstance(m, AppendEntries))
    group["2"].node.step(request)
    assert not any(isinstance(m, AppendEntriesReply) for m in group["2"].take_ready())
    group["2"].node.step(request)  # a second copy must not be acknowledged early either
    assert group["2"].take_ready() == ()
    group["2"].finish_write()
    replies = group["2"].take_ready()
    assert [type(reply) for reply in replies] == [AppendEntriesReply] * 2


def test_a_crash_before_the_write_loses_nothing_that_was_acknowledged() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    group["1"].node.propose(b"x")
    group.post(group["1"].take_ready())
    (request,) = [m for m in group.in_flight if isinstance(m, AppendEntries) and m.target == B]
    group.in_flight.clear()
    group["2"].node.step(request)
    group.post(group["2"].take_ready())
    group.crash("2")
    group["1"].finish_write()
    group.pump(group["1"])
    assert group["1"].node.status().commit_index == 1
    group.restart("2")
    group.tick(3)
    assert group["2"].machine == group["1"].machine == [b"x"]


# Applying


def test_a_leader_applies_only_what_its_own_disk_holds() -> None:
    """Two followers have it, so it is committed; this member's crash would still lose it here, and
    a machine ahead of its log could not be rebuilt."""
    group = Group(3)
    leader = group.elect("1")
    leader.node.propose(b"x")
    group.post(leader.take_ready())
    assert leader.writing is not None
    while group.in_flight:
        message = group.in_flight.pop()
        group.deliver(message)
        for name in ("2", "3"):
            group.pump(group[name])
    assert leader.node.status().commit_index == 2
    leader.take_ready()
    assert leader.machine == []
    leader.finish_write()
    leader.take_ready()
    assert leader.machine == [b"x"]


def test_entries_beyond_the_byte_limit_of_a_ready_come_in_the_next() -> None:
    group = Group(1, configure=limited(apply_bytes_max=70))
    leader = group.elect("1")
    for number in range(7):
        leader.node.propose(b"%d" % number)
    leader.take_ready()
    leader.finish_write()
    ready = leader.node.ready()
    assert len(ready.committed_entries) == 2
    leader.apply(ready)
    group.run()
    assert leader.machine == [b"%d" % number for number in range(7)]


# Damage


def test_an_acknowledgement_above_the_leaders_log_stops_it() -> None:
    group = Group(3)
    leader = group.elect("1")
    with pytest.raises(SafetyViolation, match="acknowledged entry 9"):
        leader.node.step(
            AppendEntriesReply(
                source=B, target=A, term=1, success=True, prev_log_index=1, match_index=9
            )
        )


def test_two_leaders_in_one_term_stop_the_group() -> None:
    group = Group(3)
    leader = group.elect("1")
    with pytest.raises(SafetyViolation, match="both lead in term 1"):
        leader.node.step(Heartbeat(source=B, target=A, term=1, commit_index=0, read_sequence=0))


def test_a_disk_that_forgot_what_it_acknowledged_is_found_out() -> None:
    """The same id with an empty disk: the heartbeat tells a commit index it must have."""
    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    group.crash("2")
    del group.members[B]
    group.add("2")
    group.down.discard(B)
    group.history = type(group.history)()
    with pytest.raises(SafetyViolation, match="lost what it promised"):
        group.tick()


def test_a_log_without_its_vote_record_is_refused() -> None:
    from minigfs.errors import CorruptLog
    from minigfs.raft import HardState

    group = Group(1)
    group.elect("1")
    storage = group["1"].storage
    storage._hard_state = HardState()
    with pytest.raises(CorruptLog, match="vote record is missing"):
        group["1"].start()


def test_a_committed_entry_is_never_replaced() -> None:
    from minigfs.raft import Entry

    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    with pytest.raises(SafetyViolation, match="conflicts with the committed"):
        group["2"].node.state.log.merge([Entry(index=2, term=9)], commit_index=2)


def test_heartbeat_replies_of_a_removed_member_are_harmless() -> None:
    group = Group(3)
    leader = group.elect("1")
    leader.node.step(HeartbeatReply(source=NodeId("99"), target=A, term=1, read_sequence=5))
    assert NodeId("99") not in leader.node.status().peers
