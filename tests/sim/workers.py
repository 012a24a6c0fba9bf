"""Workers: they poll, run attempts, report and ping; they crash, lose their disks and fall silent.

A map leaves an output on its worker's disk; a reduce needs those it was told of, and writes a part
below the job's staging directory by requests to the file system; a publish attempt gives the parts
their names and writes the manifest (as ``minimr.tasks.publish_task``). An attempt of a worker that
was given up goes on until the worker hears of it.
"""

from collections.abc import Callable

from minigfs.errors import FileMissing, MinigfsError
from minigfs.master import commands
from minigfs.master.listing import list_page
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.transport.messages import Message
from minimr.cluster.jobs_term import path_of_url
from minimr.config import PING_INTERVAL_MS
from minimr.ids import AttemptId, JobId, WorkerId
from minimr.messages import (
    Assignment,
    AttemptResult,
    Failure,
    FailureKind,
    HelloWorker,
    MapAssignment,
    MapOutput,
    MapResult,
    Part,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    PublishAssignment,
    PublishResult,
    ReduceAssignment,
    ReduceResult,
    ReportFailure,
    ReportSuccess,
    ReportTasks,
    TaskOffer,
    WorkerInfo,
)
from minimr.plan.naming import attempts_url
from tests.sim.callers import Caller
from tests.sim.checks.jobs import (
    MANIFEST_NAME,
    POISON_MARK,
    JobBook,
    is_poisoned,
    part_name,
)
from tests.sim.coordinators import staging_url
from tests.sim.hosted import stamp
from tests.sim.process import Process
from tests.sim.requests import Answer, Group, Request, Requester
from tests.sim.scheduler import MS, SECOND

__all__ = ["Worker"]

WORK_US_MAXES = (200 * MS, 400 * MS, 3 * SECOND)  # short, but some outlive their leader
SILENCES_US = (SECOND, 3 * SECOND, 4 * SECOND, 7 * SECOND)  # also beyond a hold, and beyond death
STUCK_SHARE = 0.02  # of attempts that ping for ever and get nowhere
LONG_SHARE = 0.3  # of attempts whose worker gives back what waits behind them
POLL_WAIT_MS = 2_000
OFFER_MAX = 8
LIST_MAX = 200
_Then = Callable[[object], None]


class Worker(Requester):
    """One machine's worker, life after life. ``others``: all workers by name, itself too."""

    def __init__(
        self,
        group: Group,
        caller: Caller,
        pings: Caller,
        book: JobBook,
        others: dict[WorkerId, "Worker"],
        name: str,
        first: int,
        seed: str,
    ) -> None:
        super().__init__(group, name, seed)
        self._caller = caller
        self._pings = pings
        self._book = book
        self._others = others
        self._next_number = first
        self.id = WorkerId(name)
        self._life = 0
        self._is_safe = False
        self.is_up = False
        self.stored: dict[AttemptId, JobId] = {}
        self._running: AttemptId | None = None
        self._waiting: list[Assignment] = []  # offered with it, to run after it
        self._ended: list[ReportSuccess | ReportFailure] = []  # to be reported with it
        self._returned: list[AttemptId] = []
        self._is_stuck = False
        others[self.id] = self
        group.scheduler.after(self._chance.randrange(SECOND), self.start)
        group.scheduler.after(SECOND, self._suffer)

    # Lives

    def start(self) -> None:
        if self.is_up or self.stopped:
            return
        self._life += 1
        self.is_up = True
        self._drop_all()
        self._caller.cut_off = self._pings.cut_off = False
        self._hello()
        self._group.scheduler.after(PING_INTERVAL_MS * MS, self._ping, self._life)

    def _suffer(self) -> None:
        """Now and then something happens to this worker."""
        if self.stopped or self._is_safe:
            return
        self._group.scheduler.after(self._chance.randrange(4 * SECOND), self._suffer)
        drawn = self._chance.random()
        if not self.is_up or drawn > 0.3:
            return
        if drawn < 0.18:
            self.crash(loses_disk=drawn < 0.08)
        else:
            silence_us = self._chance.choice(SILENCES_US) + self._chance.randrange(SECOND)
            self.fall_silent(silence_us)

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def fall_silent(self, silence_us: int) -> None:
        """Nothing comes through to the coordinator; the attempt it runs goes on."""
        self._group.coverage["silent workers"] += 1
        self._group.trace.note(f"{self.name} falls silent")
        self._caller.cut_off = self._pings.cut_off = True
        self._group.scheduler.after(silence_us, self._be_heard)

    def _be_heard(self) -> None:
        self._caller.cut_off = self._pings.cut_off = False

    def crash(self, *, loses_disk: bool) -> None:
        self._group.coverage["worker disks lost" if loses_disk else "worker crashes"] += 1
        self._group.trace.note(f"{self.name} crashes, its disk is {'gone' if loses_disk else 'ok'}")
        self.is_up = False
        self._caller.forget()
        self._pings.forget()
        self._drop_all()
        if loses_disk:
            self.stored.clear()
        downtime_us = self._chance.choice((100 * MS, SECOND, 7 * SECOND))
        self._group.scheduler.after(downtime_us, self.start)

    def _drop_all(self) -> None:
        self._running = None
        self._waiting, self._ended, self._returned = [], [], []

    def recover(self) -> None:
        """Nothing happens to it any more, until ``stop``."""
        self._is_safe = True
        self._be_heard()
        self.start()

    def stop(self) -> None:
        super().stop()
        self.is_up = False
        self._caller.forget()
        self._pings.forget()

    # What it says

    def _info(self) -> WorkerInfo:
        return WorkerInfo(
            worker_id=self.id,
            incarnation=f"{self.id}#{self._life}",
            address=f"{self.id}:{self._life}",
            host=str(self.id),
            pid=1,
            executor_pid=1,
            directory=f"/{self.id}",
            stored=tuple(sorted(attempt.file_stem for attempt in self.stored)),
        )

    def _progress(self) -> tuple[Progress, ...]:
        if self._running is None:
            return ()
        steps = 0 if self._is_stuck else self._group.scheduler.now_us
        behind = (*(one.attempt for one in self._ended), *(one.attempt for one in self._waiting))
        return (
            Progress(attempt=self._running, done_bytes=1, total_bytes=2, steps=steps),
            *(Progress(attempt=one, done_bytes=0, total_bytes=0, worked_ms=0) for one in behind),
        )

    def _stored_jobs(self) -> tuple[JobId, ...]:
        return tuple(sorted(set(self.stored.values())))

    def _hello(self) -> None:
        request = HelloWorker(
            worker=self._info(), running=self._progress(), stored_jobs=self._stored_jobs()
        )
        self._caller.call(request, self._welcomed)

    def _welcomed(self, answer: Message | MinigfsError) -> None:
        self._heed(answer)
        if self._running is None:
            self._poll()

    def _poll(self) -> None:
        most = self._chance.choice((1, 3, OFFER_MAX))
        request = PollTask(worker=self._info(), wait_ms=POLL_WAIT_MS, most=most)
        self._caller.call(request, self._offered, (POLL_WAIT_MS + 500) * MS)

    def _offered(self, answer: Message | MinigfsError) -> None:
        assert isinstance(answer, TaskOffer), answer
        if answer.assignment is not None:
            self._waiting = list(answer.more)
            self._group.coverage["tasks offered together"] += len(answer.more)
            self._run(answer.assignment)
        elif answer.known:
            self._poll()
        else:
            self._hello()

    def _ping(self, life: int) -> None:
        if life != self._life or not self.is_up:
            return
        self._group.scheduler.after(PING_INTERVAL_MS * MS, self._ping, life)
        request = PingWorker(
            worker_id=self.id,
            incarnation=self._info().incarnation,
            executor_pid=1,
            running=self._progress(),
            stored_jobs=self._stored_jobs(),
        )
        self._pings.forget()
        self._pings.call(request, self._pinged)

    def _pinged(self, answer: Message | MinigfsError) -> None:
        assert isinstance(answer, PingReply), answer
        if answer.known:
            self._heed(answer)
        elif self._running is not None:
            request = HelloWorker(
                worker=self._info(), running=self._progress(), stored_jobs=self._stored_jobs()
            )
            self._pings.call(request, self._heed)

    def _heed(self, answer: Message | MinigfsError) -> None:
        assert isinstance(answer, PingReply), answer
        for job_id in answer.finished_jobs:
            self.stored = {one: job for one, job in self.stored.items() if job != job_id}
        unwanted = [one for one in self._waiting if one.attempt in answer.cancel]
        self._waiting = [one for one in self._waiting if one not in unwanted]
        self._returned += [one.attempt for one in unwanted]
        if self._running in answer.cancel:
            self._group.coverage["cancelled attempts"] += 1
            self._fail(self._running, FailureKind.CANCELLED)

    # Attempts

    def _run(self, assignment: Assignment) -> None:
        attempt = self._running = assignment.attempt
        self._is_stuck = not self._is_safe and self._chance.random() < STUCK_SHARE
        if self._is_stuck or self._chance.random() < LONG_SHARE:
            self._give_back()
        if self._is_stuck:
            self._group.coverage["stuck attempts"] += 1
            return  # until it is told to give up
        work_us = self._chance.randrange(self._chance.choice(WORK_US_MAXES))
        if self._chance.random() < 0.03:
            self._if_still(work_us, attempt, lambda: self._fail(attempt, FailureKind.USER))
            return
        match assignment:
            case MapAssignment() if is_poisoned(attempt.task) and (
                POISON_MARK not in assignment.skips
            ):
                self._group.coverage["deadly records"] += 1
                died = FailureKind.DIED
                self._if_still(
                    work_us, attempt, lambda: self._fail(attempt, died, mark=POISON_MARK)
                )
            case MapAssignment():
                self._if_still(work_us, attempt, lambda: self._end_map(assignment))
            case ReduceAssignment():
                self._if_still(work_us, attempt, lambda: self._reduce(assignment))
            case PublishAssignment():
                _Publish(self, assignment).begin()

    def _if_still(self, delay_us: int, attempt: AttemptId, action: Callable[[], None]) -> None:
        def act() -> None:
            if self._running == attempt:
                action()

        self._group.scheduler.after(delay_us, act)

    def _succeed(self, attempt: AttemptId, result: AttemptResult) -> None:
        worked_ms = self._chance.choice((-1, 1, 1))  # some seem short
        report = ReportSuccess(
            worker_id=self.id, attempt=attempt, result=result, worked_ms=worked_ms
        )
        self._report(report)

    def _report(self, report: ReportSuccess | ReportFailure) -> None:
        self._ended.append(report)
        if self._waiting and self._chance.random() < 0.7:
            self._run(self._waiting.pop(0))
        elif len(self._ended) == 1 and not self._returned:
            self._caller.call(report, self._reported)
        else:
            self._caller.call(self._report_of_all(), self._reported)

    def _report_of_all(self) -> ReportTasks:
        ends, returned = tuple(self._ended), tuple(self._returned)
        return ReportTasks(worker_id=self.id, ends=ends, returned=returned)

    def _give_back(self) -> None:
        """What waits behind an attempt that takes long."""
        self._returned += [one.attempt for one in self._waiting]
        self._group.coverage["attempts given back"] += len(self._waiting)
        self._waiting = []
        if self._returned or self._ended:
            self._caller.call(self._report_of_all(), lambda _: None)

    def fail_output(self, attempt: AttemptId) -> None:
        self._group.coverage["output failures"] += 1
        self._fail(attempt, FailureKind.OUTPUT)

    def _fail(
        self,
        attempt: AttemptId,
        kind: FailureKind,
        lost: tuple[AttemptId, ...] = (),
        mark: str = "",
    ) -> None:
        """The report follows; whatever else the attempt had under way is dropped."""
        self._running = None
        failure = Failure(kind=kind, error=kind.value, lost_outputs=lost, mark=mark)
        self._caller.forget()
        self._report(ReportFailure(worker_id=self.id, attempt=attempt, failure=failure))

    def _reported(self, answer: Message | MinigfsError) -> None:
        assert isinstance(answer, Message), answer
        self._running = None
        self._ended, self._returned = [], []
        if self._waiting:
            self._run(self._waiting.pop(0))
        else:
            self._poll()

    def _end_map(self, assignment: MapAssignment) -> None:
        attempt = assignment.attempt
        index = attempt.task.index
        self.stored[attempt] = attempt.task.job_id
        output = MapOutput(
            map_index=index,
            attempt=attempt,
            worker_id=self.id,
            address=f"{self.id}:{self._life}",
            host=str(self.id),
            path=attempt.file_stem,
            size_bytes=7,
            record_count=1,
            digest="00",
        )
        counters = {"maps": 1 << index}
        if is_poisoned(attempt.task):
            counters["map.bad_records"] = 1
        result = MapResult(counters=counters, output=output, part=None)
        self._succeed(attempt, result)

    def _reduce(self, assignment: ReduceAssignment) -> None:
        attempt = assignment.attempt
        missing = tuple(
            output.attempt
            for output in assignment.map_outputs
            if not self._others[output.worker_id].serves(output.attempt)
        )
        if missing:
            self._group.coverage["fetch failures"] += 1
            self._fail(attempt, FailureKind.FETCH, missing)
            return
        path = f"{attempts_of(attempt)}/{attempt.file_stem}"
        self.write(attempt, path, lambda: self._end_reduce(attempt))

    def serves(self, attempt: AttemptId) -> bool:
        return self.is_up and not self._caller.cut_off and attempt in self.stored

    def _end_reduce(self, attempt: AttemptId) -> None:
        index = attempt.task.index
        part = Part(
            name=part_name(index),
            attempt_name=attempt.file_stem,
            size_bytes=0,
            xxh3="00",
            record_count=1,
            min_key=None,
            max_key=None,
            attempt=attempt,
        )
        self._succeed(attempt, ReduceResult(counters={"reduces": 1 << index}, part=part))

    def end_publish(self, attempt: AttemptId) -> None:
        self._succeed(attempt, PublishResult(manifest_xxh3="00"))

    # The file system

    def write(self, attempt: AttemptId, path: str, then: Callable[[], None]) -> None:
        """Make a file; if that fails, so does the attempt."""
        self._book.writes(self._next_number, attempt)

        def begun(reply: object) -> None:
            if isinstance(reply, commands.FileCreated):
                file_id = reply.file_id
                self.change(
                    attempt,
                    lambda now: commands.PublishFile(now, file_id, path, (), exclusive=False),
                    published,
                )
            else:
                self.fail_output(attempt)

        def published(reply: object) -> None:
            if isinstance(reply, commands.FilePublished):
                then()
            else:
                self.fail_output(attempt)

        self.change(attempt, lambda now: commands.CreateFile(now, path, False, 2), begun)

    def change(
        self, attempt: AttemptId, make: Callable[[int], commands.Command], then: _Then
    ) -> None:
        """``then`` hears the reply, None if it is not known, if the attempt still runs."""
        if not self.has_session():
            self._if_still(20 * MS, attempt, lambda: self.change(attempt, make, then))
            return
        number = self._take_number()
        self.ask(
            Request(
                number=number,
                label=f"{attempt}: {type(make(0)).__name__}",
                then=lambda answer: self._hand(attempt, answer, then),
                machine=FILE_SYSTEM_MACHINE,
                command=lambda tries: commands.encode_command(make(stamp(number, tries))),
                decode=commands.decode_reply,
            )
        )

    def look(self, attempt: AttemptId, path: str, then: Callable[[list[str]], None]) -> None:
        """The names below a directory."""

        def heard(value: object) -> None:
            if isinstance(value, list):
                then(value)
            elif value == FileMissing.code:
                then([])
            else:
                self.fail_output(attempt)

        self.ask(
            Request(
                number=self._take_number(),
                label=f"{attempt}: list",
                then=lambda answer: self._hand(attempt, answer, heard),
                read=lambda process: _names(process, path),
            )
        )

    def _hand(self, attempt: AttemptId, answer: Answer, then: _Then) -> None:
        if self._running == attempt and self.is_up:
            then(answer.value if answer.known else None)

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1


class _Publish:
    """One publish attempt: names for the parts, nothing else in the directory, the manifest."""

    def __init__(self, worker: Worker, assignment: PublishAssignment) -> None:
        self._worker = worker
        self._attempt = assignment.attempt
        self._parts = list(assignment.parts)
        self._staging = staging_of(assignment.attempt)
        self._attempts = attempts_of(assignment.attempt)
        self._names = [part.name for part in assignment.parts]

    def begin(self) -> None:
        self._change(lambda now: commands.MakeDirectory(now, self._staging, True, True), self._look)

    def _look(self) -> None:
        look, attempt = self._worker.look, self._attempt

        def named(names: list[str]) -> None:
            look(attempt, self._attempts, lambda written: self._name_next([*names, *written]))

        look(attempt, self._staging, named)

    def _name_next(self, present: list[str]) -> None:
        if not self._parts:
            self._worker.look(self._attempt, self._staging, self._remove_next)
            return
        part = self._parts.pop(0)
        source, target = f"{self._attempts}/{part.attempt_name}", f"{self._staging}/{part.name}"
        if part.attempt_name in present:
            self._change(
                lambda now: commands.Rename(now, source, target, True),
                lambda: self._name_next(present),
            )
        elif part.name in present:
            self._name_next(present)
        else:
            self._worker.fail_output(self._attempt)

    def _remove_next(self, present: list[str]) -> None:
        others = [name for name in present if name not in self._names]
        if not others:
            path = f"{self._staging}/{MANIFEST_NAME}"
            self._worker.write(self._attempt, path, self._end)
            return
        path = f"{self._staging}/{others[0]}"
        self._change(
            lambda now: commands.Remove(now, path, False),
            lambda: self._remove_next(others[1:]),
        )

    def _end(self) -> None:
        def swept(reply: object) -> None:
            self._worker.end_publish(self._attempt)

        path = self._attempts
        self._worker.change(
            self._attempt, lambda now: commands.Remove(now, path, recursive=True), swept
        )

    def _change(self, make: Callable[[int], commands.Command], then: Callable[[], None]) -> None:
        def heard(reply: object) -> None:
            if isinstance(reply, commands.Done | commands.EntriesRemoved):
                then()
            else:
                self._worker.fail_output(self._attempt)

        self._worker.change(self._attempt, make, heard)


def attempts_of(attempt: AttemptId) -> str:
    return path_of_url(attempts_url(staging_url(attempt.task.job_id)))


def staging_of(attempt: AttemptId) -> str:
    return path_of_url(staging_url(attempt.task.job_id))


def _names(process: Process, path: str) -> object:
    try:
        page = list_page(process.hosted.files.state, path, "", LIST_MAX)
    except MinigfsError as refusal:
        return refusal.code
    return [entry.path.rpartition("/")[2] for entry in page.entries]
