"""Linearizable reads (thesis 6.4): never from a leader that may be deposed, never too old."""

import dataclasses

import pytest

from minigfs.raft import NodeId, NotLeader, RaftConfig, ReadDropped
from minigfs.raft.messages import Heartbeat, HeartbeatReply, ReadIndex, ReadIndexReply
from tests.minigfs.raft.group import ELECTION_TICKS, Group, Member

A, B, C = NodeId("1"), NodeId("2"), NodeId("3")


def answers(member: Member) -> list[tuple[bytes, int]]:
    return [(state.context, state.read_index) for state, _ in member.reads]


def test_a_read_is_confirmed_by_one_round_of_heartbeats() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.propose(b"x")
    group.sent.clear()
    leader.node.read_index(b"r")
    assert answers(leader) == []
    group.run()
    assert answers(leader) == [(b"r", 2)]
    assert sum(isinstance(message, Heartbeat) for message in group.sent) == 2


def test_many_reads_share_a_round() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.sent.clear()
    for number in range(20):
        leader.node.read_index(b"%d" % number)
    group.run()
    assert [context for context, _ in answers(leader)] == [b"%d" % number for number in range(20)]
    assert sum(isinstance(message, Heartbeat) for message in group.sent) == 2


def test_a_single_voter_needs_nobody() -> None:
    group = Group(1)
    leader = group.elect("1")
    leader.node.read_index(b"r")
    leader.take_ready()
    assert answers(leader) == [(b"r", 1)]


def test_an_isolated_leader_confirms_nothing() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.isolate("1")
    leader.node.read_index(b"r")
    group.elect("2")
    group.propose(b"newer", at="2")
    group.tick(3 * ELECTION_TICKS)
    assert answers(leader) == []
    assert leader.reads_dropped == [b"r"]


def test_delayed_answers_of_an_earlier_round_confirm_no_later_read() -> None:
    """etcd 20418: the client retries with the same context; the old round's answers arrive late,
    when the leader is deposed and does not know it."""
    group = Group(3)
    leader = group.elect("1")
    delayed: list[HeartbeatReply] = []

    def hold(message: object) -> bool:
        if isinstance(message, HeartbeatReply):
            delayed.append(message)
            return True
        return False

    group.drop = hold
    leader.node.read_index(b"same context")
    group.run()
    group.heal()
    group.isolate("1")
    group.elect("2")
    group.propose(b"newer", at="2")
    leader.node.read_index(b"same context")
    group.run()
    for message in delayed:
        leader.node.step(message)
    group.run()
    assert answers(leader) == [(b"same context", 1)], "only the first read, asked before the write"


def test_a_round_that_confirmed_one_read_confirms_no_later_one() -> None:
    """The numbers of rounds never come again, not even when nobody waits any more."""
    group = Group(3)
    leader = group.elect("1")
    leader.node.read_index(b"first")
    group.run()
    assert answers(leader) == [(b"first", 1)]
    group.isolate("1")
    group.elect("2")
    group.propose(b"newer", at="2")
    leader.node.read_index(b"second")
    group.run()
    assert answers(leader) == [(b"first", 1)]


def test_answers_of_an_earlier_term_confirm_nothing() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.elect("2")
    group.elect("1")
    group.drop = lambda message: isinstance(message, HeartbeatReply)
    leader.node.read_index(b"r")
    group.run()
    for source in (B, C):
        leader.node.step(HeartbeatReply(source=source, target=A, term=1, read_sequence=99))
    group.run()
    assert answers(leader) == []


def test_a_learners_answer_confirms_nothing() -> None:
    from minigfs.raft import ChangeKind

    group = Group(3)
    leader = group.elect("1")
    for learner in ("8", "9"):
        group.add(learner)
        group.change(ChangeKind.ADD_LEARNER, learner)
    group.drop = lambda message: (
        isinstance(message, HeartbeatReply) and message.source not in ("8", "9")
    )
    leader.node.read_index(b"r")
    group.run()
    assert answers(leader) == []


def test_a_lost_round_is_repeated_by_the_next_heartbeat() -> None:
    group = Group(3)
    leader = group.elect("1")
    group.drop = lambda message: isinstance(message, Heartbeat)
    leader.node.read_index(b"r")
    group.run()
    assert answers(leader) == []
    group.heal()
    group.tick()
    assert answers(leader) == [(b"r", 1)]


# Forwarded


def test_a_follower_asks_its_leader() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    group["2"].node.read_index(b"r")
    group.run()
    assert answers(group["2"]) == [(b"r", 2)]


def test_without_a_known_leader_a_read_is_refused() -> None:
    group = Group(3)
    with pytest.raises(NotLeader, match="knows no leader"):
        group["2"].node.read_index(b"r")


def test_an_unanswered_forwarded_read_is_dropped() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, ReadIndex)
    group["2"].node.read_index(b"r")
    group.tick(ELECTION_TICKS)
    assert group["2"].reads_dropped == [b"r"]


def test_a_forwarded_read_is_dropped_with_its_leader() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, (ReadIndex, ReadIndexReply))
    group["2"].node.read_index(b"r")
    group.elect("3")
    assert group["2"].reads_dropped == [b"r"]


def test_an_answer_is_taken_once_and_not_from_an_earlier_life() -> None:
    group = Group(3)
    group.elect("1")
    group["2"].node.read_index(b"old")
    group.run()
    (old_answer,) = [message for message in group.sent if isinstance(message, ReadIndexReply)]
    group.deliver(old_answer)
    group.run()
    assert answers(group["2"]) == [(b"old", 1)]
    group.crash("2")
    group.restart("2")
    group.tick()
    group.propose(b"newer")
    group.drop = lambda message: isinstance(message, ReadIndex)
    group["2"].node.read_index(b"new")
    group.run()
    group.deliver(old_answer)
    group.run()
    assert answers(group["2"]) == []


def test_waiting_reads_are_bounded() -> None:
    def configure(config: RaftConfig) -> RaftConfig:
        return dataclasses.replace(config, pending_reads_max=2)

    group = Group(3, configure=configure)
    group.elect("1")
    for name in ("1", "2"):
        group[name].node.read_index(b"a")
        group[name].node.read_index(b"b")
        with pytest.raises(ReadDropped, match="2 reads wait"):
            group[name].node.read_index(b"c")
