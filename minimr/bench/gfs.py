"""How fast the file system is: data, small files, metadata, repair, and the longest stall.

Three masters and four chunkservers of a scratch cluster, real processes on a real disk, used
through the client library; beside them, if that is asked for, MooseFS through its FUSE mount with
the same loads (``gfs_loads``). A figure that is bound by the machine stands beside that limit,
measured in the same run (``machine``), and says which part of it was reached.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from minigfs.client.appender import Appender
from minigfs.client.client import MinigfsClient
from minimr.bench.figures import Figure, Limit
from minimr.bench.gfs_faults import recovery, stalls
from minimr.bench.gfs_loads import (
    drop_from_cache,
    random_reads,
    sequential_read,
    small_changes,
    writes,
)
from minimr.bench.load import spread_closed_loop
from minimr.bench.machine import MachineLimits
from minimr.bench.moosefs import scratch_moosefs
from minimr.bench.scratch import ScratchCluster, scratch_cluster
from minimr.bench.stores import MinigfsStore, MountedStore

__all__ = ["GfsLoad", "measure_minigfs", "measure_moosefs"]

_MASTER_COUNT = 3
_CHUNKSERVER_COUNT = 4  # one more than replicas, so that one that dies can be replaced
_APPENDER_COUNTS = (1, 4, 16)
_RECORD_BYTES = 64 << 10
_RECOVERY_FACTOR = 3  # more than the large file: repair takes a moment to set out


@dataclass(frozen=True, slots=True, kw_only=True)
class GfsLoad:
    """``size_bytes``: of the large file; ``seconds``: of a loop."""

    machine: MachineLimits
    size_bytes: int
    seconds: float
    directory: Path | None = None  # on the disk to measure; None: that for temporaries


def measure_minigfs(load: GfsLoad) -> Iterator[Figure]:
    """Every figure, as it is known."""
    with scratch_cluster(
        load.directory, masters=_MASTER_COUNT, chunkservers=_CHUNKSERVER_COUNT
    ) as cluster:
        client = cluster.client()
        for replication in (1, 2, 3):
            client.make_directory(f"/{replication}")
        store = MinigfsStore(client)
        yield from writes(store, load.machine, load.size_bytes, (1, 2, 3))
        yield from _appends(client, load)
        client.remove("/1/large", now=True)  # which would be lost with the server that has it
        yield from recovery(cluster, load.machine, _RECOVERY_FACTOR * load.size_bytes)
        yield from stalls(cluster)
        yield from small_changes(store, load.seconds)
        yield from _reads(cluster, store, load)


def _reads(cluster: ScratchCluster, store: MinigfsStore, load: GfsLoad) -> Iterator[Figure]:
    machine = load.machine
    drop_from_cache(cluster.chunk_files())
    yield sequential_read(store, "read, cold", Limit(machine.disk_read, "disk"))
    warm = Limit(machine.file_read_and_verify, "file+sums")
    yield sequential_read(store, "read, warm, from this machine", warm)
    yield from random_reads(store, machine, load.size_bytes, load.seconds)
    cluster.forbid_lending()
    socket = Limit(machine.loopback, "loopback")
    # In a process of its own: this one keeps the connections through which it borrows files.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as stranger:
        what = "read, warm, through the socket"
        yield stranger.submit(sequential_read, store, what, socket).result()


def _appends(client: MinigfsClient, load: GfsLoad) -> Iterator[Figure]:
    for count in _APPENDER_COUNTS:
        appends = _Appends(client, f"/3/appended-{count}")
        latencies = spread_closed_loop(count, load.seconds, appends)
        rate = len(latencies) * _RECORD_BYTES / load.seconds
        what = f"append 64 KiB records to one file, {count} clients"
        yield Figure.rate("minigfs", what, rate, Limit(load.machine.disk_write / 3, "disk/3"))


@dataclass(frozen=True, slots=True)
class _Appends:
    """For each client by its number, the function that appends its n-th record."""

    client: MinigfsClient
    path: str

    def __call__(self, number: int) -> Callable[[int], None]:
        appender: Appender = self.client.open_appender(self.path)
        record = bytes([number]) * _RECORD_BYTES
        return lambda _: _ignored(appender.append(record))


def _ignored(_: object) -> None:
    pass


def measure_moosefs(load: GfsLoad) -> Iterator[Figure]:
    """The loads that both know. `UsageError` if it is not installed."""
    machine = load.machine
    with scratch_moosefs(load.directory) as moosefs:
        for replication in (1, 2, 3):
            moosefs.directory(str(replication), replication)
        store = MountedStore(moosefs.mount, "MooseFS")
        yield from writes(store, machine, load.size_bytes, (1, 2, 3))
        yield from small_changes(store, load.seconds)
        large = moosefs.mount / "3" / "large"
        drop_from_cache(iter((large, *moosefs.chunk_files())))
        yield sequential_read(store, "read, cold", Limit(machine.disk_read, "disk"))
        warm = Limit(machine.file_read_and_verify, "file+sums")
        yield sequential_read(store, "read, warm, from this machine", warm)
        yield from random_reads(store, machine, load.size_bytes, load.seconds)
        drop_from_cache(iter((large,)))
        socket = Limit(machine.loopback, "loopback")
        yield sequential_read(store, "read, warm, through the socket", socket)
