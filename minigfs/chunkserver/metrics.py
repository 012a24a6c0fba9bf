"""What a chunkserver counts and measures of itself."""

from collections.abc import Iterator

from minigfs.chunkserver.scrubber import Scrubber
from minigfs.chunkserver.store import ChunkStore
from minigfs.transport.metrics import Counters, Metric, process_metrics

__all__ = ["COUNTERS", "chunkserver_metrics"]

COUNTERS = {
    "minigfs_chunkserver_read_bytes_total": "Bytes sent to readers over sockets.",
    "minigfs_chunkserver_reads_total": "Reads answered over sockets.",
    "minigfs_chunkserver_lent_files_total": "Chunk files lent to readers of this machine.",
    "minigfs_chunkserver_written_bytes_total": "Bytes of chunks sealed for writers.",
    "minigfs_chunkserver_writes_total": "Chunks sealed for writers.",
}


def chunkserver_metrics(
    store: ChunkStore, scrubber: Scrubber, counters: Counters, *, last_heard_s: float
) -> Iterator[Metric]:
    """``last_heard_s``: seconds since a master answered a heartbeat."""
    name = "minigfs_chunkserver"
    yield Metric(f"{name}_chunks", "Sealed chunks here.", store.chunk_count)
    yield Metric(f"{name}_stored_bytes", "Bytes of the sealed chunks here.", store.stored_bytes)
    yield Metric(
        f"{name}_damaged_chunks", "Chunks here that are not what was written.", store.damaged_count
    )
    yield Metric(
        f"{name}_damage_found_total", "Damaged or missing chunks found.", store.damage_found_count
    )
    yield Metric(
        f"{name}_trashed_chunks", "Deleted chunks that still rest here.", len(store.trash.handles())
    )
    yield Metric(f"{name}_disk_free_bytes", "Free space of the disk.", store.free_bytes)
    yield Metric(f"{name}_disk_capacity_bytes", "Size of the disk.", store.capacity_bytes)
    yield Metric(
        f"{name}_scrubbed_bytes_total", "Bytes read to look for damage.", scrubber.scrubbed_bytes
    )
    yield Metric(
        f"{name}_last_scrubbed_timestamp_seconds",
        "Everything here was read since then, in seconds since the epoch; 0 for never.",
        scrubber.last_scrubbed_ms / 1000,
    )
    yield Metric(
        f"{name}_last_heartbeat_age_seconds",
        "Seconds since a master answered a heartbeat.",
        last_heard_s,
    )
    yield from counters.metrics()
    yield from process_metrics()
