"""Who is sent new entries at once: just enough members for a majority, and the others in runs.

The idea is EPaxos's ("thrifty", SOSP'13): messages to members whose answer nobody waits for are the
larger part of the work of those members, and of the leader. Here they are not left out but put off:

- the first of the voters that keep up, as many as make a majority with the leader, if its own disk
  keeps up, get every entry when it is proposed;
- the others get a run of entries each time the driver calls ``tell_rest``, a moment later.

So a member that hangs costs a commit no more than that delay. Who has not acknowledged by one run
what had been sent before the run before it does not keep up, and another takes its place; if too
few are left, everybody gets everything, as in plain Raft. Only the time of sending is decided here:
whatever this answers, what is committed is decided by Figure 2.
"""

from collections.abc import Collection

from minigfs.raft import quorum
from minigfs.raft.progress import ProgressState
from minigfs.raft.records import NodeId
from minigfs.raft.state import NodeState

__all__ = ["has_untold", "tell_rest", "told_first", "told_index"]


def told_index(state: NodeState) -> int:
    """Up to here everybody may be sent the log; a leader handing over sends all of it."""
    leading = state.leading
    if not state.config.thrifty or leading.transfer is not None:
        return state.log.last_index
    return leading.told_index


def told_first(state: NodeState) -> Collection[NodeId]:
    """The peers that are sent everything, in the order in which they would succeed the leader."""
    leading, voters = state.leading, state.configuration.voters
    keeping_up = [voter for voter in voters if _keeps_up(state, voter)]
    if len(keeping_up) < quorum.majority(len(voters)):
        return leading.progress
    peers = [voter for voter in keeping_up if voter != state.node_id]
    return peers[: quorum.majority(len(voters)) - (state.node_id in keeping_up)]


def _keeps_up(state: NodeState, voter: NodeId) -> bool:
    """The leader, too, counts for what is on its disk."""
    if state.match_index_of(voter) < state.leading.told_before_index:
        return False
    progress = state.leading.progress.get(voter)
    return progress is None or (
        progress.state is ProgressState.REPLICATE and not progress.inflights.full
    )


def has_untold(state: NodeState) -> bool:
    """Whether there are entries that some members are not sent before ``tell_rest``."""
    return state.leadership is not None and told_index(state) < state.log.last_index


def tell_rest(state: NodeState) -> None:
    """Let the next ``send_appends`` send everybody what there is by now."""
    leading = state.leading
    leading.told_before_index, leading.told_index = leading.told_index, state.log.last_index
