"""Who takes part: single-server membership changes (thesis chapter 4; paper section 6).

**A configuration takes effect on append**: every server uses the latest one in its log, committed
or not, from the moment its entry is there, and falls back to the one before if the entry is
deleted (thesis 4.1). So the configuration is a function of snapshot and log, and a restart needs
nothing else. (etcd applies changes when they are committed; then the machine must report back.)

Old and new majorities overlap because changes are single, because a change is refused while the
one before is not committed, and because a leader changes nothing before an entry of its own term is
committed: without that last rule two leaders could each change an old configuration once and end
with majorities that share nobody (the 2015 erratum to the thesis).

A leader that removes itself leads on without counting itself until the change is committed, then
steps down and tells the member that is furthest to take over (thesis 4.2.2).
"""

from minigfs.raft import election, replication
from minigfs.raft.errors import MembershipRefused, NotLeader
from minigfs.raft.messages import TimeoutNow
from minigfs.raft.progress import ProgressState
from minigfs.raft.records import ChangeKind, EntryKind, LogPosition, MembershipChange
from minigfs.raft.state import NodeState

__all__ = ["propose_change", "step_down_if_removed"]


def propose_change(state: NodeState, change: MembershipChange) -> LogPosition:
    """Append the configuration after ``change``; it is in force at once.

    Raises ``NotLeader``, or ``MembershipRefused`` with the reason.
    """
    if state.leadership is None:
        raise NotLeader(f"{state.node_id} is no leader; ask {state.leader_id or 'again later'}")
    if state.leadership.transfer is not None:
        raise MembershipRefused("leadership is being handed over; ask the next leader")
    if not state.committed_in_own_term:
        raise MembershipRefused(
            f"nothing of term {state.current_term} is committed yet; try again in a moment"
        )
    if state.configuration_index > state.commit_index:
        raise MembershipRefused("the change before is not committed yet; try again in a moment")
    configuration = state.configuration.changed(change)
    if change.kind is ChangeKind.PROMOTE_LEARNER:
        _check_caught_up(state, change)
    return replication.append_own(state, EntryKind.CONFIGURATION, configuration=configuration)


def _check_caught_up(state: NodeState, change: MembershipChange) -> None:
    """A voter that is behind would hold up commits (thesis 4.2.1): it must have all committed
    entries, and be streaming."""
    progress = state.leading.progress[change.node]
    if progress.state is not ProgressState.REPLICATE or progress.match_index < state.commit_index:
        raise MembershipRefused(
            f"{change.node} has {progress.match_index} of {state.commit_index} entries; "
            "wait until it has caught up"
        )


def step_down_if_removed(state: NodeState) -> None:
    """The configuration without this leader is committed: its work is done (thesis 4.2.2)."""
    voters = state.configuration.voters
    if state.node_id in voters or state.configuration_index > state.commit_index:
        return
    replication.send_appends(state)  # the commit index, which nobody else knows yet
    progress = state.leading.progress
    successor = max(voters, key=lambda voter: progress[voter].match_index)
    election.become_follower(state, term=state.current_term)
    state.send(TimeoutNow(source=state.node_id, target=successor, term=state.current_term))
