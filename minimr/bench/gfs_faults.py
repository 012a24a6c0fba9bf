"""What a death costs: how long writers wait, and how fast lost replicas are made again."""

import time
from collections.abc import Callable, Iterator

from minigfs.master.copy_book import RepairLimits
from minigfs.master.messages import ClusterReport
from minimr.bench.figures import Figure, Limit
from minimr.bench.machine import MachineLimits
from minimr.bench.raft import longest_stall_ms
from minimr.bench.scratch import ScratchCluster
from minimr.bench.stores import MinigfsStore

__all__ = ["recovery", "stalls"]

_FILE_BYTES = 8 << 20  # enough chunks for all servers to have work to the end
_SYSTEM = "minigfs"


def stalls(cluster: ScratchCluster) -> Iterator[Figure]:
    """The longest that a writer of small files waited around a kill."""
    kills: tuple[tuple[str, Callable[[], None]], ...] = (
        ("a chunkserver", cluster.kill_chunkserver),
        ("the leader", cluster.kill_leader),
    )
    store = MinigfsStore(cluster.client())
    for name, kill in kills:
        cluster.await_health("OK")
        root = f"/stall-{name.split()[-1]}"
        store.make_directory(root)

        def write(number: int, root: str = root) -> None:
            store.create(f"{root}/{number}", b"x" * 1024)

        stall_ms = longest_stall_ms(write, kill)
        yield _figure(f"longest stall of a writer, {name} killed", stall_ms, "ms")
        cluster.restart_missing()


def recovery(cluster: ScratchCluster, machine: MachineLimits, size_bytes: int) -> Iterator[Figure]:
    """One server dies for good: until no chunk is left with a single replica.

    Those are copied as soon as the death is noticed, and held against what the limits of repair
    allow: so many bytes a second to each server that is left. Chunks with two replicas wait a
    while for the server to come back.
    """
    store = MinigfsStore(cluster.client())
    content = bytes(_FILE_BYTES)
    store.make_directory("/recovery")
    for number in range(size_bytes // _FILE_BYTES):
        store.write(f"/recovery/{number}", [content], 2)
    server_count = len(cluster.await_health("OK").chunkservers) - 1
    cluster.kill_chunkserver()
    killed = time.perf_counter()
    lost = cluster.await_health("DATA_AT_RISK")
    noticed = time.perf_counter()
    cluster.await_report(_is_being_repaired, "replicas are being made again")
    began = time.perf_counter()
    safe = cluster.await_report(lambda report: not _single(report), "no replica is the only one")
    ended = time.perf_counter()
    cluster.await_report(lambda report: not _missing_bytes(report), "every replica is there")
    healed = time.perf_counter()
    copied_bytes = _missing_bytes(lost) - _missing_bytes(safe)
    rate = copied_bytes / (ended - began)
    limits = RepairLimits()
    throttle = min(limits.server_bytes_per_second * server_count, limits.cluster_bytes_per_second)
    what = f"{copied_bytes / 1e6:,.0f} MB with a single replica copied"
    yield _figure("a dead chunkserver noticed after", noticed - killed, "s")
    yield _figure("copying began, from there", began - noticed, "s")
    yield Figure.rate(_SYSTEM, what, rate, Limit(throttle, f"throttle {throttle / 1e6:.0f}"))
    yield Figure.rate(_SYSTEM, f"{what}, of the disk", rate, Limit(machine.disk_write, "disk"))
    yield _figure("no chunk with a single replica, after the kill", ended - killed, "s")
    yield _figure("every replica there again, after the kill", healed - killed, "s")
    cluster.restart_missing()


def _is_being_repaired(report: ClusterReport) -> bool:
    repair = report.repair
    return repair is not None and (repair.copying > 0 or repair.missing_bytes == 0)


def _missing_bytes(report: ClusterReport) -> int:
    return report.repair.missing_bytes if report.repair is not None else 0


def _single(report: ClusterReport) -> int:
    return report.repair.single_replicas if report.repair is not None else 0


def _figure(what: str, value: float, unit: str) -> Figure:
    return Figure(system=_SYSTEM, what=what, value=value, unit=unit)
