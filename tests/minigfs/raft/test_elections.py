"""Disruptions of leadership: what Pre-Vote, CheckQuorum and vote refusal are for, on and off."""

import dataclasses

import msgspec
import pytest

from minigfs.raft import HardState, NodeId, RaftConfig, Role
from minigfs.raft.messages import (
    AppendEntries,
    Heartbeat,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from tests.minigfs.raft.group import ELECTION_TICKS, Configure, Group


def switched(pre_vote: bool = True, check_quorum: bool = True, refuse: bool = True) -> Configure:
    def configure(config: RaftConfig) -> RaftConfig:
        return dataclasses.replace(
            config,
            pre_vote=pre_vote,
            check_quorum=check_quorum,
            refuse_votes_while_led=refuse,
        )

    return configure


UNGUARDED = switched(False, False, False)


def term_of(group: Group, name: str) -> int:
    return group[name].node.status().current_term


# Pre-Vote


def test_an_isolated_follower_does_not_count_its_term_up() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    group.tick(100)
    assert group["3"].node.status().role is Role.PRE_CANDIDATE
    assert term_of(group, "3") == 1
    group.heal()
    group.tick(20)
    assert group.leader().id == "1"
    assert term_of(group, "1") == 1


def test_without_the_guards_it_deposes_the_leader_when_it_returns() -> None:
    group = Group(3, configure=UNGUARDED)
    group.elect("1")
    group.isolate("3")
    group.tick(100)
    assert term_of(group, "3") > 3
    group.heal()
    group.tick(5)
    assert term_of(group, "1") > 3


@pytest.mark.parametrize("seed", range(5))
def test_a_partial_partition_changes_no_leader(seed: int) -> None:
    """One follower does not hear the leader but hears everybody else (Cloudflare, 2020)."""
    group = Group(5, seed=seed)
    group.elect("1")
    group.disconnect("1", "2")
    group.tick(300)
    assert group.leader().id == "1"
    assert term_of(group, "1") == 1


def test_a_pre_vote_changes_nothing_on_the_voter() -> None:
    group = Group(3)
    group.elect("1")
    voter = group["2"]
    voter.node.state.election_elapsed_ticks = ELECTION_TICKS
    before = voter.node.status()
    voter.node.step(
        PreVote(source=NodeId("3"), target=voter.id, term=2, last_log_index=9, last_log_term=1)
    )
    assert voter.node.status() == before
    assert voter.node.state.election_elapsed_ticks == ELECTION_TICKS
    group.pump(voter)
    (reply,) = [m for m in group.in_flight if isinstance(m, PreVoteReply)]
    assert reply.vote_granted
    assert reply.term == 2


def test_a_pre_vote_for_a_term_with_another_vote_is_refused() -> None:
    group = Group(3, configure=UNGUARDED)
    voter = group["2"]
    voter.node.step(
        RequestVote(source=NodeId("1"), target=voter.id, term=1, last_log_index=0, last_log_term=0)
    )
    for asker in ("3", "1"):
        voter.node.step(
            PreVote(
                source=NodeId(asker), target=voter.id, term=1, last_log_index=0, last_log_term=0
            )
        )
    group.pump(voter)
    answers = {m.target: m.vote_granted for m in group.sent if isinstance(m, PreVoteReply)}
    assert answers == {"3": False, "1": True}


def test_a_pre_vote_granted_for_an_earlier_attempt_does_not_count() -> None:
    """It is for a term that came and went; the voter may have heard of a leader since."""
    group = Group(3)
    asker = group["1"]
    asker.node.campaign()
    group.elect("1")
    asker.node.state.election_elapsed_ticks = ELECTION_TICKS
    group.isolate("1")
    group.tick(4 * ELECTION_TICKS, only="1")
    assert asker.node.status().role is Role.PRE_CANDIDATE
    asker.node.step(PreVoteReply(source=NodeId("2"), target=asker.id, term=1, vote_granted=True))
    assert (asker.node.status().role, term_of(group, "1")) == (Role.PRE_CANDIDATE, 1)


def test_a_pre_vote_reply_is_no_vote() -> None:
    group = Group(3, configure=switched(pre_vote=False))
    candidate = group["1"]
    candidate.node.campaign()
    group.pump(candidate)
    candidate.node.step(
        PreVoteReply(source=NodeId("2"), target=candidate.id, term=1, vote_granted=True)
    )
    assert candidate.node.status().role is Role.CANDIDATE


def test_a_node_behind_on_its_log_gets_no_pre_vote_and_raises_no_term() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    group.propose(b"x")
    group.crash("1")
    group.heal()
    for member in group.alive:
        member.node.state.election_elapsed_ticks = ELECTION_TICKS
    group["3"].node.campaign()
    group.run()
    assert [term_of(group, name) for name in "23"] == [1, 1]
    assert group.await_leader(60).id == "2"


def test_a_pre_candidate_left_in_an_old_term_learns_the_new_one() -> None:
    """A silent drop of old-term pre-votes would keep it out for ever."""
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    group.elect("2")
    group.elect("1")
    group.heal()
    group.drop = lambda message: message.source == "1"  # it hears no leader, only node 2
    group["3"].node.campaign()
    group.run()
    assert term_of(group, "3") == 3


def test_a_leader_that_is_the_asker_is_not_a_reason_to_refuse() -> None:
    """Two of three alive, and the old leader is the one who must be elected again."""
    group = Group(3)
    group.elect("1")
    group.crash("3")
    group.crash("1")
    group.restart("1")
    assert group["2"].node.leader_id == "1"
    group["1"].node.campaign()
    group.run()
    assert group["1"].is_leader


def test_two_equals_who_ask_at_the_same_time_do_not_split_the_votes() -> None:
    group = Group(3)
    group.elect("1")
    group.crash("1")
    for member in group.alive:
        member.node.state.election_elapsed_ticks = ELECTION_TICKS
    for member in group.alive:
        member.node.campaign()
    group.run()
    assert group.leader().id == "3"
    assert [term_of(group, name) for name in "23"] == [2, 2]


def test_an_equal_that_reaches_no_majority_gives_way() -> None:
    """Of those who are left only node 2 reaches all others, and its id is the lowest."""
    group = Group(5)
    group.elect("1")
    group.crash("1")
    group.crash("5")
    group.disconnect("3", "4")
    for member in group.alive:
        member.node.state.election_elapsed_ticks = ELECTION_TICKS
    for member in group.alive:
        member.node.campaign()
    group.run()
    assert not group.leaders()
    group.tick(2)
    assert group.leader().id == "2"


def test_who_was_not_answered_asks_again_before_the_next_timeout() -> None:
    """The voter heard the leader a moment later than the asker did."""
    group = Group(3)
    group.elect("1")
    group.crash("1")
    group["2"].node.state.election_elapsed_ticks = ELECTION_TICKS
    group["3"].node.state.election_elapsed_ticks = ELECTION_TICKS - 2
    group["2"].node.campaign()
    group.run()
    assert group["2"].node.status().role is Role.PRE_CANDIDATE
    group.tick(2)
    assert group.leader().id == "2"


@pytest.mark.parametrize("size", [3, 5])
def test_a_lost_leader_is_replaced_within_the_longest_timeout(size: int) -> None:
    """Also if timers end together, as they do here: all members tick as one."""
    for seed in range(200):
        group = Group(size, seed=seed)
        group.elect("1")
        group.tick(seed % 7)
        group.crash("1")
        group.await_leader(2 * ELECTION_TICKS)


# CheckQuorum


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    group = Group(5)
    group.elect("1")
    for name in ("3", "4", "5"):
        group.disconnect("1", name)
    group.tick(2 * ELECTION_TICKS)
    assert not group["1"].is_leader


def test_a_leader_that_hears_exactly_a_majority_stays() -> None:
    group = Group(5)
    group.elect("1")
    for name in ("4", "5"):
        group.disconnect("1", name)
    group.tick(5 * ELECTION_TICKS)
    assert group["1"].is_leader


def test_learners_are_no_part_of_that_majority() -> None:
    from minigfs.raft import ChangeKind

    group = Group(2)
    group.elect("1")
    group.add("8")
    group.change(ChangeKind.ADD_LEARNER, "8")
    group.add("9")
    group.change(ChangeKind.ADD_LEARNER, "9")
    group.isolate("2")
    group.tick(2 * ELECTION_TICKS)
    assert not group["1"].is_leader


@pytest.mark.parametrize("seed", range(5))
def test_a_deaf_leader_is_replaced(seed: int) -> None:
    """It is heard by all and hears nobody: its heartbeats would hold the others for ever."""
    group = Group(3, seed=seed)
    group.elect("1")
    group.cut("2", "1")
    group.cut("3", "1")
    group.tick(6 * ELECTION_TICKS)
    assert group.leader().id in ("2", "3")
    group.propose(b"x")
    assert group[group.leader().id].machine == [b"x"]


def test_a_deaf_leader_stays_for_ever_without_check_quorum() -> None:
    group = Group(3, configure=switched(check_quorum=False))
    group.elect("1")
    group.cut("2", "1")
    group.cut("3", "1")
    group.tick(20 * ELECTION_TICKS)
    assert [member.id for member in group.leaders()] == ["1"]


@pytest.mark.parametrize("seed", range(10))
def test_a_star_partition_elects_its_centre(seed: int) -> None:
    """Everybody hears only node 1, and the old leader was another one (thesis 9.6 needs 6.2)."""
    group = Group(5, seed=seed)
    group.elect("2")
    for one in "2345":
        for other in "2345":
            if one < other:
                group.disconnect(one, other)
    group.tick(8 * ELECTION_TICKS)
    assert [member.id for member in group.leaders()] == ["1"]
    group.propose(b"x")
    assert group["5"].machine == [b"x"]


def test_a_pair_that_lost_its_leader_elects_one_soon() -> None:
    for seed in range(20):
        group = Group(3, seed=seed)
        group.elect("1")
        group.tick(3)
        group.crash("1")
        group.await_leader(6 * ELECTION_TICKS)


# Vote refusal


def test_a_voter_that_hears_its_leader_ignores_candidates() -> None:
    group = Group(3, configure=switched(pre_vote=False))
    group.elect("1")
    group.tick()
    group["3"].node.campaign()  # an impatient node: its clock is fast
    group.run()
    assert term_of(group, "2") == 1
    group.tick(30)
    assert len(group.leaders()) == 1


def test_followers_that_forgot_a_dead_leader_elect_another_without_waiting() -> None:
    group = Group(3)
    group.elect("1")
    group.tick(3)
    group.crash("1")
    group["2"].node.campaign()
    group.run()
    assert group.leaders() == [], "the other one still counts on the leader"
    group["2"].node.forget_leader()
    group["3"].node.forget_leader()
    group["2"].node.campaign()
    group.run()
    assert group.leader().id == "2"
    assert term_of(group, "2") == 2


def test_one_follower_that_forgot_a_living_leader_disturbs_nobody_and_follows_again() -> None:
    group = Group(3)
    group.elect("1")
    group["2"].node.forget_leader()
    assert group["2"].node.leader_id is None
    group["2"].node.campaign()
    group.run()
    assert term_of(group, "1") == 1
    group.tick(2)
    assert group.leader().id == "1"
    assert group["2"].node.leader_id == "1"


def test_forgetting_a_leader_keeps_term_and_vote_and_is_nothing_to_the_leader_itself() -> None:
    group = Group(3)
    group.elect("1")
    before = group["2"].node.status()
    group["2"].node.forget_leader()
    after = group["2"].node.status()
    assert (after.current_term, after.voted_for) == (before.current_term, before.voted_for)
    group["1"].node.forget_leader()
    assert group.leader().id == "1"


def test_a_node_stuck_in_a_higher_term_is_freed() -> None:
    """Its answers to the leader's messages carry its term; the group moves past it."""
    group = Group(3, configure=switched(pre_vote=False))
    group.elect("1")
    group.isolate("3")
    group.tick(60)
    stuck_term = term_of(group, "3")
    assert stuck_term > 1
    group.heal()
    group.tick(60)
    assert term_of(group, "3") == term_of(group, group.leader().id) >= stuck_term
    group.propose(b"x")
    assert group["3"].machine == [b"x"]


# The election timer


def elapsed(group: Group, name: str) -> int:
    return group[name].node.state.election_elapsed_ticks


def waiting_follower() -> tuple[Group, int]:
    group = Group(3, configure=UNGUARDED)
    group.elect("1")
    group.propose(b"x")
    for _ in range(5):
        group["2"].node.tick()
    return group, elapsed(group, "2")


def test_the_timer_runs_on_after_a_refused_vote() -> None:
    """Also when the request raised the term: the refusing node may be the only electable one."""
    group, before = waiting_follower()
    group["2"].node.step(
        RequestVote(
            source=NodeId("3"), target=NodeId("2"), term=7, last_log_index=0, last_log_term=0
        )
    )
    assert term_of(group, "2") == 7
    assert elapsed(group, "2") == before > 0


def test_the_timer_runs_on_after_a_message_of_an_old_leader() -> None:
    group, before = waiting_follower()
    group["2"].node.step(
        Heartbeat(source=NodeId("3"), target=NodeId("2"), term=0, commit_index=0, read_sequence=0)
    )
    assert elapsed(group, "2") == before > 0


def test_the_timer_restarts_when_a_vote_is_granted() -> None:
    group, before = waiting_follower()
    assert before > 0
    group["2"].node.step(
        RequestVote(
            source=NodeId("3"), target=NodeId("2"), term=7, last_log_index=9, last_log_term=3
        )
    )
    assert elapsed(group, "2") == 0


def test_the_timer_restarts_when_the_leader_is_heard_even_if_refused() -> None:
    group, before = waiting_follower()
    assert before > 0
    group["2"].node.step(
        AppendEntries(
            source=NodeId("1"),
            target=NodeId("2"),
            term=1,
            prev_log_index=99,
            prev_log_term=1,
            entries=(),
            leader_commit=0,
        )
    )
    assert elapsed(group, "2") == 0


# Persistence


def test_no_vote_leaves_before_it_is_on_disk() -> None:
    group = Group(3)
    voter = group["2"]
    voter.node.step(
        RequestVote(
            source=NodeId("1"), target=NodeId("2"), term=1, last_log_index=0, last_log_term=0
        )
    )
    assert voter.take_ready() == ()
    assert voter.writing is not None
    assert voter.take_ready() == (), "however often it is asked"
    voter.finish_write()
    (reply,) = voter.take_ready()
    assert isinstance(reply, RequestVoteReply)
    assert reply.vote_granted


def test_a_crash_before_the_write_leaves_no_second_vote_in_the_term() -> None:
    group = Group(3)
    request = RequestVote(
        source=NodeId("1"), target=NodeId("2"), term=1, last_log_index=0, last_log_term=0
    )
    group["2"].node.step(request)
    assert group["2"].take_ready() == ()
    group.crash("2")
    group.restart("2")
    group["2"].node.step(
        RequestVote(
            source=NodeId("3"), target=NodeId("2"), term=1, last_log_index=0, last_log_term=0
        )
    )
    group.pump(group["2"])
    votes = [m for m in group.sent if isinstance(m, RequestVoteReply) and m.vote_granted]
    assert [message.target for message in votes] == ["3"]


def test_a_candidate_asks_for_votes_only_when_its_term_is_on_disk() -> None:
    """Otherwise it could lead twice in one term, with different entries."""
    group = Group(3, configure=switched(pre_vote=False))
    group["1"].node.campaign()
    assert group["1"].take_ready() == ()
    group["1"].finish_write()
    assert {type(message) for message in group["1"].take_ready()} == {RequestVote}


def test_a_vote_cast_while_a_write_is_under_way_is_in_the_next_one() -> None:
    """The write began in an older term: its end proves nothing of the vote."""
    group = Group(3, configure=UNGUARDED)
    voter = group["2"]
    ask = RequestVote(
        source=NodeId("1"), target=voter.id, term=1, last_log_index=0, last_log_term=0
    )
    voter.node.step(ask)
    assert voter.take_ready() == ()
    voter.node.step(msgspec.structs.replace(ask, term=2, source=NodeId("3")))
    assert voter.take_ready() == ()
    voter.finish_write()
    assert [(m.target, m.term) for m in voter.take_ready()] == [("1", 1)]
    assert voter.storage.hard_state() == HardState(current_term=1, voted_for=NodeId("1"))
    voter.finish_write()
    assert voter.storage.hard_state() == HardState(current_term=2, voted_for=NodeId("3"))
    assert [(m.target, m.term) for m in voter.take_ready()] == [("3", 2)]


def test_a_vote_in_a_term_that_is_recorded_already_is_recorded_too() -> None:
    """The term came with a refused request; the vote within it comes later, alone."""
    group = Group(3, configure=UNGUARDED)
    group.elect("1")
    group.propose(b"x")
    for candidate, last in (("3", (0, 0)), ("1", (9, 3))):
        group["2"].node.step(
            RequestVote(
                source=NodeId(candidate),
                target=NodeId("2"),
                term=7,
                last_log_index=last[0],
                last_log_term=last[1],
            )
        )
        group.pump(group["2"])
    assert group["2"].storage.hard_state() == HardState(current_term=7, voted_for=NodeId("1"))


def test_the_end_of_an_older_write_does_not_count_a_candidates_own_vote() -> None:
    group = Group(1)
    voter = group["1"]
    voter.node.step(
        RequestVote(source=NodeId("x"), target=voter.id, term=1, last_log_index=0, last_log_term=0)
    )
    voter.take_ready()
    voter.node.campaign()
    voter.finish_write()
    assert voter.node.status().role is Role.CANDIDATE
    voter.take_ready()
    voter.finish_write()
    assert voter.node.status().role is Role.LEADER


def test_heartbeats_do_not_wait_for_a_disk() -> None:
    group = Group(3)
    leader = group.elect("1")
    leader.node.propose(b"x")
    leader.take_ready()
    assert leader.writing is not None
    leader.node.tick()
    assert [type(m) for m in leader.take_ready()] == [Heartbeat, Heartbeat]


def test_nothing_is_said_in_a_term_before_it_is_recorded() -> None:
    """A heartbeat's answer confirms reads: after a crash the member would deny the term it was
    given in."""
    group = Group(3)
    voter = group["2"]
    voter.node.step(
        Heartbeat(source=NodeId("1"), target=voter.id, term=4, commit_index=0, read_sequence=1)
    )
    assert voter.take_ready() == ()
    voter.finish_write()
    assert [message.term for message in voter.take_ready()] == [4]


def test_one_write_at_a_time_gathers_what_came_meanwhile() -> None:
    group = Group(1)
    leader = group.elect("1")
    leader.node.propose(b"a")
    leader.take_ready()
    first = leader.writing
    for data in (b"b", b"c", b"d"):
        leader.node.propose(data)
        assert leader.take_ready() == ()
        assert leader.writing is first
    leader.finish_write()
    leader.take_ready()
    assert leader.writing is not None
    assert [entry.data for entry in leader.writing.entries] == [b"b", b"c", b"d"]
    assert leader.machine == [b"a"]


def test_a_single_voter_acknowledges_only_after_its_own_write() -> None:
    group = Group(1)
    leader = group.elect("1")
    position = leader.node.propose(b"x")
    leader.take_ready()
    assert leader.node.status().commit_index < position.index
    leader.finish_write()
    assert leader.node.status().commit_index == position.index
