"""Handing leadership over (thesis 3.10).

The leader refuses proposals, brings the target's log up to its own, and sends TimeoutNow; the
target starts an election at once, without a pre-vote and past the voters' refusals. If it has not
won within an election timeout the leader takes proposals again.
"""

from minigfs.raft import election
from minigfs.raft.errors import NotLeader, TransferRefused
from minigfs.raft.messages import TimeoutNow
from minigfs.raft.records import NodeId
from minigfs.raft.state import NodeState, Transfer

__all__ = ["handle_timeout_now", "heard_from", "tick", "transfer_leadership"]


def transfer_leadership(state: NodeState, target: NodeId) -> None:
    """Begin. Another target takes the place of the one before; the same one again, or this node
    itself with nothing under way, changes nothing (and extends no deadline).

    Raises ``NotLeader``; ``TransferRefused`` unless ``target`` is a voter.
    """
    if state.leadership is None:
        raise NotLeader(f"{state.node_id} is no leader; ask {state.leader_id or 'again later'}")
    if target not in state.configuration.voters:
        raise TransferRefused(f"{target} is no voter and cannot lead")
    leading = state.leadership
    if target == state.node_id:
        leading.transfer = None
        return
    if leading.transfer is None or leading.transfer.target != target:
        leading.transfer = Transfer(target)
        leading.progress[target].append_due = True
        heard_from(state, target)


def heard_from(state: NodeState, peer: NodeId) -> None:
    """An answer from the target: is it up to date by now? Asked again while it does not act, since
    TimeoutNow may be lost; a second one comes too late to be in its term."""
    if state.leadership is None or state.leadership.transfer is None:
        return
    target = state.leadership.transfer.target
    progress = state.leadership.progress[target]
    if peer == target and progress.match_index == state.log.last_index:
        state.send(TimeoutNow(source=state.node_id, target=target, term=state.current_term))


def tick(state: NodeState) -> None:
    """Give up after one election timeout: the target had its chance, clients wait."""
    transfer = state.leading.transfer
    if transfer is None:
        return
    transfer.elapsed_ticks += 1
    if transfer.elapsed_ticks >= state.config.election_timeout_ticks:
        state.leading.transfer = None


def handle_timeout_now(state: NodeState) -> None:
    """The leader of this term wants this node to lead: ask for votes now, with its authority."""
    if state.leadership is None and election.is_promotable(state):
        election.start_election(state, leadership_transfer=True)
