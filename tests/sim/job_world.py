"""The jobs of a simulated world: who submits them, who runs them, and how they end.

A client submits a few jobs, watches each to its end, and submits the next until the calm; now and
then it cancels one.
"""

import random
from collections.abc import Callable

from minigfs.errors import MinigfsError
from minigfs.transport.messages import Message
from minimr.config import RECOVERY_HOLD_MS, WORKER_DEAD_AFTER_MS
from minimr.ids import JobId, WorkerId
from minimr.messages import CancelJob, FileRange, GetJob, JobSpec, JobStatus, Split, SubmitJob
from tests.sim.callers import Caller
from tests.sim.checks.jobs import JobBook, output_path
from tests.sim.coordinators import Coordinators, staging_url
from tests.sim.process import Process
from tests.sim.requests import Group
from tests.sim.scheduler import MS, SECOND
from tests.sim.workers import Worker

__all__ = ["JobWorld"]

WORKERS = 3
MAPS_TIMES = (1, 1, 1, 8)  # with many, several are offered at a time
ATTEMPT_LIMITS = (1, 4, 12)
BACKUP_POLICIES = ("rate", "paper", "paper", "none")
PROGRESS_DEADLINE_MS = 4_000
JOBS_AT_A_TIME = 2
KILLED_SHARE = 0.3
SILENCED_SHARE = 0.4
WAIT_MS = 1_000
CANCELLED_SHARE = 0.15


class JobWorld:
    """``first`` sets the workers' operations apart from all others'."""

    def __init__(
        self,
        group: Group,
        book: JobBook,
        processes: Callable[[], list[Process]],
        seed: int,
        first: int,
        apart: int,
    ) -> None:
        self._group = group
        self._book = book
        self._chance = random.Random(f"jobs {seed}")
        self._stopped = False
        self._is_safe = False
        self._submitted = 0
        self._open: dict[JobId, None] = {}
        coordinators = Coordinators(
            group.scheduler,
            group.trace,
            book,
            processes,
            self._before_publication,
            self._opened,
        )

        def caller(name: str) -> Caller:
            loss = group.options.request_loss_permille
            return Caller(
                group.scheduler, coordinators, group.processes, loss, f"caller {seed} {name}"
            )

        self._caller = caller("client")
        others: dict[WorkerId, Worker] = {}
        self.workers = [
            Worker(
                group,
                caller(f"w{number}"),
                caller(f"w{number} pings"),
                book,
                others,
                f"w{number}",
                first + number * apart,
                f"worker {seed} {number}",
            )
            for number in range(WORKERS)
        ]
        for _ in range(JOBS_AT_A_TIME):
            group.scheduler.after(self._chance.randrange(SECOND), self._submit)

    @property
    def is_idle(self) -> bool:
        return not self._open

    def submit_no_more(self) -> None:
        self._stopped = True

    def rest(self) -> None:
        """Nothing happens to workers any more, nor to who publishes."""
        self._is_safe = True
        for worker in self.workers:
            worker.recover()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def _before_publication(self, process: Process) -> None:
        """A bad moment to die: the output may stand at its place, and nobody was told."""
        if self._is_safe or self._chance.random() > KILLED_SHARE:
            return
        self._group.coverage["kills at publication"] += 1
        delay_us = self._chance.randrange(30 * MS)
        self._group.scheduler.after(delay_us, lambda: process.crash(power=False))

    def _opened(self) -> None:
        """A new coordinator gives out again what a silent worker has."""
        busy = [worker for worker in self.workers if worker.is_busy]
        if busy and not self._is_safe and self._chance.random() < SILENCED_SHARE:
            silence_us = self._chance.randrange(RECOVERY_HOLD_MS, WORKER_DEAD_AFTER_MS) * MS
            self._chance.choice(busy).fall_silent(silence_us)

    def _submit(self) -> None:
        if self._stopped and self._submitted:
            return
        self._submitted += 1
        job_id = JobId(f"job-{self._submitted}")
        self._open[job_id] = None
        spec = self._spec(job_id)
        self._book.submitted[job_id] = spec
        self._group.trace.note(f"submit {job_id}: {len(spec.splits)} + {spec.partition_count}")
        self._caller.call(SubmitJob(spec=spec), self._see)
        if self._chance.random() < CANCELLED_SHARE:
            delay_us = self._chance.randrange(2 * SECOND)
            self._group.scheduler.after(delay_us, self._cancel, job_id)

    def _spec(self, job_id: JobId) -> JobSpec:
        splits = tuple(
            Split(
                index=index,
                ranges=(FileRange(url="minigfs:///in", start=0, length=1, file_bytes=1),),
                size_bytes=1,
                hosts=(f"w{self._chance.randrange(WORKERS)}",),
            )
            for index in range(self._chance.randrange(1, 5) * self._chance.choice(MAPS_TIMES))
        )
        return JobSpec(
            job_id=job_id,
            name="simulated",
            code=b"",
            inputs=("minigfs:///in",),
            output=f"minigfs://{output_path(job_id)}",
            staging=staging_url(job_id),
            splits=splits,
            partition_count=self._chance.randrange(1, 4),
            published_by_master=True,
            attempt_limit=self._chance.choice(ATTEMPT_LIMITS),
            backup_policy=self._chance.choice(BACKUP_POLICIES),
            progress_deadline_ms=PROGRESS_DEADLINE_MS,
            max_bad=len(splits),
        )

    def _cancel(self, job_id: JobId) -> None:
        self._book.cancelled[job_id] = None
        self._caller.call(CancelJob(job_id=job_id), lambda answer: None)

    def _see(self, answer: Message | MinigfsError) -> None:
        assert isinstance(answer, JobStatus), answer
        self._book.told(answer)
        if not answer.state.is_final:
            request = GetJob(job_id=answer.job_id, known_version=answer.version, wait_ms=WAIT_MS)
            self._caller.call(request, self._see, (WAIT_MS + 500) * MS)
            return
        self._group.trace.note(f"{answer.job_id} is {answer.state.value}")
        del self._open[answer.job_id]
        if not self._stopped:
            self._group.scheduler.after(self._chance.randrange(SECOND), self._submit)
