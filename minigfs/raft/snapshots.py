"""Members the log cannot serve any more get the state itself (paper section 7)."""

from minigfs.raft import replication
from minigfs.raft.errors import SnapshotTemporarilyUnavailable
from minigfs.raft.messages import InstallSnapshot, InstallSnapshotReply
from minigfs.raft.progress import ProgressState
from minigfs.raft.records import NodeId, SnapshotMetadata
from minigfs.raft.state import NodeState

__all__ = [
    "handle_install_snapshot",
    "handle_install_snapshot_reply",
    "report_snapshot",
    "send_snapshots",
    "snapshot_metadata_at",
]


def send_snapshots(state: NodeState) -> None:
    """Leader: send the newest snapshot to every member whose next entry is compacted.

    One that has not answered lately is left alone: a snapshot is too dear to throw away. Its next
    heartbeat's reply starts a probe, and that leads here again.
    """
    for peer, progress in state.leading.progress.items():
        if not progress.snapshot_due:
            continue
        progress.snapshot_due = False
        if not progress.recently_active:
            continue
        try:
            snapshot = state.log.storage_snapshot()
        except SnapshotTemporarilyUnavailable:
            continue
        progress.become_snapshot(snapshot.metadata.last_included_index)
        message = InstallSnapshot(
            source=state.node_id, target=peer, term=state.current_term, snapshot=snapshot
        )
        state.send(message)


def handle_install_snapshot_reply(state: NodeState, message: InstallSnapshotReply) -> None:
    """Leader: the member has the snapshot, or had newer; go on with the log from there."""
    progress = replication.progress_of(state, message.source)
    if progress is not None:
        replication.acknowledge(state, progress, message.match_index)


def report_snapshot(state: NodeState, peer: NodeId, *, delivered: bool) -> None:
    """Leader: the driver knows whether the last snapshot reached ``peer``.

    Only a failure changes anything; success shows itself by InstallSnapshotReply.
    """
    progress = replication.progress_of(state, peer)
    if progress is None or progress.state is not ProgressState.SNAPSHOT or delivered:
        return
    progress.become_probe()
    progress.probe_outstanding = True  # not at once: the next heartbeat's reply resumes it


def handle_install_snapshot(state: NodeState, message: InstallSnapshot) -> None:
    """Receiver implementation of InstallSnapshot (Figure 13; rule 1 was ``election.admit``).

    A snapshot at or below the commit index is old: nothing goes back. If the log holds the
    snapshot's last entry, everything up to it is the same and what follows is kept (rule 6).
    Otherwise the snapshot replaces the log, and the machine's state once it is durable.
    """
    metadata = message.snapshot.metadata
    index, term = metadata.last_included_index, metadata.last_included_term
    if index > state.commit_index:
        if not state.log.matches(index, term):
            state.log.restore(message.snapshot)
            state.configurations = [(index, metadata.configuration)]
        state.commit_index = index
    state.send(
        InstallSnapshotReply(
            source=state.node_id,
            target=message.source,
            term=state.current_term,
            match_index=state.commit_index,
        )
    )


def snapshot_metadata_at(state: NodeState, index: int) -> SnapshotMetadata:
    """What a snapshot of the machine after applying ``index`` must record beside its data.

    A member added later does not know who took part before the first configuration in its log:
    raises ``SnapshotTemporarilyUnavailable`` for an index below that.
    """
    assert state.log.snapshot_index <= index <= state.last_applied, "applied, and not going back"
    _prune_configurations(state, state.log.snapshot_index)
    _, configuration = max(
        (item for item in state.configurations if item[0] <= index), key=lambda item: item[0]
    )
    if not configuration.voters:
        raise SnapshotTemporarilyUnavailable(f"the configuration at {index} is not known here")
    return SnapshotMetadata(
        last_included_index=index,
        last_included_term=state.log.term_at(index),
        configuration=configuration,
    )


def _prune_configurations(state: NodeState, snapshot_index: int) -> None:
    """Forget configurations that ended before the durable snapshot: nobody can go back there."""
    while len(state.configurations) > 1 and state.configurations[1][0] <= snapshot_index:
        del state.configurations[0]
