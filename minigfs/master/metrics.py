"""What a master measures of itself and, while it leads, of the chunkservers.

Called from the thread of an HTTP request: it reads single values and copies of tables, nothing that
the event loop could be in the middle of changing.
"""

from collections.abc import Iterator

from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.replication.host import ReplicatedHost
from minigfs.transport.metrics import Metric, process_metrics

__all__ = ["chunkserver_fleet_metrics", "file_system_metrics", "group_metrics"]


def group_metrics(host: ReplicatedHost) -> Iterator[Metric]:
    """Of a member of the group of masters."""
    view = host.view()
    yield Metric("minigfs_raft_term", "Current term; each election begins one.", host.term)
    yield Metric(
        "minigfs_raft_commit_index", "Entries of the log that are committed.", host.commit_index
    )
    yield Metric(
        "minigfs_raft_applied_index",
        "Entries of the log that are applied here.",
        host.machines.applied_index,
    )
    yield Metric("minigfs_raft_leads", "1 if this master leads, else 0.", int(host.is_leader))
    yield Metric("minigfs_raft_members", "Masters in the group.", len(view.configuration.members))
    yield from process_metrics()


def file_system_metrics(
    state: FileSystemState, tenure: Tenure | None, proposals_count: int
) -> Iterator[Metric]:
    """Of the replicated state; of the chunkservers where the master leads."""
    yield Metric("minigfs_files", "Published files.", state.file_count)
    yield Metric("minigfs_directories", "Directories below the root.", state.directory_count)
    yield Metric("minigfs_chunks", "Chunks of files, also of unfinished ones.", len(state.chunks))
    yield Metric("minigfs_garbage_chunks", "Chunks to be deleted.", len(state.garbage))
    yield Metric("minigfs_open_writers", "Files that are being written.", len(state.temporary))
    yield Metric("minigfs_proposals_total", "Changes proposed by this master.", proposals_count)
    if tenure is not None:
        yield from chunkserver_fleet_metrics(tenure)


def chunkserver_fleet_metrics(tenure: Tenure) -> Iterator[Metric]:
    servers = tenure.membership.report(tenure.now_ms)
    labelled = [({"id": one.id, "host": one.host, "address": one.address}, one) for one in servers]
    name = "minigfs_fleet"
    yield Metric(
        f"{name}_alive",
        "1 for a chunkserver that is alive.",
        [(label, int(s.alive)) for label, s in labelled],
    )
    yield Metric(
        f"{name}_heartbeat_age_seconds",
        "Seconds since a chunkserver was heard of.",
        [(label, s.last_heard_ms_ago / 1000) for label, s in labelled],
    )
    yield Metric(
        f"{name}_stored_bytes", "Bytes of chunks.", [(label, s.bytes) for label, s in labelled]
    )
    yield Metric(
        f"{name}_disk_free_bytes", "Free space.", [(label, s.free_bytes) for label, s in labelled]
    )
    yield Metric(
        f"{name}_damaged_chunks",
        "Damaged chunks, not replaced yet.",
        [(label, s.damaged) for label, s in labelled],
    )
    yield Metric(
        "minigfs_repairs_running", "Replicas that are being made.", tenure.repairs.running_count
    )
    yield Metric(
        "minigfs_repair_bytes_per_second",
        "How fast replicas were made lately.",
        tenure.repairs.bytes_per_second(tenure.now_ms),
    )
