"""Jobs on a cluster: requests to the coordinator in its masters.

Every request may be sent twice without harm, so a master that dies costs a client time only.
"""

from typing import Self

from minigfs.client.config import ClientConfig
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from minimr.backends.master_link import MasterLink
from minimr.backends.task_logs import FetchTaskLogs, TaskLog
from minimr.config import MASTER_PATIENCE_MS
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import (
    CancelJob,
    GetJob,
    JobSpec,
    JobStatus,
    ListJobs,
    ListWorkers,
    SubmitJob,
    WorkerReport,
)

__all__ = ["ClusterClient"]


class ClusterClient:
    """See `minimr.backends.base.Backend`."""

    def __init__(self, masters: tuple[str, ...], security: Security) -> None:
        self._security = security
        self._link = MasterLink(masters, security)

    @classmethod
    def discover(cls, *, home: str | None = None) -> Self:
        """The cluster of ``home``, else of ``$MINIMR_HOME`` and what else the file system heeds.

        Raises ``NoCluster`` that says how to start one; makes no connection.
        """
        config = ClientConfig.discover(home=home)
        return cls(config.masters, config.security())

    def submit(self, spec: JobSpec, job: Job) -> None:
        del job  # its code is in the specification
        self._link.call(SubmitJob(spec=spec))

    def status(self, job_id: JobId, *, known_version: int = -1, wait_ms: int = 0) -> JobStatus:
        """As `Backend.status`; masters that are away are waited for."""
        request = GetJob(job_id=job_id, known_version=known_version, wait_ms=wait_ms)
        return self._link.call(request, timeout_ms=MASTER_PATIENCE_MS, wait_ms=wait_ms)

    def get_job(self, job_id: JobId) -> JobStatus:
        """One status, now; an error if no master can be reached."""
        return self._link.call(GetJob(job_id=job_id))

    def cancel(self, job_id: JobId) -> JobStatus:
        return self._link.call(CancelJob(job_id=job_id))

    def list_jobs(self) -> tuple[JobStatus, ...]:
        """Running and recently ended jobs, newest first."""
        return self._link.call(ListJobs()).jobs[::-1]

    def task_logs(self, job_id: JobId, task: str = "") -> list[tuple[WorkerReport, TaskLog]]:
        """What a job's attempts printed, in order of their tasks; ``task``: see ``task_stem``.

        Workers that are away keep theirs until they are back.
        """
        pool = ConnectionPool(self._security)
        request = FetchTaskLogs(job_id=job_id, task=task)
        found: list[tuple[WorkerReport, TaskLog]] = []
        try:
            for worker in self._link.call(ListWorkers()).workers:
                if worker.alive and worker.address:
                    logs = pool.call(worker.address, request).logs
                    found += [(worker, log) for log in logs]
        finally:
            pool.close()
        return sorted(found, key=lambda one: one[1].attempt)

    def worker_count(self) -> int:
        """How many workers are alive."""
        workers = self._link.call(ListWorkers()).workers
        return sum(worker.alive for worker in workers)

    def failure_cause(self, job_id: JobId) -> BaseException | None:
        del job_id
        return None

    def close(self) -> None:
        self._link.close()
