"""A worker: one slot that pulls tasks, runs them in an executor child and serves what maps wrote.

Theory of operation
-------------------
Two threads and a segment server, all of which outlive any master::

    work thread   hello -> poll (waits at the master) -> run in the executor -> report -> poll ...
    ping thread   every second: I am alive, this runs, so far along; told what to cancel and
                  which jobs have ended, whose segments are then removed
    server        hands segments of committed map attempts to reducers on other hosts

The worker keeps nothing that matters: what it was doing when it is killed is lost and done again
elsewhere; its name and the segments on its disk are found again at the next start. Each start is
a new *incarnation*, so that the coordinator knows that running attempts are gone. A report is sent
until a master has taken it, because a finished task is worth waiting for a master's restart.

It knows nothing of Ray: `minimr.backends.ray_actors` only wraps it.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minigfs.errors import ClusterError, MinigfsError
from minigfs.transport.address import advertised
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.metrics import Counters, Metric
from minigfs.transport.security import Security
from minimr.backends.executor import AttemptWork
from minimr.backends.executor_slot import ExecutorSlot
from minimr.backends.master_link import MasterLink
from minimr.backends.task_batch import TaskBatch
from minimr.backends.task_logs import TaskLogs
from minimr.backends.worker_disk import WorkerDisk
from minimr.backends.worker_metrics import (
    ATTEMPTS_FAILED,
    ATTEMPTS_SUCCEEDED,
    COUNTERS,
    worker_metrics,
)
from minimr.config import PING_INTERVAL_MS
from minimr.errors import NoSuchJob
from minimr.ids import AttemptId, JobId
from minimr.messages import (
    Assignment,
    Failure,
    FailureKind,
    GetJobSpec,
    GetMapOutputs,
    HelloWorker,
    JobSpec,
    MapOutputNews,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    ReportFailure,
    ReportSuccess,
    WorkerInfo,
)
from minimr.shuffle.fetch import segment_handlers
from minimr.tasks.executor_channel import AttemptEnd
from minimr.tasks.gasp import GaspPage

if TYPE_CHECKING:
    from minigfs.transport.metrics_http import MetricsServer

__all__ = ["WorkerOptions", "WorkerSupervisor"]

logger = logging.getLogger(__name__)

_POLL_WAIT_MS = 2_000  # an answer that is overdue tells that the leader hangs
_FIRST_POLL_WAIT_MS = 50  # after a task; with no other by then, there is time to warm a spare
_RETRY_MS = 200  # between two tries to reach a master
_ATTEMPT_COUNT_MAX = 64  # of an offer; the masters answer polls and take reports so much less often
_SPEC_COUNT_MAX = 4  # job specifications kept; a big one holds a million splits


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker is set up.

    ``directory`` is its own; ``listen`` the address of its segment server (port 0: the port it had
    before, if that is free), ``advertise`` what others reach that by, if it is another (port 0: the
    port it listens on); ``memory_bytes`` bounds every executor, whatever its job asks for
    (0: only by that); ``environment`` variables for user code, such as where the cluster is.
    """

    directory: Path
    listen: str
    masters: tuple[str, ...]
    security: Security = field(repr=False)
    host: str
    rack: str = ""
    advertise: str = ""
    memory_bytes: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: str = ""  # where to serve figures for Prometheus; "" for nowhere


class WorkerSupervisor:
    """Start it once; it works until ``stop``, or until its process dies."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._disk = WorkerDisk(options.directory)
        self._incarnation = secrets.token_hex(8)
        self._link = MasterLink(options.masters, options.security)
        self._ping_link = MasterLink(options.masters, options.security)
        self._executors = ExecutorSlot(
            log_file=options.directory / "executor.log", environment=options.environment
        )
        self._logs = TaskLogs(options.directory / "logs")
        handlers = {**segment_handlers(self._disk.segments), **self._logs.handlers()}
        self._server = BulkServer(handlers, options.security, name="segments")
        self._address = ""
        self._specs: dict[JobId, JobSpec] = {}
        self._batch: TaskBatch | None = None
        self._reporting = threading.Lock()
        self._stopping = threading.Event()
        self._registered = threading.Event()
        self._counters = Counters(COUNTERS)
        self._metrics = self._metrics_server()
        self._threads = [
            threading.Thread(target=self._work, name="worker-work", daemon=True),
            threading.Thread(target=self._ping, name="worker-ping", daemon=True),
        ]

    def start(self) -> None:
        """Serve segments and begin to work; returns at once."""
        bound = self._disk.bind_segment_server(self._server, self._options.listen)
        self._address = advertised(self._options.advertise, bound)
        if self._metrics is not None:
            self._metrics.start(self._options.directory)
        self._executors.tend(())
        for thread in self._threads:
            thread.start()

    def wait_registered(self, timeout_ms: int) -> bool:
        """Wait until a master knows this worker."""
        return self._registered.wait(timeout_ms / 1000)

    def stop(self) -> None:
        """Abandon what runs and end; segments stay on disk."""
        self._stopping.set()
        if self._metrics is not None:
            self._metrics.stop()
        self._executors.close()
        self._server.stop()
        self._link.close()
        self._ping_link.close()
        self._disk.close()

    def _metrics_server(self) -> "MetricsServer | None":
        if not self._options.metrics:
            return None
        from minigfs.transport.metrics_http import MetricsServer

        def collect() -> Iterator[Metric]:
            return worker_metrics(
                self._counters,
                is_registered=self._registered.is_set(),
                is_busy=self._batch is not None,
                stored_jobs=len(self._disk.jobs()),
                executor_pid=self._executors.pid,
            )

        return MetricsServer(collect, self._options.metrics, self._options.security)

    # ---------------------------------------------------------------- work thread

    def _work(self) -> None:
        self._hello()
        wait_ms = _POLL_WAIT_MS
        while not self._stopping.is_set():
            try:
                poll = PollTask(
                    worker=self._info(),
                    wait_ms=wait_ms,
                    most=_ATTEMPT_COUNT_MAX,
                    said_hello=True,
                )
                offer = self._link.call(poll, wait_ms=wait_ms)
            except MinigfsError as error:
                self._pause(error)
                continue
            if offer.assignment is not None:
                self._run((offer.assignment, *offer.more))
                wait_ms = _FIRST_POLL_WAIT_MS
                continue
            if not offer.known:
                self._hello()
            self._executors.warm_spare()
            wait_ms = _POLL_WAIT_MS

    def _run(self, assignments: tuple[Assignment, ...]) -> None:
        batch = self._batch = TaskBatch(assignments, self._disk.worker_id)
        while not self._stopping.is_set() and (waiting := batch.take_open()):
            try:
                self._run_open(batch, self._prepare(waiting))
            except NoSuchJob:
                batch.give_back()  # it has ended
            except (MinigfsError, OSError) as error:
                logger.exception("%s could not be run", waiting[0].attempt)
                self._end_first(batch, waiting[0].attempt, error)
        self._deliver(batch)
        # Until the report is delivered, pings name the attempts, so that nobody counts them lost.
        self._batch = None

    def _run_open(self, batch: TaskBatch, work: AttemptWork) -> None:
        """Run attempts until they have ended or their executor has."""
        executor = self._executors.acquire(work.spec.job_id)
        turn = 0
        try:
            ask, look = self._ask_outputs, partial(self._look, work, executor.page)
            for end in executor.run(work, batch.note_progress, look, ask):
                turn = end.turn
                self._logs.bound(work.logs[turn - 1])
                self._note_end(batch, batch.attempt_at(turn), end)
        finally:
            self._executors.release()
            self._logs.keep(work.logs[max(turn, executor.page.turn, 1) - 1])
        # An executor that died may have ended some without a word: they are done again.
        batch.give_back([batch.attempt_at(before) for before in range(1, turn)])

    def _note_end(self, batch: TaskBatch, attempt: AttemptId, end: AttemptEnd) -> None:
        if batch.end(self._report_of(attempt, end)):
            self._counters.add(ATTEMPTS_SUCCEEDED if end.failure is None else ATTEMPTS_FAILED)

    def _report_of(self, attempt: AttemptId, end: AttemptEnd) -> ReportSuccess | ReportFailure:
        worker_id = self._disk.worker_id
        if end.failure is not None:
            return ReportFailure(worker_id=worker_id, attempt=attempt, failure=end.failure)
        assert end.result is not None
        return ReportSuccess(
            worker_id=worker_id, attempt=attempt, result=end.result, worked_ms=end.worked_ms
        )

    def _end_first(self, batch: TaskBatch, attempt: AttemptId, error: Exception) -> None:
        """Nothing can be run here: one attempt says why, the others go back."""
        text = f"{attempt} could not be run on worker {self._disk.worker_id}: {error}"
        failure = Failure(kind=FailureKind.INTERNAL, error=text)
        self._note_end(batch, attempt, AttemptEnd(1, 0, failure=failure))
        batch.give_back()

    def _look(self, work: AttemptWork, page: GaspPage) -> bool:
        """Some times a second while attempts run: whether to abandon them."""
        self._logs.bound(work.logs[max(page.turn, 1) - 1])
        return self._stopping.is_set()

    def _ask_outputs(
        self, request: GetMapOutputs, has_ended: Callable[[], bool]
    ) -> MapOutputNews | None:
        """News of map outputs for a reduce that waits; None once that has ended."""
        asked = msgspec.structs.replace(request, wait_ms=_POLL_WAIT_MS)
        while not has_ended():
            try:
                news = self._link.call(asked, wait_ms=_POLL_WAIT_MS)
            except MinigfsError as error:
                self._pause(error)
                continue
            if news.outputs or news.gone or not news.is_wanted:
                return news
            asked = msgspec.structs.replace(asked, missed=(), damaged_count=0)
        return None

    def _prepare(self, assignments: tuple[Assignment, ...]) -> AttemptWork:
        job_id = assignments[0].attempt.task.job_id
        self._disk.make_job_directory(job_id)
        return AttemptWork(
            spec=self._spec(job_id),
            assignments=assignments,
            scratch=self._disk.segments,
            worker_id=self._disk.worker_id,
            address=self._address,
            host=self._options.host,
            token=self._options.security.token,
            cluster_id=self._options.security.cluster_id,
            tls=self._options.security.tls,
            logs=tuple(self._logs.path(each.attempt) for each in assignments),
        )

    def _spec(self, job_id: JobId) -> JobSpec:
        if job_id not in self._specs:
            spec = self._link.call(GetJobSpec(job_id=job_id))
            while len(self._specs) >= _SPEC_COUNT_MAX:
                del self._specs[next(iter(self._specs))]
            bound = self._options.memory_bytes or spec.memory_bytes
            spec = msgspec.structs.replace(spec, memory_bytes=min(bound, spec.memory_bytes))
            self._specs[job_id] = spec
        return self._specs[job_id]

    def _deliver(self, batch: TaskBatch) -> None:
        """Send until a master has taken all there is."""
        with self._reporting:
            while not self._stopping.is_set() and (report := batch.report()) is not None:
                try:
                    self._link.call(report)
                except ClusterError as error:  # it may not have arrived: a restart, a full disk
                    self._pause(error)
                    continue
                except MinigfsError:  # it has arrived, and there is no use for it
                    logger.exception("the coordinator refused a report")
                batch.note_reported(report)

    # ---------------------------------------------------------------- ping thread

    def _ping(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s = time.monotonic() + PING_INTERVAL_MS / 1000  # the answer may be held so long
            self._executors.tend(())
            if not self._registered.is_set():
                continue  # the work thread is about to say hello
            self._report_early()
            request = PingWorker(
                worker_id=self._disk.worker_id,
                incarnation=self._incarnation,
                executor_pid=self._executors.pid,
                running=self._progress(),
                stored_jobs=self._known_jobs(),
                wait_ms=PING_INTERVAL_MS,
            )
            try:
                reply = self._ping_link.call(
                    request, timeout_ms=PING_INTERVAL_MS * 2, wait_ms=PING_INTERVAL_MS
                )
                if not reply.known:
                    reply = self._ping_link.call(self._hello_request())
            except MinigfsError as error:
                logger.warning("no ping answered: %s", error)
                continue
            self._obey(reply)

    def _report_early(self) -> None:
        """What should not wait until an attempt ends that takes long."""
        batch, page = self._batch, self._executors.page
        if batch is None or page is None or not batch.give_back_if_long(page):
            return
        if not self._reporting.acquire(blocking=False):
            return  # it has ended, and all is being reported
        try:
            report = batch.report()
            if report is not None:
                self._ping_link.call(report, timeout_ms=PING_INTERVAL_MS * 2)
                batch.note_reported(report)
        except MinigfsError as error:
            logger.warning("a report will be sent again: %s", error)
        finally:
            self._reporting.release()

    def _obey(self, reply: PingReply) -> None:
        for link in (self._link, self._ping_link):
            link.know(reply.masters)
        batch = self._batch
        if batch is not None and reply.cancel:
            batch.cancel(reply.cancel, self._executors.page)
            self._executors.cancel(batch.is_unwanted)
        for job_id in reply.finished_jobs:
            self._specs.pop(job_id, None)
            self._disk.remove_job(job_id)
        self._executors.tend(reply.finished_jobs)

    # ---------------------------------------------------------------- both

    def _hello(self) -> None:
        while not self._stopping.is_set():
            try:
                reply = self._link.call(self._hello_request())
            except MinigfsError as error:
                self._pause(error)
                continue
            self._registered.set()
            self._obey(reply)
            return

    def _hello_request(self) -> HelloWorker:
        worker = msgspec.structs.replace(self._info(), stored=self._disk.stored())
        return HelloWorker(worker=worker, running=self._progress(), stored_jobs=self._known_jobs())

    def _info(self) -> WorkerInfo:
        return WorkerInfo(
            worker_id=self._disk.worker_id,
            incarnation=self._incarnation,
            address=self._address,
            host=self._options.host,
            pid=os.getpid(),
            executor_pid=self._executors.pid,
            directory=str(self._options.directory),
            rack=self._options.rack,
            unfit=self._disk.complaint(),
        )

    def _progress(self) -> tuple[Progress, ...]:
        batch = self._batch
        return batch.progress(self._executors.page) if batch is not None else ()

    def _known_jobs(self) -> tuple[JobId, ...]:
        return tuple(sorted({*self._disk.jobs(), *self._executors.jobs}))

    def _pause(self, error: MinigfsError) -> None:
        logger.warning("trying again in %d ms: %s", _RETRY_MS, error)
        self._stopping.wait(_RETRY_MS / 1000)
