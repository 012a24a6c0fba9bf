"""Handing leadership over (thesis 3.10)."""

import pytest

from minigfs.raft import (
    ChangeKind,
    MembershipRefused,
    NodeId,
    NotLeader,
    ProposalDropped,
    Role,
    TransferRefused,
)
from minigfs.raft.messages import AppendEntries, TimeoutNow
from tests.minigfs.raft.group import ELECTION_TICKS, Group

B, C = NodeId("2"), NodeId("3")


def transferring(size: int = 3) -> Group:
    """Node 1 leads and tries to hand over to node 2, which hears nothing."""
    group = Group(size)
    group.elect("1")
    group.isolate("2")
    group["1"].node.transfer_leadership(B)
    group.run()
    return group


def test_the_target_leads_at_once() -> None:
    """Past Pre-Vote and past the voters that hear the leader; no timeout is waited for."""
    group = Group(3)
    group.elect("1")
    group.tick()
    group["1"].node.transfer_leadership(B)
    group.run()
    assert [member.id for member in group.leaders()] == ["2"]
    assert group["1"].node.status().role is Role.FOLLOWER


def test_a_target_that_is_behind_is_caught_up_first() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("2")
    for number in range(20):
        group.propose(b"%d" % number)
    group.heal()
    group["1"].node.transfer_leadership(B)
    group.tick()
    assert group.leader().id == "2"
    assert group["2"].machine == group["1"].machine


def test_a_target_behind_a_snapshot_is_caught_up_first() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("2")
    for number in range(20):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    group["1"].node.transfer_leadership(B)
    group.tick(3)
    assert group.leader().id == "2"


def test_timeout_now_is_not_sent_before_the_logs_are_equal() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntries) and message.target == B
    group["1"].node.propose(b"x")
    group["1"].node.transfer_leadership(B)
    group.tick(3)
    assert not any(isinstance(message, TimeoutNow) for message in group.sent)


def test_proposals_and_changes_are_refused_meanwhile() -> None:
    group = transferring()
    with pytest.raises(ProposalDropped, match="moving to 2"):
        group["1"].node.propose(b"x")
    with pytest.raises(MembershipRefused, match="handed over"):
        group.change(ChangeKind.REMOVE, "3", at="1")


def test_it_is_given_up_after_one_election_timeout() -> None:
    group = transferring()
    group.tick(ELECTION_TICKS - 1)
    assert group["1"].node.status().transfer_target == B
    group.tick()
    assert group["1"].node.status().transfer_target is None
    group.propose(b"x", at="1")
    assert group["1"].machine == [b"x"]


def test_asking_again_for_the_same_target_extends_nothing() -> None:
    group = transferring()
    group.tick(ELECTION_TICKS - 1)
    group["1"].node.transfer_leadership(B)
    group.tick()
    assert group["1"].node.status().transfer_target is None


def test_another_target_takes_its_place() -> None:
    group = transferring()
    group["1"].node.transfer_leadership(C)
    group.run()
    assert group.leader().id == "3"


def test_the_leader_itself_as_target_ends_it() -> None:
    group = transferring()
    group["1"].node.transfer_leadership(NodeId("1"))
    group.propose(b"x", at="1")


def test_a_lost_timeout_now_is_sent_again() -> None:
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, TimeoutNow)
    group["1"].node.transfer_leadership(B)
    group.run()
    assert group["1"].is_leader
    group.heal()
    group.tick()
    assert group.leader().id == "2"


def test_a_second_timeout_now_changes_nothing() -> None:
    group = Group(3)
    group.elect("1")
    group["1"].node.transfer_leadership(B)
    group.run()
    (first, *_) = [message for message in group.sent if isinstance(message, TimeoutNow)]
    before = group["2"].node.status()
    group.deliver(first)
    assert group["2"].node.status() == before


def test_only_voters_can_be_targets() -> None:
    group = Group(3)
    group.elect("1")
    group.add("9")
    group.change(ChangeKind.ADD_LEARNER, "9")
    for name in ("9", "77"):
        with pytest.raises(TransferRefused, match="no voter"):
            group["1"].node.transfer_leadership(NodeId(name))
    with pytest.raises(NotLeader):
        group["2"].node.transfer_leadership(C)


def test_a_learner_ignores_timeout_now() -> None:
    group = Group(3)
    group.elect("1")
    group.add("9")
    group.change(ChangeKind.ADD_LEARNER, "9")
    group.deliver(TimeoutNow(source=NodeId("1"), target=NodeId("9"), term=1))
    assert group["9"].node.status().role is Role.FOLLOWER


def test_a_crashed_target_costs_one_election_timeout_and_no_leader() -> None:
    group = Group(3)
    group.elect("1")
    group.crash("2")
    group["1"].node.transfer_leadership(B)
    group.tick(ELECTION_TICKS)
    group.propose(b"x", at="1")
    assert group["1"].is_leader


def test_a_timeout_now_of_an_earlier_term_starts_nothing() -> None:
    """Its leader gave the transfer up, or leads no more: nobody asks for this election."""
    group = Group(3)
    group.elect("1")
    group.elect("3")
    group["2"].node.step(TimeoutNow(source=NodeId("1"), target=NodeId("2"), term=1))
    group.run()
    assert group["2"].node.status().current_term == 2
    assert group.leader().id == "3"
