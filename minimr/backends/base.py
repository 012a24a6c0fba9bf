"""What the runner asks of whatever runs jobs."""

from typing import Protocol

from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import JobSpec, JobStatus

__all__ = ["Backend"]


class Backend(Protocol):
    """Thread-safe. All methods raise `MinigfsError` if the backend cannot be reached."""

    def submit(self, spec: JobSpec, job: Job) -> None:
        """Start a job."""

    def status(self, job_id: JobId, *, known_version: int = -1, wait_ms: int = 0) -> JobStatus:
        """The status once it is another than ``known_version``, or after ``wait_ms``."""

    def cancel(self, job_id: JobId) -> JobStatus:
        """Ask the job to end; it has when its status is final."""

    def failure_cause(self, job_id: JobId) -> BaseException | None:
        """The exception behind a failed job, if it was raised in the calling thread."""

    def close(self) -> None:
        """Give back what the backend holds in this process; the jobs of a cluster go on."""
