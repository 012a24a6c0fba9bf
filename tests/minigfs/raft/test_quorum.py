"""Majorities against the definition: count subsets, do not sort."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from minigfs.raft import NodeId
from minigfs.raft.quorum import VoteResult, active_majority, majority, quorum_value, vote_result

NODES = [NodeId(f"n{number}") for number in range(7)]
voter_sets = st.integers(1, 7).map(lambda count: NODES[:count])


@given(voter_sets)
def test_any_two_majorities_share_a_voter_and_smaller_sets_need_not(voters: list[NodeId]) -> None:
    size = majority(len(voters))
    for one in combinations(voters, size):
        for other in combinations(voters, size):
            assert set(one) & set(other)
    smaller = list(combinations(voters, size - 1))
    assert any(not set(one) & set(other) for one in smaller for other in smaller)


@given(voter_sets, st.lists(st.integers(0, 9), min_size=7, max_size=7))
def test_the_quorum_value_is_the_largest_that_a_majority_reached(
    voters: list[NodeId], values: list[int]
) -> None:
    reached = dict(zip(NODES, values, strict=True))
    best = max(
        value
        for value in range(10)
        if sum(reached[voter] >= value for voter in voters) * 2 > len(voters) or value == 0
    )
    assert quorum_value(voters, reached.__getitem__) == best


@given(voter_sets, st.dictionaries(st.sampled_from(NODES), st.booleans()))
def test_a_vote_is_decided_when_no_further_answer_can_change_it(
    voters: list[NodeId], votes: dict[NodeId, bool]
) -> None:
    silent = [voter for voter in voters if voter not in votes]
    granted = sum(votes.get(voter, False) for voter in voters)
    won_at_worst = granted * 2 > len(voters)
    won_at_best = (granted + len(silent)) * 2 > len(voters)
    expected = (
        VoteResult.WON if won_at_worst else VoteResult.PENDING if won_at_best else VoteResult.LOST
    )
    assert vote_result(voters, votes) is expected


@given(voter_sets, st.sets(st.sampled_from(NODES)))
def test_an_active_majority_is_more_than_half(voters: list[NodeId], active: set[NodeId]) -> None:
    count = len(active & set(voters))
    assert active_majority(voters, active.__contains__) == (count * 2 > len(voters))


def test_nobody_is_no_majority() -> None:
    assert quorum_value([], lambda _: 9) == 0
    assert vote_result([], {NODES[0]: True}) is VoteResult.LOST
    assert not active_majority([], lambda _: True)
