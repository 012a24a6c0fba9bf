"""Who leads (paper 5.1, 5.2, 5.4.1; Figure 2, "RequestVote RPC" and "Rules for Servers").

::

              timeout             majority would vote          majority of votes
    FOLLOWER ---------> PRE_CANDIDATE ---------------> CANDIDATE ---------------> LEADER
        ^                    |  (term unchanged)           |  (term + 1)             |
        +--------------------+-----------------------------+-------------------------+
          a leader of this term, a later term, a lost vote, or no majority heard from

Three guards stand around the paper's election, each with a switch in ``RaftConfig``:

* Pre-Vote (thesis 9.6): ask before counting the term up, so that a node which cannot win does not
  disturb those who can. It changes nothing on the voter: not its term, vote, timer or role. Who was
  not answered asks again soon: a voter may have heard the leader a moment later than others did, or
  ask itself. Of two equals who ask each other only one is answered at first; if both were, both
  would stand, and split the votes.
* CheckQuorum (thesis 6.2): a leader that hears no majority for an election timeout steps down.
* Vote refusal while a leader is heard (thesis 4.2.3): requests from others than that leader are
  ignored, unless the leader itself asked for the election.

The election timer restarts when a vote is granted, when this term's leader is heard (even if what
it says is refused), and when an election starts; never for a refused vote, a stale message or a
pre-vote.
"""

from minigfs.raft import quorum, reads, replication
from minigfs.raft.errors import SafetyViolation
from minigfs.raft.messages import (
    AnyMessage,
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from minigfs.raft.quorum import VoteResult
from minigfs.raft.ready import Role
from minigfs.raft.records import EntryKind, NodeId
from minigfs.raft.state import Leadership, NodeState

__all__ = [
    "admit",
    "become_follower",
    "campaign",
    "forget_leader",
    "count_own_vote",
    "handle_pre_vote",
    "handle_pre_vote_reply",
    "handle_request_vote",
    "handle_request_vote_reply",
    "is_promotable",
    "start_election",
    "tick_check_quorum",
    "tick_follower",
]


# Rules for all servers: terms (5.1)


def admit(state: NodeState, message: AnyMessage) -> bool:
    """Whether the message is of this node's term, which it may have raised.

    "If RPC request or response contains term T > current_term: set current_term = T, convert to
    follower." A pre-vote is no such message: its term is one that nobody is in yet. "Reply false if
    term < current_term" is what lets an old leader or candidate learn of the new term.
    """
    if isinstance(message, (RequestVote, PreVote)) and _leader_is_heard(state, message):
        return False
    if isinstance(message, PreVote):  # whatever its term: even from an old one it is answered
        return not _comes_before(state, message)
    if message.term > state.current_term and not _is_granted_pre_vote(message):
        become_follower(state, term=message.term)
    if message.term < state.current_term:
        _answer_stale(state, message)
        return False
    if isinstance(message, (AppendEntries, Heartbeat, InstallSnapshot)):
        _recognise_leader(state, message.source)
    return True


def _is_granted_pre_vote(message: AnyMessage) -> bool:
    return isinstance(message, PreVoteReply) and message.vote_granted


def _leader_is_heard(state: NodeState, message: RequestVote | PreVote) -> bool:
    """Thesis 4.2.3: a server that heard its leader within the *minimum* election timeout does not
    even update its term. If the leader itself asks, it leads no more."""
    return (
        state.config.refuse_votes_while_led
        and message.term > state.current_term
        and state.leader_id is not None
        and state.leader_id != message.source
        and state.election_elapsed_ticks < state.config.election_timeout_ticks
        and not (isinstance(message, RequestVote) and message.leadership_transfer)
    )


def _comes_before(state: NodeState, message: PreVote) -> bool:
    """This node has just asked the same, with an equal log and a higher id. Only just: if it gets
    no majority, whoever asks again is answered."""
    return (
        state.role is Role.PRE_CANDIDATE
        and state.election_elapsed_ticks < state.config.heartbeat_ticks
        and message.term == state.current_term + 1
        and message.last_log_index == state.log.last_index
        and message.last_log_term == state.log.last_term
        and message.source < state.node_id
    )


def _answer_stale(state: NodeState, message: AnyMessage) -> None:
    """Tell the sender of a request that its term is over; stale answers are dropped unread."""
    source, target, term = state.node_id, message.source, state.current_term
    match message:
        case AppendEntries():
            state.send(
                AppendEntriesReply(
                    source=source,
                    target=target,
                    term=term,
                    success=False,
                    prev_log_index=message.prev_log_index,
                )
            )
        case Heartbeat():
            state.send(HeartbeatReply(source=source, target=target, term=term, read_sequence=0))
        case InstallSnapshot():
            state.send(InstallSnapshotReply(source=source, target=target, term=term, match_index=0))
        case RequestVote():
            state.send(
                RequestVoteReply(source=source, target=target, term=term, vote_granted=False)
            )
        case _:
            pass


def _recognise_leader(state: NodeState, leader: NodeId) -> None:
    """A message only this term's leader sends: candidates give way (5.2), the timer restarts."""
    if state.role is Role.LEADER:
        raise SafetyViolation(
            f"{leader} and {state.node_id} both lead in term {state.current_term}: a member voted "
            "twice; stop the group"
        )
    if state.leader_id != leader:
        become_follower(state, term=state.current_term, leader_id=leader)
    state.election_elapsed_ticks = 0


def become_follower(state: NodeState, *, term: int, leader_id: NodeId | None = None) -> None:
    """Follow. The vote is forgotten only with its term: within one it is given once (5.2).

    The election timer runs on, except for a leader, which had none.
    """
    assert term >= state.current_term, "terms only grow"
    if term > state.current_term:
        state.current_term = term
        state.voted_for = None
    if state.leadership is not None:
        reads.drop_all(state)
        state.leadership = None
        state.restart_election_timer()
    if state.leader_id != leader_id:
        reads.drop_forwarded(state)
    state.role = Role.FOLLOWER
    state.leader_id = leader_id
    state.votes = {}


def forget_leader(state: NodeState) -> None:
    """A follower knows that its leader is gone: until it is heard again, nothing speaks against
    voting for another. Nothing is promised by that: term and vote stay as they are."""
    if state.role is Role.FOLLOWER and state.leader_id is not None:
        become_follower(state, term=state.current_term)


# Followers and candidates: time (5.2)


def tick_follower(state: NodeState) -> None:
    """Start an election when nothing was heard for the random timeout."""
    state.election_elapsed_ticks += 1
    if state.election_elapsed_ticks >= state.election_timeout_ticks and is_promotable(state):
        campaign(state)
    elif (
        state.role is Role.PRE_CANDIDATE
        and state.election_elapsed_ticks % state.config.heartbeat_ticks == 0
    ):
        _ask_for_pre_votes(state)


def is_promotable(state: NodeState) -> bool:
    """Whether this node may stand: a voter, whose machine is not about to be replaced.

    A node whose latest configuration leaves it out may still be needed while that configuration is
    not committed: it may be the only one that has it (thesis 4.2.2, Figure 4.6).
    """
    if state.log.pending_snapshot is not None or state.restore_due is not None:
        return False
    if state.node_id in state.configuration.voters:
        return True
    if state.configuration_index <= state.commit_index or len(state.configurations) < 2:
        return False
    _, previous = state.configurations[-2]
    return state.node_id in previous.voters and state.node_id not in state.configuration.members


def campaign(state: NodeState) -> None:
    """The timeout passed: ask for votes, or first whether asking makes sense."""
    if not state.config.pre_vote:
        start_election(state)
        return
    become_follower(state, term=state.current_term)
    state.role = Role.PRE_CANDIDATE
    state.restart_election_timer()
    state.votes = {state.node_id: True}
    _ask_for_pre_votes(state)
    _count_pre_votes(state)


def _ask_for_pre_votes(state: NodeState) -> None:
    """All voters that have not answered."""
    for voter in _other_voters(state):
        if voter in state.votes:
            continue
        state.send(
            PreVote(
                source=state.node_id,
                target=voter,
                term=state.current_term + 1,
                last_log_index=state.log.last_index,
                last_log_term=state.log.last_term,
            )
        )


def start_election(state: NodeState, *, leadership_transfer: bool = False) -> None:
    """Candidates (5.2): increment current_term, vote for self, reset the timer, ask all others.

    The own vote is counted when it is durable (``count_own_vote``), and the requests wait for that
    too: a term used before it is recorded could be used twice.
    """
    become_follower(state, term=state.current_term + 1)
    state.role = Role.CANDIDATE
    state.voted_for = state.node_id
    state.restart_election_timer()
    for voter in _other_voters(state):
        state.send(
            RequestVote(
                source=state.node_id,
                target=voter,
                term=state.current_term,
                last_log_index=state.log.last_index,
                last_log_term=state.log.last_term,
                leadership_transfer=leadership_transfer,
            )
        )


def _other_voters(state: NodeState) -> list[NodeId]:
    return [voter for voter in state.configuration.voters if voter != state.node_id]


# Voters (5.2, 5.4.1)


def handle_request_vote(state: NodeState, message: RequestVote) -> None:
    """Rule 2: if voted_for is null or candidate_id, and the candidate's log is at least as
    up-to-date as the receiver's, grant the vote. Learners answer too: one may have been promoted
    without knowing it yet."""
    granted = _may_vote_for(state, message.source) and state.log.is_up_to_date(
        message.last_log_index, message.last_log_term
    )
    if granted:
        state.voted_for = message.source
        state.election_elapsed_ticks = 0
    state.send(
        RequestVoteReply(
            source=state.node_id,
            target=message.source,
            term=state.current_term,
            vote_granted=granted,
        )
    )


def _may_vote_for(state: NodeState, candidate: NodeId) -> bool:
    return state.voted_for is None or state.voted_for == candidate


def handle_pre_vote(state: NodeState, message: PreVote) -> None:
    """Say whether a vote would be granted. A refusal carries the own term, so that a node left
    behind in an old one learns of it."""
    would_vote = message.term > state.current_term or (
        message.term == state.current_term and _may_vote_for(state, message.source)
    )
    granted = would_vote and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    state.send(
        PreVoteReply(
            source=state.node_id,
            target=message.source,
            term=message.term if granted else state.current_term,
            vote_granted=granted,
        )
    )


# Candidates: answers


def handle_pre_vote_reply(state: NodeState, message: PreVoteReply) -> None:
    """Count an answer to this pre-vote; the first one of each voter is the one that counts."""
    if state.role is not Role.PRE_CANDIDATE:
        return
    if message.vote_granted and message.term != state.current_term + 1:
        return
    state.votes.setdefault(message.source, message.vote_granted)
    _count_pre_votes(state)


def _count_pre_votes(state: NodeState) -> None:
    match quorum.vote_result(state.configuration.voters, state.votes):
        case VoteResult.WON:
            start_election(state)
        case VoteResult.LOST:
            become_follower(state, term=state.current_term)
        case VoteResult.PENDING:
            pass


def handle_request_vote_reply(state: NodeState, message: RequestVoteReply) -> None:
    """Count a vote, once a voter (a set, not a number: replies may be doubled)."""
    if state.role is Role.CANDIDATE:
        state.votes.setdefault(message.source, message.vote_granted)
        _count_votes(state)


def count_own_vote(state: NodeState) -> None:
    """The candidate's vote for itself is durable now."""
    if state.role is Role.CANDIDATE and state.durable_hard_state == state.hard_state:
        state.votes[state.node_id] = True
        _count_votes(state)


def _count_votes(state: NodeState) -> None:
    match quorum.vote_result(state.configuration.voters, state.votes):
        case VoteResult.WON:
            become_leader(state)
        case VoteResult.LOST:
            become_follower(state, term=state.current_term)
        case VoteResult.PENDING:
            pass


# Leaders


def become_leader(state: NodeState) -> None:
    """A majority voted: lead, and append an empty entry at once (5.2, section 8).

    Only that entry's commitment tells the leader what is committed (5.4.2). It also announces the
    leader: every peer is sent it as its first AppendEntries.
    """
    assert state.role is Role.CANDIDATE
    assert state.durable_hard_state == state.hard_state, "the term it leads in is recorded"
    state.role = Role.LEADER
    state.leader_id = state.node_id
    state.election_elapsed_ticks = 0
    state.votes = {}
    state.leadership = Leadership(
        progress={peer: state.new_progress() for peer in state.peers},
        uncommitted_bytes=replication.committed_bytes(state, state.log.last_index),
    )
    replication.append_own(state, EntryKind.NOOP)


def tick_check_quorum(state: NodeState) -> None:
    """Every election timeout: step down unless a majority has answered since the last check
    (thesis 6.2)."""
    leading = state.leading
    leading.quorum_check_elapsed_ticks += 1
    if leading.quorum_check_elapsed_ticks < state.config.election_timeout_ticks:
        return
    leading.quorum_check_elapsed_ticks = 0
    heard = quorum.active_majority(
        state.configuration.voters,
        lambda voter: voter == state.node_id or leading.progress[voter].recently_active,
    )
    for progress in leading.progress.values():
        progress.recently_active = False
    if state.config.check_quorum and not heard:
        become_follower(state, term=state.current_term)
