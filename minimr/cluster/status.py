"""What `minimr status` shows, gathered from the masters (DESIGN 5.1)."""

from typing import TypeVar

import msgspec

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.master.messages import ClusterReport, RepairReport, TrashReport
from minigfs.transport.messages import Message
from minimr.backends.master_link import MasterLink
from minimr.ids import WorkerId
from minimr.messages import JobStatus, ListJobs, ListWorkers, WorkerReport

__all__ = ["ClusterStatus", "gather_status", "status_of", "status_without_leader"]


_LineT = TypeVar("_LineT", bound=Message)


class HealthReport(Message, frozen=True):
    word: str  # "OK", "DEGRADED", "DATA_AT_RISK", "LOST", "NO_QUORUM"
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what is under way; no reason to worry


class MasterLine(Message, frozen=True):
    id: str
    role: str
    term: int
    pid: int
    address: str
    dir: str
    commit_index: int


class ChunkserverLine(Message, frozen=True):
    id: str
    pid: int
    address: str
    dir: str
    host: str
    rack: str
    chunks: int
    bytes: int


class WorkerLine(Message, frozen=True):
    id: WorkerId
    pid: int
    executor_pid: int
    host: str
    dir: str
    task: str  # attempt id, "" when idle


class ClusterStatus(Message, frozen=True):
    """``status --json``. Servers and workers are those alive; ``health`` names the others."""

    health: HealthReport
    masters: tuple[MasterLine, ...]
    elections: int
    chunkservers: tuple[ChunkserverLine, ...]
    workers: tuple[WorkerLine, ...]
    jobs: tuple[JobStatus, ...]
    cluster_id: str
    chunk_bytes: int
    replication: int
    files: int
    directories: int
    chunks: int
    repair: RepairReport | None = None  # None while no master leads, as is ``trash``
    trash: TrashReport | None = None


def gather_status(config: ClientConfig, *, expected_workers: int = 0) -> ClusterStatus:
    """Ask the master. ``expected_workers`` is how many this machine's `up` has started."""
    link = MasterLink(config.masters, config.security())
    try:
        report = MinigfsClient(config).report()
        workers = link.call(ListWorkers(), timeout_ms=config.timeout_ms).workers
        jobs = link.call(ListJobs(), timeout_ms=config.timeout_ms).jobs
    finally:
        link.close()
    return status_of(report, workers, jobs, expected_workers=expected_workers)


def status_without_leader(config: ClientConfig) -> ClusterStatus:
    """What the masters that are left know of each other, while too few are left to lead."""
    report = MinigfsClient(config).report(stale_ok=True)
    report = msgspec.structs.replace(report, health="NO_QUORUM", chunkservers=())
    return status_of(report, (), (), expected_workers=0)


def status_of(
    report: ClusterReport,
    workers: tuple[WorkerReport, ...],
    jobs: tuple[JobStatus, ...],
    *,
    expected_workers: int,
) -> ClusterStatus:
    reasons = list(report.reasons)
    reasons += [f"worker {w.id} ({w.dir}) is not heard of" for w in workers if not w.alive]
    reasons += [f"worker {w.id} ({w.dir}) gets no tasks: {w.aside}" for w in workers if w.aside]
    alive = [worker for worker in workers if worker.alive]
    if len(alive) < expected_workers:
        reasons.append(f"{len(alive)} of {expected_workers} workers are alive")
    word = "DEGRADED" if report.health == "OK" and reasons else report.health
    return ClusterStatus(
        health=HealthReport(word=word, reasons=tuple(reasons), notes=report.notes),
        masters=tuple(_narrow(master, MasterLine) for master in report.masters),
        elections=report.elections,
        chunkservers=tuple(
            _narrow(server, ChunkserverLine)
            for server in sorted(report.chunkservers, key=lambda server: (server.host, server.dir))
            if server.alive
        ),
        workers=tuple(_narrow(worker, WorkerLine) for worker in alive),
        jobs=jobs,
        cluster_id=report.cluster_id,
        chunk_bytes=report.chunk_bytes,
        replication=report.replication,
        files=report.file_count,
        directories=report.directory_count,
        chunks=report.chunk_count,
        repair=report.repair,
        trash=report.trash,
    )


def _narrow(report: Message, line: type[_LineT]) -> _LineT:
    """The fields of ``report`` that ``line`` has."""
    return msgspec.convert(report, line, from_attributes=True)
