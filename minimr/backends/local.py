"""Jobs on this machine without a cluster: the coordinator in this process, slots as its workers.

::

    submit --> InProcessCoordinator <-- poll, report -- slot threads (one per slot)
                        ^---------------- ping -------- one pinger for all slots

Small inputs, and functions on batches, which leave the interpreter to others while they compute,
run in threads of this process; record functions on larger inputs run in executor children. With
no slots at all the calling thread does everything in order: what pdb and print want.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from minigfs.errors import MinigfsError
from minigfs.ports import SystemClock
from minimr.backends.crash_dump import without_dumps
from minimr.backends.in_process import CoordinatorClosed, InProcessCoordinator
from minimr.backends.local_slots import ProcessSlot, Slot, ThreadSlot
from minimr.backends.scratch import Scratch
from minimr.config import LOCAL_LOG_BYTES_MAX, PING_INTERVAL_MS, POLL_WAIT_MS_MAX
from minimr.formats.storage import Storage
from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import (
    Assignment,
    CancelJob,
    Failure,
    FailureKind,
    GetJob,
    GetMapOutputs,
    HelloWorker,
    JobSpec,
    JobStatus,
    MapOutputNews,
    PingWorker,
    PollTask,
    Progress,
    ReportFailure,
    ReportSuccess,
    SubmitJob,
)
from minimr.plan.naming import working_urls

__all__ = ["LocalBackend"]


class LocalBackend:
    """Runs one job. See `minimr.backends.base.Backend`.

    Parameters
    ----------
    slot_count : int
        Attempts that run at the same time; 0 runs the whole job inside ``submit``.
    in_processes : bool
        Each slot has an executor child.
    storage : Storage
        What attempts in this process read and write.
    environment : mapping
        Variables for executor children, such as where the cluster is whose files they are to read.
    """

    def __init__(
        self,
        *,
        slot_count: int,
        in_processes: bool,
        storage: Storage,
        environment: Mapping[str, str],
    ) -> None:
        self._slot_count = slot_count
        self._in_processes = in_processes
        self._storage = storage
        self._environment = dict(environment)
        self._held = Scratch.open()
        self._scratch = self._held.path
        # Who steps through a job in a debugger pings nobody, and takes all the time it takes.
        self._coordinator = InProcessCoordinator(
            SystemClock(), storage.remove, keeps_deadlines=slot_count > 0
        )
        self._slots: list[Slot] = []
        self._threads: list[threading.Thread] = []
        self._progress: dict[Slot, Progress] = {}
        self._ping_now = threading.Event()
        self._closed = threading.Event()
        self._cause: BaseException | None = None

    def submit(self, spec: JobSpec, job: Job) -> None:
        self._held.note_beside(working_urls(spec.staging))
        self._coordinator.call(SubmitJob(spec=spec))
        if self._slot_count == 0:
            here = ThreadSlot(0, self._scratch, spec, job, self._storage, self._ask_outputs)
            self._run_here(here, spec.job_id)
            return
        self._slots = [self._make_slot(index, spec, job) for index in range(self._slot_count)]
        for index, slot in enumerate(self._slots):
            self._start(f"minimr-slot-{index}", self._serve, slot)
        self._start("minimr-ping", self._ping_slots)

    def status(self, job_id: JobId, *, known_version: int = -1, wait_ms: int = 0) -> JobStatus:
        return self._coordinator.call(
            GetJob(job_id=job_id, known_version=known_version, wait_ms=wait_ms)
        )

    def cancel(self, job_id: JobId) -> JobStatus:
        status = self._coordinator.call(CancelJob(job_id=job_id))
        self._ping_now.set()
        return status

    def failure_cause(self, job_id: JobId) -> BaseException | None:
        """Of a job that ran in the calling thread: there a debugger can follow it."""
        del job_id
        return self._cause if self._slot_count == 0 else None

    def close(self) -> None:
        """Stop the slots and remove the segments. Threads in user code end with the process."""
        self._closed.set()
        self._ping_now.set()
        self._coordinator.close()
        for slot in self._slots:
            slot.close()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self._show_logs()
        self._held.close()

    def _make_slot(self, index: int, spec: JobSpec, job: Job) -> Slot:
        if not self._in_processes:
            return ThreadSlot(index, self._scratch, spec, job, self._storage, self._ask_outputs)
        from minimr.backends.executor import share_of_cores
        from minimr.backends.executor_slot import ExecutorSlot

        log_file = self._scratch / f"executor-{index}.log"
        environment = {**share_of_cores(self._slot_count), **self._environment}
        executors = ExecutorSlot(log_file=log_file, environment=environment)
        return ProcessSlot(index, self._scratch, spec, executors, self._ask_outputs)

    def _ask_outputs(self, request: GetMapOutputs) -> MapOutputNews:
        return self._coordinator.call(msgspec.structs.replace(request, wait_ms=POLL_WAIT_MS_MAX))

    def _start(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        # Daemons, because user code may never return and Ctrl-C must end the process all the same.
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    # --- one slot --------------------------------------------------------------------------------

    def _serve(self, slot: Slot) -> None:
        """A slot thread: pull, run, report, until the backend is closed."""
        try:
            self._coordinator.call(HelloWorker(worker=slot.info))
            while not self._closed.is_set():
                offer = self._coordinator.call(PollTask(worker=slot.info, wait_ms=POLL_WAIT_MS_MAX))
                if offer.assignment is not None:
                    self._run(slot, offer.assignment)
        except Exception:  # at the end of the process imports and pools fail, and nobody waits
            if not self._closed.is_set() and threading.main_thread().is_alive():
                raise
        finally:
            slot.release()

    def _run_here(self, slot: Slot, job_id: JobId) -> None:
        """Run what there is to run, in this thread; an interrupt leaves nothing behind."""
        assignment: Assignment | None = None
        self._coordinator.call(HelloWorker(worker=slot.info))
        try:
            while True:
                offer = self._coordinator.call(PollTask(worker=slot.info, wait_ms=0))
                assignment = offer.assignment
                if assignment is None:
                    return
                self._run(slot, assignment)
        except KeyboardInterrupt:
            self._coordinator.call(CancelJob(job_id=job_id))
            if assignment is not None:
                interrupted = Failure(kind=FailureKind.CANCELLED, error="interrupted")
                self._report_failure(slot, assignment, interrupted)
            raise
        finally:
            slot.release()

    def _run(self, slot: Slot, assignment: Assignment) -> None:
        attempt = assignment.attempt

        def note_progress(done_bytes: int, total_bytes: int) -> None:
            self._progress[slot] = Progress(
                attempt=attempt, done_bytes=done_bytes, total_bytes=total_bytes
            )

        note_progress(0, 0)
        try:
            result = slot.run(assignment, note_progress)
        except (Exception, SystemExit) as error:  # a slot that ended silently would hang the job
            self._cause = error.__cause__ or error
            self._report_failure(slot, assignment, _failure_of(error))
        else:
            self._coordinator.call(
                ReportSuccess(
                    worker_id=slot.info.worker_id,
                    attempt=attempt,
                    result=result,
                    worked_ms=slot.worked_ms,
                )
            )
        finally:
            self._progress.pop(slot, None)

    def _report_failure(self, slot: Slot, assignment: Assignment, failure: Failure) -> None:
        self._coordinator.call(
            ReportFailure(
                worker_id=slot.info.worker_id, attempt=assignment.attempt, failure=failure
            )
        )
        self._ping_now.set()  # if the job is to end, the others hear of it at once

    # --- all slots -------------------------------------------------------------------------------

    def _ping_slots(self) -> None:
        """Say that the slots live, and hear which attempts nobody needs any more."""
        with suppress(CoordinatorClosed):
            while not self._closed.is_set():
                for slot in self._slots:
                    self._ping(slot)
                self._ping_now.wait(PING_INTERVAL_MS / 1000)
                self._ping_now.clear()

    def _ping(self, slot: Slot) -> None:
        progress = self._progress.get(slot)
        if progress is not None:
            progress = msgspec.structs.replace(progress, worked_ms=slot.worked_ms)
        reply = self._coordinator.call(
            PingWorker(
                worker_id=slot.info.worker_id,
                incarnation=slot.info.incarnation,
                executor_pid=0,
                running=(progress,) if progress is not None else (),
            )
        )
        if progress is not None and progress.attempt in reply.cancel:
            slot.cancel()

    def _show_logs(self) -> None:
        """What user code printed in executors belongs on this terminal."""
        for log_file in sorted(self._scratch.glob("executor-*.log")):
            with log_file.open("rb") as log, suppress(OSError, MinigfsError):
                text = log.read(LOCAL_LOG_BYTES_MAX).decode(errors="replace")
                sys.stderr.write(without_dumps(text))  # the job's failure tells of a crash


def _failure_of(error: BaseException) -> Failure:
    """What ``AttemptFailed`` carries; anything else is a fault outside of the attempt."""
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure):
        return failure
    return Failure(
        kind=FailureKind.INTERNAL,
        error=f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)),
    )
