"""How logs become equal, and when an entry is committed (paper 5.3, 5.4.2; Figure 2,
"AppendEntries RPC" and the leader's rules).

What each peer is sent is decided once per ``ready()``, in ``send_appends``: everything proposed
since the last one goes into one message, as far as the peer's window and ``thrift`` allow.
"""

from minigfs.raft import quorum, thrift
from minigfs.raft.errors import LogUnavailable, NotLeader, ProposalDropped, SafetyViolation
from minigfs.raft.messages import AppendEntries, AppendEntriesReply, Heartbeat, HeartbeatReply
from minigfs.raft.progress import Progress, ProgressState
from minigfs.raft.records import (
    Configuration,
    Entry,
    EntryKind,
    LogPosition,
    NodeId,
    total_bytes,
)
from minigfs.raft.state import NodeState

__all__ = [
    "acknowledge",
    "adopt_configuration",
    "advance_commit_index",
    "append_own",
    "committed_bytes",
    "handle_append_entries",
    "handle_append_entries_reply",
    "handle_heartbeat",
    "handle_heartbeat_reply",
    "progress_of",
    "propose",
    "send_appends",
    "send_heartbeats",
    "tell_commit",
    "tick_leader",
]


# Leader: new entries


def propose(state: NodeState, data: bytes) -> LogPosition:
    """Append a command to the leader's log ("append entry to local log", Figure 2).

    Raises ``NotLeader``; ``ProposalDropped`` while leadership is handed over, or when too much is
    uncommitted (one command is always let in when nothing is).
    """
    if state.leadership is None:
        raise NotLeader(f"{state.node_id} is no leader; ask {state.leader_id or 'again later'}")
    leading = state.leadership
    if leading.transfer is not None:
        raise ProposalDropped(f"leadership is moving to {leading.transfer.target}; ask it")
    held_bytes = leading.uncommitted_bytes
    if data and held_bytes > 0 and held_bytes + len(data) > state.config.uncommitted_bytes_max:
        raise ProposalDropped(f"{held_bytes} bytes wait to be committed; slow down and try again")
    return append_own(state, EntryKind.COMMAND, data=data)


def append_own(
    state: NodeState,
    kind: EntryKind,
    *,
    data: bytes = b"",
    configuration: Configuration | None = None,
) -> LogPosition:
    """Leader Append-Only (5.3): a leader adds to the end of its log, in its own term."""
    entry = Entry(
        index=state.log.last_index + 1,
        term=state.current_term,
        kind=kind,
        data=data,
        configuration=configuration,
    )
    state.log.append((entry,))
    state.leading.uncommitted_bytes += len(data)
    adopt_configuration(state, entry)
    return entry.position


def adopt_configuration(state: NodeState, entry: Entry) -> None:
    """A configuration is in force from the moment its entry is in the log (thesis 4.1)."""
    if entry.configuration is None:
        return
    state.configurations.append((entry.index, entry.configuration))
    if state.leadership is not None:
        known = state.leadership.progress
        state.leadership.progress = {
            peer: known.get(peer) or _progress_of_newcomer(state) for peer in state.peers
        }


def _progress_of_newcomer(state: NodeState) -> Progress:
    """A new member has until the next quorum check to answer."""
    progress = state.new_progress()
    progress.recently_active = True
    return progress


# Leader: sending


def send_appends(state: NodeState) -> None:
    """Send every peer what its window allows ("if last log index >= nextIndex", Figure 2)."""
    last_index, told_index = state.log.last_index, thrift.told_index(state)
    told_first = thrift.told_first(state) if told_index < last_index else ()
    for peer, progress in state.leading.progress.items():
        if progress.state is ProgressState.SNAPSHOT:
            continue
        if progress.state is ProgressState.PROBE:
            if not progress.probe_outstanding and _has_something_to_tell(state, progress):
                _send_append(state, peer, progress, last_index)
            continue
        up_to_index = last_index if peer in told_first else told_index
        while progress.next_index <= up_to_index and not progress.inflights.full:
            if not _send_append(state, peer, progress, up_to_index):
                break
        # A full window still lets one empty message through when a heartbeat was answered: if all
        # in the window was lost, its rejection is what starts sending again.
        if progress.append_due or (not progress.inflights.full and _has_news(state, progress)):
            _send_append(state, peer, progress, progress.next_index - 1)


def _has_something_to_tell(state: NodeState, progress: Progress) -> bool:
    return progress.next_index <= state.log.last_index or _has_news(state, progress)


def _has_news(state: NodeState, progress: Progress) -> bool:
    """Whether an AppendEntries without entries is worth sending."""
    return progress.append_due or (
        state.config.commit_news_at_once and _is_owed_commit(state, progress)
    )


def _is_owed_commit(state: NodeState, progress: Progress) -> bool:
    return progress.commit_sent < min(state.commit_index, progress.next_index - 1)


def tell_commit(state: NodeState) -> None:
    """Let the next ``send_appends`` tell them."""
    if state.leadership is None:
        return
    for progress in state.leadership.progress.values():
        if progress.state is ProgressState.REPLICATE and _is_owed_commit(state, progress):
            progress.append_due = True


def _send_append(state: NodeState, peer: NodeId, progress: Progress, up_to_index: int) -> bool:
    """One AppendEntries from ``next_index``; if that part is compacted, a snapshot is due (7)."""
    prev_log_index = progress.next_index - 1
    try:
        prev_log_term = state.log.term_at(prev_log_index)
        entries = state.log.entries(prev_log_index + 1, up_to_index, state.config.message_bytes_max)
    except LogUnavailable:
        progress.append_due = False
        progress.probe_outstanding = True
        progress.snapshot_due = True
        return False
    last_sent = prev_log_index + len(entries)
    if entries or progress.state is ProgressState.PROBE:
        progress.sent(last_sent, total_bytes(entries))
    progress.append_due = False
    progress.commit_sent = max(progress.commit_sent, min(state.commit_index, last_sent))
    state.send(
        AppendEntries(
            source=state.node_id,
            target=peer,
            term=state.current_term,
            prev_log_index=prev_log_index,
            prev_log_term=prev_log_term,
            entries=tuple(entries),
            leader_commit=state.commit_index,
        )
    )
    return True


def send_heartbeats(state: NodeState) -> None:
    """To everybody, on time ("repeat during idle periods", Figure 2).

    The commit index told is never above what the peer has acknowledged: above that its log may
    still differ.
    """
    reads = state.leading.reads
    reads.sequence_sent = reads.sequence
    for peer, progress in state.leading.progress.items():
        state.send(
            Heartbeat(
                source=state.node_id,
                target=peer,
                term=state.current_term,
                commit_index=min(progress.match_index, state.commit_index),
                read_sequence=reads.sequence,
            )
        )


def tick_leader(state: NodeState) -> None:
    """Count towards the next heartbeat, and towards giving up a silent snapshot."""
    leading = state.leading
    for progress in leading.progress.values():
        if progress.state is ProgressState.SNAPSHOT:
            progress.snapshot_elapsed_ticks += 1
            if progress.snapshot_elapsed_ticks >= state.config.snapshot_retry_ticks:
                progress.become_probe()
    leading.heartbeat_elapsed_ticks += 1
    if leading.heartbeat_elapsed_ticks >= state.config.heartbeat_ticks:
        leading.heartbeat_elapsed_ticks = 0
        send_heartbeats(state)


# Leader: answers


def handle_append_entries_reply(state: NodeState, message: AppendEntriesReply) -> None:
    """Figure 2: if successful, update next_index and match_index; if not, decrement next_index."""
    progress = progress_of(state, message.source)
    if progress is None:
        return
    if message.success:
        acknowledge(state, progress, message.match_index)
        return
    hint_index = message.hint_index
    if message.hint_term > 0:
        hint_index, _ = state.log.last_match_by_term(hint_index, message.hint_term)
    progress.rejected(message.prev_log_index, hint_index)


def acknowledge(state: NodeState, progress: Progress, match_index: int) -> None:
    """The peer's log is durable and equal up to ``match_index``."""
    if match_index > state.log.last_index:
        raise SafetyViolation(
            f"a member acknowledged entry {match_index} of term {state.current_term}, but its "
            f"leader {state.node_id} has only {state.log.last_index}; stop the group"
        )
    progress.acknowledged(match_index)
    if (
        progress.state is ProgressState.SNAPSHOT
        and progress.match_index + 1 >= state.log.first_index
    ):
        progress.become_replicate()


def handle_heartbeat_reply(state: NodeState, message: HeartbeatReply) -> None:
    """The way to the peer works: go on probing, and count its confirmation of reads (6.4)."""
    progress = progress_of(state, message.source)
    if progress is None:
        return
    progress.heard_heartbeat_reply(state.log.last_index)
    progress.read_sequence_acked = max(progress.read_sequence_acked, message.read_sequence)


def progress_of(state: NodeState, peer: NodeId) -> Progress | None:
    """The leader's view of a member; None for a removed one, or if this node does not lead."""
    if state.leadership is None:
        return None
    return state.leadership.progress.get(peer)


def advance_commit_index(state: NodeState) -> None:
    """Figure 2, the last rule for leaders.

    If there exists an N > commit_index such that a majority of match_index[i] >= N, *and
    log[N].term == current_term*: set commit_index = N (5.3, 5.4). Entries of earlier terms are
    committed only indirectly, by one of the own term above them (5.4.2, Figure 8).
    """
    leading = state.leading
    majority_index = quorum.quorum_value(state.configuration.voters, state.match_index_of)
    if majority_index <= state.commit_index:
        return
    if state.log.term_at(majority_index) != state.current_term:
        return
    if leading.uncommitted_bytes > 0:
        leading.uncommitted_bytes -= committed_bytes(state, majority_index)
    state.commit_index = majority_index


def committed_bytes(state: NodeState, new_commit_index: int) -> int:
    """Command bytes between the commit index and a later one."""
    index, held_bytes = state.commit_index + 1, 0
    while index <= new_commit_index:
        batch = state.log.entries(index, new_commit_index, state.config.message_bytes_max)
        held_bytes += sum([len(entry.data) for entry in batch])
        index += len(batch)
    return held_bytes


# Follower


def handle_append_entries(state: NodeState, message: AppendEntries) -> None:
    """Receiver implementation of AppendEntries, rules 2 to 5 (rule 1, the term, was
    ``election.admit``). The leader is known and the timer restarted whatever the answer."""
    if message.prev_log_index < state.commit_index:
        # What is committed equals the leader's (Leader Completeness, 5.4.3), even if it is
        # compacted here: tell the leader where to go on, and touch nothing.
        _reply(state, message, match_index=state.commit_index)
        return
    # 2. Reply false if log doesn't contain an entry at prev_log_index whose term matches (5.3).
    if not state.log.matches(message.prev_log_index, message.prev_log_term):
        _reject(state, message)
        return
    # 3. and 4. Delete what conflicts, append what is new.
    deleted_from = state.log.merge(message.entries, commit_index=state.commit_index)
    if deleted_from is not None:
        _forget_configurations(state, deleted_from)
    for entry in message.entries:
        if entry.index > state.configuration_index:
            adopt_configuration(state, entry)
    # 5. If leader_commit > commit_index, commit_index = min(leader_commit, last *new* entry):
    # above what this message covers, the log may still be another leader's.
    last_covered = message.prev_log_index + len(message.entries)
    state.commit_index = max(state.commit_index, min(message.leader_commit, last_covered))
    _reply(state, message, match_index=last_covered)


def _forget_configurations(state: NodeState, deleted_from: int) -> None:
    """Deleted with its entry, a configuration gives way to the one before it (thesis 4.1)."""
    while state.configuration_index >= deleted_from:
        state.configurations.pop()


def _reject(state: NodeState, message: AppendEntries) -> None:
    """No match here; the hint lets the leader skip whole terms (end of 5.3)."""
    hint_index, hint_term = state.log.last_match_by_term(
        min(message.prev_log_index, state.log.last_index), message.prev_log_term
    )
    state.send(
        AppendEntriesReply(
            source=state.node_id,
            target=message.source,
            term=state.current_term,
            success=False,
            prev_log_index=message.prev_log_index,
            hint_index=hint_index,
            hint_term=hint_term,
        )
    )


def _reply(state: NodeState, message: AppendEntries, *, match_index: int) -> None:
    state.send(
        AppendEntriesReply(
            source=state.node_id,
            target=message.source,
            term=state.current_term,
            success=True,
            prev_log_index=message.prev_log_index,
            match_index=match_index,
        )
    )


def handle_heartbeat(state: NodeState, message: Heartbeat) -> None:
    """Learn the commit index, and confirm that this node still follows."""
    if message.commit_index > state.log.last_index:
        raise SafetyViolation(
            f"{message.source} says {state.node_id} acknowledged entry {message.commit_index}, but "
            f"its log ends at {state.log.last_index}: its disk lost what it promised; remove this "
            "member and add a new one"
        )
    state.commit_index = max(state.commit_index, message.commit_index)
    state.send(
        HeartbeatReply(
            source=state.node_id,
            target=message.source,
            term=state.current_term,
            read_sequence=message.read_sequence,
        )
    )
