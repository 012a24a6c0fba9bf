"""The arithmetic of majorities: pure functions of who the voters are."""

import enum
from collections.abc import Callable, Mapping, Sequence

from minigfs.raft.records import NodeId

__all__ = ["VoteResult", "active_majority", "majority", "quorum_value", "vote_result"]


class VoteResult(enum.Enum):
    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(voter_count: int) -> int:
    """The least number of voters any two of whose sets share one: 1 of 1, 2 of 3, 3 of 4."""
    return voter_count // 2 + 1


def quorum_value(voters: Sequence[NodeId], value_of: Callable[[NodeId], int]) -> int:
    """The largest value that a majority of the voters have reached; 0 if nobody may vote.

    With ``match_index`` as the value it is the N of Figure 2's last rule for leaders.
    """
    if not voters:
        return 0
    descending = sorted((value_of(voter) for voter in voters), reverse=True)
    return descending[majority(len(voters)) - 1]


def vote_result(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """Whether the votes decide the election; votes of others than ``voters`` count nothing."""
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if voters and granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def active_majority(voters: Sequence[NodeId], is_active: Callable[[NodeId], bool]) -> bool:
    """Whether a majority of the voters is active."""
    return bool(voters) and sum(map(is_active, voters)) >= majority(len(voters))
