"""Linearizable reads without log entries: ReadIndex (paper section 8, thesis 6.4).

The leader notes its commit index, proves that it still leads by one round of heartbeats that starts
*after* the read was asked for, and answers with the index. No clock is trusted.

A round is named by a sequence number of the leader's own, which only grows; an answer to round *n*
confirms every read up to *n*. The caller's context never names a round: contexts may repeat, and a
delayed answer to the first use would confirm the second (etcd 20418). For the same reason a read
forwarded to the leader carries the asking node's own numbers.
"""

from minigfs.raft import quorum, replication
from minigfs.raft.errors import NotLeader, ReadDropped
from minigfs.raft.messages import ReadIndex, ReadIndexReply
from minigfs.raft.ready import ReadState
from minigfs.raft.state import ForwardedRead, NodeState, PendingRead, ReadOrigin

__all__ = [
    "advance",
    "drop_all",
    "drop_forwarded",
    "handle_read_index",
    "handle_read_index_reply",
    "read_index",
    "send_rounds",
    "tick_forwarded",
]


def read_index(state: NodeState, context: bytes) -> None:
    """Ask for a read; its ``ReadState`` or its dropping comes in a later Ready.

    Raises ``NotLeader`` if no leader is known, ``ReadDropped`` if too many reads wait.
    """
    if state.leadership is not None:
        if _is_full(state):
            raise ReadDropped(f"{state.config.pending_reads_max} reads wait; try again")
        _enqueue(state, ReadOrigin(source=state.node_id, context=context))
        return
    if state.leader_id is None:
        raise NotLeader(f"{state.node_id} knows no leader; try again")
    if len(state.forwarded_reads) >= state.config.pending_reads_max:
        raise ReadDropped(f"{state.config.pending_reads_max} reads wait; try again")
    state.forwarded_sequence += 1
    state.forwarded_reads[state.forwarded_sequence] = ForwardedRead(context)
    state.send(
        ReadIndex(
            source=state.node_id,
            target=state.leader_id,
            term=state.current_term,
            incarnation=state.config.incarnation,
            sequence=state.forwarded_sequence,
        )
    )


# Leader


def handle_read_index(state: NodeState, message: ReadIndex) -> None:
    """A member asks; one too many is dropped, and asked again by who wants it."""
    if state.leadership is not None and not _is_full(state):
        origin = ReadOrigin(
            source=message.source, incarnation=message.incarnation, sequence=message.sequence
        )
        _enqueue(state, origin)


def _is_full(state: NodeState) -> bool:
    queue = state.leading.reads
    waiting = len(queue.pending) + len(queue.awaiting_first_commit)
    return waiting >= state.config.pending_reads_max


def _enqueue(state: NodeState, origin: ReadOrigin) -> None:
    """Before an entry of its own term is committed a leader does not know what is (step 1)."""
    queue = state.leading.reads
    if not state.committed_in_own_term:
        queue.awaiting_first_commit.append(origin)
        return
    queue.sequence += 1
    queue.pending.append(
        PendingRead(sequence=queue.sequence, read_index=state.commit_index, origin=origin)
    )


def send_rounds(state: NodeState) -> None:
    """One round of heartbeats for all reads since the last one; lost ones are repeated by time."""
    queue = state.leading.reads
    if queue.sequence > queue.sequence_sent:
        replication.send_heartbeats(state)


def advance(state: NodeState) -> None:
    """Start what waited for the first commit, and answer what a majority has confirmed (step 3)."""
    queue = state.leading.reads
    if queue.awaiting_first_commit and state.committed_in_own_term:
        waiting, queue.awaiting_first_commit = queue.awaiting_first_commit, []
        for origin in waiting:
            _enqueue(state, origin)
    if not queue.pending:
        return
    progress = state.leading.progress
    confirmed = quorum.quorum_value(
        state.configuration.voters,
        lambda voter: (
            queue.sequence if voter == state.node_id else progress[voter].read_sequence_acked
        ),
    )
    while queue.pending and queue.pending[0].sequence <= confirmed:
        _answer(state, queue.pending.popleft())


def _answer(state: NodeState, read: PendingRead) -> None:
    origin = read.origin
    if origin.source == state.node_id:
        state.read_states.append(ReadState(context=origin.context, read_index=read.read_index))
        return
    state.send(
        ReadIndexReply(
            source=state.node_id,
            target=origin.source,
            term=state.current_term,
            incarnation=origin.incarnation,
            sequence=origin.sequence,
            read_index=read.read_index,
        )
    )


def drop_all(state: NodeState) -> None:
    """Leadership is lost: nothing can be confirmed any more."""
    queue = state.leading.reads
    origins = [read.origin for read in queue.pending] + queue.awaiting_first_commit
    state.reads_dropped.extend(
        origin.context for origin in origins if origin.source == state.node_id
    )


# The asking member


def handle_read_index_reply(state: NodeState, message: ReadIndexReply) -> None:
    """Take the answer to a read that still waits; in this life, and once."""
    if message.incarnation != state.config.incarnation:
        return
    read = state.forwarded_reads.pop(message.sequence, None)
    if read is not None:
        state.read_states.append(ReadState(context=read.context, read_index=message.read_index))


def tick_forwarded(state: NodeState) -> None:
    """Drop forwarded reads that got no answer for an election timeout."""
    for sequence, read in list(state.forwarded_reads.items()):
        read.elapsed_ticks += 1
        if read.elapsed_ticks >= state.config.election_timeout_ticks:
            del state.forwarded_reads[sequence]
            state.reads_dropped.append(read.context)


def drop_forwarded(state: NodeState) -> None:
    """The leader that was asked leads no more, as far as this node knows."""
    state.reads_dropped.extend(read.context for read in state.forwarded_reads.values())
    state.forwarded_reads.clear()
