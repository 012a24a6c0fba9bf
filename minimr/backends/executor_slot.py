"""A worker's executors: one per job at hand, and a warm spare while there is no job.

User code of one job never meets another's: an executor is opened for one job and killed when the
job has ended. The spare is started when nothing else is to do, because its imports would compete
with the job's own work; so a first task usually finds an executor that has imported everything.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from minimr.backends.executor import ExecutorProcess
from minimr.ids import JobId
from minimr.tasks.gasp import GaspPage

__all__ = ["WARM_MODULES", "ExecutorSlot"]

WARM_MODULES = (
    "minimr.tasks.attempt",
    "cloudpickle",
    "numpy",
    "pyarrow",
    "pyarrow.compute",
    "fsspec",
    "minigfs.fs",
    "minigfs.client.client",
    "polars",  # not every job needs it: a job that comes early does not wait for it
)
_JOB_EXECUTOR_COUNT_MAX = 2  # jobs that alternate on one worker; an idle executor costs its memory


class ExecutorSlot:
    """Runs at most one attempt at a time; its methods may be called from any thread.

    ``acquire`` and ``release`` belong to the thread that runs attempts.
    """

    def __init__(self, *, log_file: Path, environment: Mapping[str, str]) -> None:
        self._log_file = log_file
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._by_job: dict[JobId, ExecutorProcess] = {}  # least recently used first
        self._spare: ExecutorProcess | None = None
        self._busy: ExecutorProcess | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """Of the busy executor, else of the one that will be used next; 0 if there is none."""
        with self._lock:
            used = list(self._by_job.values())
            executor = self._busy or (used[-1] if used else self._spare)
            return executor.pid if executor is not None else 0

    @property
    def page(self) -> GaspPage | None:
        """Of the attempt that runs."""
        with self._lock:
            return self._busy.page if self._busy is not None else None

    @property
    def jobs(self) -> tuple[JobId, ...]:
        """Jobs that have an executor here."""
        with self._lock:
            return tuple(self._by_job)

    def acquire(self, job_id: JobId) -> ExecutorProcess:
        """An executor that has run nothing, or only attempts of this job."""
        with self._lock:
            assert self._busy is None
            executor = self._by_job.pop(job_id, None) or self._take_spare() or self._start()
            if not executor.is_alive:
                executor.close()
                executor = self._start()
            self._by_job[job_id] = executor
            executor.page.clear()
            self._busy = executor
            while len(self._by_job) > _JOB_EXECUTOR_COUNT_MAX:
                self._by_job.pop(next(iter(self._by_job))).close()
            return executor

    def release(self) -> None:
        """The attempt ended; a dead executor is cleared away."""
        with self._lock:
            executor, self._busy = self._busy, None
            if executor is not None and (self._closed or not executor.is_alive):
                self._by_job = {j: e for j, e in self._by_job.items() if e is not executor}
                executor.close()

    def cancel(self, is_unwanted: Callable[[GaspPage], bool] = lambda _: True) -> None:
        """Kill the busy executor if what its page shows is of no use; the attempt at hand ends as
        cancelled. No other attempts are given to it between the look and the kill."""
        with self._lock:
            if self._busy is not None and is_unwanted(self._busy.page):
                self._busy.kill()

    def tend(self, ended_jobs: Iterable[JobId]) -> None:
        """Close executors of jobs that have ended; if there is none left, start a spare."""
        with self._lock:
            if self._closed:
                return
            for job_id in ended_jobs:
                executor = self._by_job.get(job_id)
                if executor is not None and executor is not self._busy:
                    del self._by_job[job_id]
                    executor.close()
            if not self._by_job:
                self._see_to_spare()

    def warm_spare(self) -> None:
        """Nothing is to do at the moment: see that the next job finds an executor ready."""
        with self._lock:
            if not self._closed and self._busy is None:
                self._see_to_spare()

    def close(self) -> None:
        """Kill all executors, the busy one too."""
        with self._lock:
            self._closed = True
            if self._busy is not None:
                self._busy.kill()  # closed by release
            executors = [e for e in self._by_job.values() if e is not self._busy]
            if self._spare is not None:
                executors.append(self._spare)
            self._by_job, self._spare = {}, None
            for executor in executors:
                executor.close()

    def _see_to_spare(self) -> None:
        if self._spare is not None and not self._spare.is_alive:
            self._spare.close()
            self._spare = None
        if self._spare is None:
            self._spare = self._start()

    def _take_spare(self) -> ExecutorProcess | None:
        spare, self._spare = self._spare, None
        return spare

    def _start(self) -> ExecutorProcess:
        return ExecutorProcess(
            log_file=self._log_file, environment=self._environment, warm_modules=WARM_MODULES
        )
