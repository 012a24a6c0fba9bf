"""Members come and go: learners, promotion, removal, and the hazards the thesis names."""

import pytest

from minigfs.raft import (
    ChangeKind,
    Configuration,
    MembershipChange,
    MembershipRefused,
    NodeId,
    NotLeader,
    Role,
)
from minigfs.raft.messages import AppendEntries, AppendEntriesReply, RequestVote, TimeoutNow
from tests.minigfs.raft.group import ELECTION_TICKS, Group

ADD, PROMOTE, REMOVE = ChangeKind.ADD_LEARNER, ChangeKind.PROMOTE_LEARNER, ChangeKind.REMOVE
A, B, C, D = (NodeId(name) for name in "1234")


def configuration(group: Group, name: str) -> Configuration:
    return group[name].node.status().configuration


def group_with_learner(size: int = 3) -> Group:
    group = Group(size)
    group.elect("1")
    group.propose(b"before")
    group.add("9")
    group.change(ADD, "9")
    group.tick(2)
    return group


# Learners


def test_a_learner_receives_the_log_and_applies_it() -> None:
    group = group_with_learner()
    group.propose(b"after")
    assert group["9"].machine == [b"before", b"after"]
    assert configuration(group, "9").learners == ("9",)


def test_a_learner_is_no_part_of_a_majority() -> None:
    group = group_with_learner(size=2)
    group.isolate("2")
    group.propose(b"x", at="1")
    assert group["9"].node.status().last_index > group["1"].node.status().commit_index


def test_a_learner_never_campaigns() -> None:
    group = group_with_learner()
    group.isolate("9")
    group.tick(10 * ELECTION_TICKS)
    group["9"].node.campaign()
    assert group["9"].node.status().role is Role.FOLLOWER
    assert group["9"].node.status().current_term == 1


def test_learners_are_not_needed_for_an_election() -> None:
    group = group_with_learner(size=2)
    for learner in ("7", "8"):
        group.add(learner)
        group.change(ADD, learner)
    for learner in ("7", "8", "9"):
        group.crash(learner)
    group.elect("2")


def test_a_doubled_message_brings_no_second_configuration() -> None:
    group = group_with_learner()
    (bringing,) = [
        message
        for message in group.sent
        if isinstance(message, AppendEntries)
        and message.target == B
        and any(entry.configuration for entry in message.entries)
    ]
    group.crash("2")
    group.restart("2")  # it knows no commit index: the message is not old to it
    before = group["2"].node.state.configurations[:]
    group.deliver(bringing)
    assert group["2"].node.state.configurations == before


def test_a_learner_votes_when_asked() -> None:
    """It may have been promoted without knowing it yet; its vote may be the one that is needed."""
    group = group_with_learner(size=2)
    group.drop = lambda message: message.target == "9"
    group.change(PROMOTE, "9")
    assert configuration(group, "1").voters == ("1", "2", "9")
    assert configuration(group, "9").learners == ("9",)
    group.heal()
    group.crash("1")
    group["9"].node.state.election_elapsed_ticks = ELECTION_TICKS
    group.elect("2")


def test_a_new_member_behind_a_snapshot_gets_it_with_the_configuration() -> None:
    group = Group(3)
    group.elect("1")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.add("9")
    group.change(ADD, "9")
    group.tick(3)
    assert group["9"].machine == group["1"].machine
    assert configuration(group, "9") == configuration(group, "1")


def test_a_new_member_that_knows_no_configuration_makes_no_snapshot_of_it() -> None:
    from minigfs.raft.errors import SnapshotTemporarilyUnavailable

    group = group_with_learner()
    with pytest.raises(SnapshotTemporarilyUnavailable):
        group["9"].node.snapshot_metadata_at(0)
    assert group["9"].node.snapshot_metadata_at(3).configuration.learners == ("9",)


# Promotion


def test_a_learner_is_promoted_when_it_has_caught_up() -> None:
    group = group_with_learner()
    group.change(PROMOTE, "9")
    assert configuration(group, "9").voters == ("1", "2", "3", "9")
    group.crash("1")
    group.crash("2")
    group.tick(40)
    assert group.leaders() == [], "two of four are no majority"


def test_a_learner_that_is_behind_is_not_promoted() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    group.add("9")
    group.isolate("9")
    group.change(ADD, "9", at="1")
    with pytest.raises(MembershipRefused, match="has 0 of 3 entries"):
        group.change(PROMOTE, "9")


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (PROMOTE, "2", "no learner"),
        (PROMOTE, "77", "no learner"),
        (ADD, "2", "member already"),
        (ADD, "9", "member already"),
        (REMOVE, "77", "no member"),
    ],
)
def test_senseless_changes_are_refused_with_the_reason(
    kind: ChangeKind, name: str, reason: str
) -> None:
    group = group_with_learner()
    before = group["1"].node.status()
    with pytest.raises(MembershipRefused, match=reason):
        group.change(kind, name)
    assert group["1"].node.status() == before


def test_only_the_leader_changes_members() -> None:
    group = Group(3)
    group.elect("1")
    with pytest.raises(NotLeader, match="ask 1"):
        group.change(REMOVE, "3", at="2")


# One at a time, and not too early


def test_a_second_change_waits_for_the_first() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("1")
    group.change(ADD, "8", at="1")
    with pytest.raises(MembershipRefused, match="change before"):
        group.change(ADD, "9", at="1")


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """The 2015 erratum: two leaders, one change each, and majorities that share nobody."""
    group = Group(4)
    group.drop = lambda message: isinstance(message, AppendEntries)
    group.elect("1")
    with pytest.raises(MembershipRefused, match="nothing of term 1"):
        group.change(REMOVE, "4", at="1")


def test_a_configuration_takes_effect_on_append_and_goes_with_its_entry() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("1")
    group.change(ADD, "9", at="1")
    assert configuration(group, "1").learners == ("9",), "in force, not committed"
    group.elect("2")
    group.heal()
    group.tick(3)
    assert configuration(group, "1") == group.configuration, "deleted with its entry"


def test_a_configuration_survives_a_restart() -> None:
    group = group_with_learner()
    group.crash("2")
    group.restart("2")
    assert configuration(group, "2").learners == ("9",)
    group["3"].compact()
    group.crash("3")
    group.restart("3")
    assert configuration(group, "3").learners == ("9",)


# Removal


def test_a_removed_follower_is_left_alone_and_harms_nobody() -> None:
    group = Group(4)
    group.elect("1")
    group.drop = lambda message: message.target == "4"
    group.change(REMOVE, "4")  # it never learns of it
    group.heal()
    group.tick(20 * ELECTION_TICKS)
    assert group.leader().id == "1"
    assert group["1"].node.status().current_term == 1


def test_a_removed_leader_does_not_count_itself() -> None:
    group = Group(2)
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntriesReply)
    group.change(REMOVE, "1", at="1")
    assert group["1"].is_leader, "not committed: it still leads"
    assert group["1"].node.status().commit_index == 1
    group.heal()
    group.tick(2)
    assert not group["1"].is_leader


def test_a_removed_leader_commits_nothing_with_half_of_those_who_stay() -> None:
    """Of two that stay both are needed; the leader and one of them are two of the old three."""
    group = Group(3)
    group.elect("1")
    group.drop = lambda message: isinstance(message, AppendEntriesReply) and message.source == "3"
    group.change(REMOVE, "1", at="1")
    assert group["2"].node.status().last_index == 2
    assert group["1"].node.status().commit_index == 1
    group.heal()
    group.tick(2)
    assert group["2"].node.status().commit_index >= 2


def test_a_removed_leader_steps_down_and_hands_over() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    group.change(REMOVE, "1")
    assert any(isinstance(message, TimeoutNow) for message in group.sent)
    assert group.leader().id in ("2", "3"), "at once, without waiting for a timeout"
    group.propose(b"y")
    group.tick(10 * ELECTION_TICKS)
    assert group["1"].node.status().role is Role.FOLLOWER
    assert group["2"].machine == [b"x", b"y"]


def test_thesis_figure_4_6_a_removed_server_may_still_be_needed() -> None:
    """The only one with the configuration that removes it must be able to lead until it is
    committed: otherwise nobody could."""
    group = Group(2)
    group.elect("1")
    group.drop = lambda message: message.target == "2"
    group.change(REMOVE, "1", at="1")
    group.crash("1")
    group.restart("1")
    group.heal()
    group.tick(10 * ELECTION_TICKS)
    assert configuration(group, "2").voters == ("2",)
    assert [member.id for member in group.leaders()] == ["2"]
    group.propose(b"x", at="2")
    assert group["2"].machine == [b"x"]


def test_one_of_two_can_be_removed_although_it_is_dead() -> None:
    group = Group(2)
    group.elect("1")
    group.crash("2")
    group.change(REMOVE, "2")
    group.propose(b"x")
    assert group["1"].machine == [b"x"]


def test_the_last_voter_cannot_be_removed() -> None:
    group = Group(1)
    group.elect("1")
    with pytest.raises(MembershipRefused, match="only voter"):
        group.change(REMOVE, "1")


def test_an_id_never_comes_back() -> None:
    """Not even after the removal is only in a snapshot."""
    group = Group(3)
    group.elect("1")
    group.change(REMOVE, "3")
    group["1"].compact()
    group["2"].compact()
    group.crash("1")
    group.restart("1")
    group.elect("2")
    with pytest.raises(MembershipRefused, match="cannot be used again"):
        group.change(ADD, "3")


def test_a_learners_id_never_comes_back_either() -> None:
    """It voted, perhaps, when it was asked; and ids removed earlier stay removed."""
    group = group_with_learner()
    group.change(REMOVE, "9")
    group.change(REMOVE, "3")
    for name in ("9", "3"):
        with pytest.raises(MembershipRefused, match="cannot be used again"):
            group.change(ADD, name)


def test_the_single_server_bug_scenario_has_one_leader() -> None:
    """raft-dev 2015: S1 adds a server and is cut off; S2 leads, must commit in its term first and
    so learns that majorities moved."""
    group = Group(4)
    group.elect("1")
    group.add("9")
    for name in "234":
        group.disconnect("1", name)
        group.disconnect("9", name)
    group["1"].node.propose_membership_change(MembershipChange(ADD, NodeId("9")))
    group.run()
    group.elect("2")
    group.change(REMOVE, "1", at="2")
    group.heal()
    group.tick(3 * ELECTION_TICKS)
    group.check_all()
    assert [member.id for member in group.leaders()] == ["2"]
    assert configuration(group, "3").voters == ("2", "3", "4")


def test_a_strangers_request_is_answered() -> None:
    """Thesis 4.1: servers process requests of candidates that are not in their configuration."""
    group = Group(1)
    stranger = NodeId("stranger")
    group["1"].node.step(
        RequestVote(source=stranger, target=A, term=4, last_log_index=9, last_log_term=3)
    )
    group.pump(group["1"])
    assert [message.vote_granted for message in group.sent] == [True]  # type: ignore[union-attr]
