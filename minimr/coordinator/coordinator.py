"""The MapReduce paper's master as one pure machine: an event and the time in, effects out.

::

    request, tick --> Coordinator.handle --> Reply | Propose | PublishOutput | DiscardStaging
                          ^                              |
                          `--- Applied <--- machine <--- log

Hard state (``CoordinatorMachine``) changes only by commands that went through the log; this class
reads it and keeps the soft state beside it: workers, running attempts, idle tasks, who waits for an
answer. What a proposal leads to happens when ``Applied`` comes, so the same class works in one
process, where that is at once, and replicated. A new leader starts with empty soft state and learns
it from its workers: attempts of earlier terms that still run are adopted, and nothing new is
assigned before they had a chance to say so (``takeover``).
"""

from collections.abc import Iterable
from typing import assert_never

from minigfs.errors import MinigfsError, ProtocolError
from minigfs.transport.messages import Empty, Message
from minimr.config import NEWS_INTERVAL_MS, POLL_WAIT_MS_MAX
from minimr.coordinator.admission import admission_problem
from minimr.coordinator.assigning import Assigner, Choice
from minimr.coordinator.board import JobBoard, Watcher
from minimr.coordinator.closing import Closing
from minimr.coordinator.commands import (
    AdmitJob,
    Command,
    CommitAttempt,
    EndAttempts,
    EndJob,
    FailAttempt,
    LoseAttempts,
    NoteWorkers,
    OpenTerm,
    PublishJob,
    StopJob,
)
from minimr.coordinator.effects import Effect, Propose, Refuse, Reply
from minimr.coordinator.ends import ended_by, hung_of, missed_by
from minimr.coordinator.events import (
    Applied,
    Called,
    CallerGone,
    CoordinatorRequest,
    Event,
    PublishRefused,
    Refused,
    Tick,
)
from minimr.coordinator.fleet import Fleet, Poll, Worker
from minimr.coordinator.held_pings import HeldPings, ping_reply
from minimr.coordinator.invariants import check_invariants
from minimr.coordinator.losses import (
    hung_attempts,
    outputs_lost_with,
    owners_never_heard_of,
)
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.output_feed import OutputFeed
from minimr.coordinator.reports import Reports
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.scheduling import assignment_of
from minimr.coordinator.state import CoordinatorState
from minimr.coordinator.takeover import OpenAttempts, Takeover
from minimr.errors import JobUsageError, NoSuchJob
from minimr.ids import AttemptId, JobId, TaskId, WorkerId
from minimr.messages import (
    Assignment,
    AttemptResult,
    CancelJob,
    GetJob,
    GetJobSpec,
    GetMapOutputs,
    HelloWorker,
    JobSpec,
    JobStatus,
    ListJobs,
    ListWorkers,
    MapResult,
    Nearness,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    ReportFailure,
    ReportSuccess,
    ReportTasks,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)

__all__ = ["Coordinator"]


class Coordinator:
    """One leader's coordinator, for one term.

    Parameters
    ----------
    machine : CoordinatorMachine
        Holds the hard state; ``OpenTerm`` has been applied to it for this coordinator.
    term : int
        The leader's, as in that command: no other coordinator ever has the same.
    now_ms : int
        Milliseconds since the epoch at the leader's start plus those passed since by a monotonic
        clock: as in ``handle``, never less than the time before.
    """

    def __init__(self, machine: CoordinatorMachine, *, term: int, now_ms: int) -> None:
        check_invariants(machine.state)
        self._machine = machine
        self._term = term
        self._now_ms = now_ms
        self._effects: list[Effect] = []
        self._fleet = Fleet()
        self._running = RunningAttempts()
        self._pings = HeldPings(self._running)
        self._board = JobBoard(machine, self._running)
        self._assigner = Assigner(machine, self._fleet, self._running)
        self._feed = OutputFeed(machine, self._fleet, term)
        self._closing = Closing(machine, self._running)
        self._attempt_counter = 0
        self._open = OpenAttempts(machine, self._running, term)
        self._reports = Reports(self._running, self._open)
        self._takeover = Takeover(machine.state.workers, now_ms)
        self._noting_workers = False

    @property
    def state(self) -> CoordinatorState:
        return self._machine.state

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Take in one event; the effects are to be carried out in order."""
        assert now_ms >= self._now_ms, "time went backwards"
        self._now_ms = now_ms
        self._effects = []
        self._assigner.meet_jobs()  # the machine is ahead of the events that tell so
        match event:
            case Called(token=token, request=request):
                self._on_request(token, request)
            case CallerGone(token=token):
                self._on_caller_gone(token)
            case Applied(command=command, token=token):
                self._on_applied(command, token)
            case Refused(command=command):
                self._on_refused(command)
            case PublishRefused(job_id=job_id, failure=failure):
                self._propose(StopJob(now_ms=now_ms, job_id=job_id, failure=failure))
            case Tick():
                self._on_tick()
            case _:
                assert_never(event)
        self._settle()
        return self._effects

    # --- requests --------------------------------------------------------------------------------

    def _on_request(self, token: int, request: CoordinatorRequest) -> None:
        match request:
            case SubmitJob(spec=spec):
                self._submit(token, spec)
            case GetJob():
                self._get_job(token, request)
            case GetJobSpec(job_id=job_id):
                record = self.state.jobs.get(job_id)
                self._answer(token, record.spec if record is not None else _no_such_job(job_id))
            case ListJobs():
                self._answer(token, self._board.job_list(self._now_ms))
            case CancelJob(job_id=job_id):
                self._cancel(token, job_id)
            case ListWorkers():
                self._answer(token, self._fleet.worker_list(self._running, self._now_ms))
            case HelloWorker():
                self._hello(token, request)
            case PollTask():
                self._poll(token, request)
            case PingWorker():
                self._ping(token, request)
            case ReportSuccess() | ReportFailure():
                self._report(token, request)
            case ReportTasks():
                self._report_tasks(token, request)
            case GetMapOutputs():
                self._get_map_outputs(token, request)
            case _:
                assert_never(request)

    def _submit(self, token: int, spec: JobSpec) -> None:
        status = self._board.status(spec.job_id, self._now_ms)
        problem = admission_problem(spec)
        if status is not None:
            self._answer(token, status)
        elif problem is not None:
            self._answer(token, JobUsageError(problem))
        else:
            self._propose(AdmitJob(now_ms=self._now_ms, spec=spec), token)

    def _get_job(self, token: int, request: GetJob) -> None:
        wait_ms = min(max(request.wait_ms, 0), POLL_WAIT_MS_MAX)
        self._board.watch(
            Watcher(
                token=token,
                job_id=request.job_id,
                known_version=request.known_version,
                deadline_ms=self._now_ms + wait_ms,
                news_ms=self._now_ms + NEWS_INTERVAL_MS,
            )
        )

    def _cancel(self, token: int, job_id: JobId) -> None:
        if job_id in self.state.jobs:
            self._propose(StopJob(now_ms=self._now_ms, job_id=job_id), token)
        else:
            self._answer(token, self._status(job_id))

    # --- workers ---------------------------------------------------------------------------------

    def _hello(self, token: int, request: HelloWorker) -> None:
        worker = self._meet(request.worker)
        self._note_progress(worker, request.running)
        self._takeover.heard(worker.info.worker_id)
        self._answer(token, ping_reply(request, self._running, self.state))

    def _poll(self, token: int, request: PollTask) -> None:
        info = request.worker
        if request.said_hello and not self._fleet.knows(info.worker_id, info.incarnation):
            self._answer(token, TaskOffer(assignment=None, known=False))
            return
        worker = self._meet(info)
        self._lose_running(worker.info.worker_id)  # it is idle: what was offered never arrived
        self._takeover.heard(worker.info.worker_id)
        self._assigner.note_poll(worker.info.worker_id)
        self._drop_poll(worker)
        wait_ms = min(max(request.wait_ms, 0), POLL_WAIT_MS_MAX)
        worker.idle_since_ms = worker.idle_since_ms or self._now_ms
        deadline_ms = self._now_ms + wait_ms
        worker.poll = Poll(token=token, deadline_ms=deadline_ms, most=request.most)

    def _ping(self, token: int, request: PingWorker) -> None:
        if not self._fleet.knows(request.worker_id, request.incarnation):
            self._answer(token, PingReply(known=False, cancel=()))
            return
        worker = self._fleet.alive(request.worker_id)
        assert worker is not None
        worker.heard_ms = self._now_ms
        worker.executor_pid = request.executor_pid
        self._note_progress(worker, request.running)
        reply = ping_reply(request, self._running, self.state)
        self._effects += self._pings.take(token, request, reply, self._now_ms)

    def _meet(self, info: WorkerInfo) -> Worker:
        """The worker that speaks; if it is new here, or a new process, its past life is over."""
        worker = self._fleet.alive(info.worker_id)
        if worker is not None and worker.info.incarnation == info.incarnation:
            worker.heard_ms, worker.info = self._now_ms, info
            return worker
        if worker is not None:
            self._drop_poll(worker)
        self._lose_running(info.worker_id)
        self._lose_outputs(info.worker_id, stored=frozenset(info.stored))
        self._feed.note_moved(info.worker_id)
        return self._fleet.enrol(info, self._now_ms)

    def _note_progress(self, worker: Worker, running: tuple[Progress, ...]) -> None:
        worker_id = worker.info.worker_id
        for progress in running:
            if self._open.adopt(progress, worker_id, self._now_ms):
                self._assigner.discard(progress.attempt.task)
            known = self._running.get(progress.attempt)
            if known is not None and known.worker_id == worker_id:
                known.note(progress, self._now_ms)
                self._board.note_news(progress.attempt.task.job_id)

    def _report(self, token: int, request: ReportSuccess | ReportFailure) -> None:
        try:
            command = self._reports.end(request, self._now_ms)
        except ProtocolError as error:
            self._answer(token, error)
        else:
            self._propose_or_answer(command, token)

    def _report_tasks(self, token: int, request: ReportTasks) -> None:
        command, refused = self._reports.end_all(request, self._now_ms)
        if refused is None:
            self._propose_or_answer(command, token)
            return
        self._answer(token, refused)
        if command is not None:
            self._propose(command)

    def _get_map_outputs(self, token: int, request: GetMapOutputs) -> None:
        record = self._open.record_of(request.attempt)
        if record is not None and (missed := missed_by(request, record, self._now_ms)) is not None:
            self._propose(missed)
        self._feed.wait(token, request, self._now_ms)

    # --- the log's answers -----------------------------------------------------------------------

    def _on_applied(self, command: Command, token: int | None) -> None:
        match command:
            case OpenTerm():
                pass
            case NoteWorkers():
                self._noting_workers = False
            case CommitAttempt(attempt=attempt, result=result, rivals=rivals):
                self._assigner.note_commit(attempt, rivals, self._now_ms)
                self._effects += self._pings.end_unwanted(rivals)
                self._after_end(attempt, *rivals)
                self._running.restart_reduces(attempt.task, self.state, self._now_ms)
                self._lose_if_orphan(result)
            case FailAttempt(attempt=attempt, failure=failure, lost=lost):
                self._assigner.note_failure(attempt, failure.kind, self._now_ms)
                self._after_end(attempt, *lost)
            case LoseAttempts(attempts=attempts):
                self._after_end(*attempts)
            case EndAttempts(ends=ends):
                for end in ends:
                    self._on_applied(end, None)
            case EndJob(job_id=job_id):
                self._effects.append(self._closing.ended(job_id))
            case StopJob(job_id=job_id):
                running = self._running.of_job(job_id)
                self._effects += self._pings.end_unwanted(one.attempt for one in running)
            case AdmitJob() | PublishJob():
                pass
            case _:
                assert_never(command)
        self._forget_ended_jobs()
        if token is not None:
            self._answer_applied(command, token)

    def _answer_applied(self, command: Command, token: int) -> None:
        if isinstance(command, AdmitJob | StopJob):
            job_id = command.spec.job_id if isinstance(command, AdmitJob) else command.job_id
            self._answer(token, self._status(job_id))
        else:
            self._answer(token, Empty())

    def _after_end(self, *attempts: AttemptId) -> None:
        """Attempts have ended; their tasks, if they are open and nothing else runs them, are idle
        again."""
        self._feed.note(attempts)
        for attempt in attempts:
            task = attempt.task
            self._running.remove(attempt)
            record = self.state.jobs.get(task.job_id)
            if record is None or not record.has_task(task):
                continue
            if record.is_settled(task) or self._running.of_task(task):
                self._assigner.discard(task)
            else:
                self._assigner.put(task)

    def _lose_if_orphan(self, result: AttemptResult) -> None:
        """A map output was committed while its worker was being given up."""
        if isinstance(result, MapResult) and result.output is not None:
            worker_id = result.output.worker_id
            if self._fleet.alive(worker_id) is None and self._takeover.is_over:
                self._lose_outputs(worker_id)

    def _forget_ended_jobs(self) -> None:
        for job_id in self._assigner.ended_jobs():
            self._assigner.forget_job(job_id)
            self._fleet.forgive(job_id)
            self._running.remove_job(job_id)
            self._board.forget_job(job_id)
            self._feed.forget_job(job_id)
            self._closing.forget_job(job_id)

    def _on_refused(self, command: Command) -> None:
        """The worker was told and will report again; if it dies first, the attempt goes with it."""
        refused = [self._running.get(attempt) for attempt in ended_by(command)]
        for running in refused:
            if running is not None:
                running.ending = False
        for running in refused:
            if running is not None and self._fleet.alive(running.worker_id) is None:
                self._lose_running(running.worker_id)

    # --- losses ----------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        self._feed.wake()
        for worker in self._fleet.silent(self._now_ms):
            worker.alive = False
            self._drop_poll(worker)
            self._lose_running(worker.info.worker_id)
            self._lose_outputs(worker.info.worker_id)
        self._effects += self._pings.end_due(self._now_ms)
        self._fleet.forget(self._now_ms)
        self._give_up_hung()
        self._board.note_waiting(self._fleet.why_idle(self._now_ms))
        if self._takeover.end(self._now_ms):
            for worker_id in owners_never_heard_of(self.state, self._fleet):
                self._lose_outputs(worker_id)

    def _give_up_hung(self) -> None:
        """An attempt that pings but gets nowhere fails; what waits behind it runs elsewhere."""
        for running, record in hung_attempts(self._running, self.state, self._now_ms):
            waiting = self._running.waiting_on(running.worker_id)
            running.ending = True
            self._propose(hung_of(running, self._running, record, self._now_ms))
            self._lose(waiting, is_set_back=True)

    def _lose_running(self, worker_id: WorkerId) -> None:
        self._lose(one.attempt for one in self._running.of_worker(worker_id))

    def _lose(self, attempts: Iterable[AttemptId], *, is_set_back: bool = False) -> None:
        for command in self._reports.lose(attempts, self._now_ms, is_set_back=is_set_back):
            self._propose(command)

    def _lose_outputs(self, worker_id: WorkerId, stored: frozenset[str] = frozenset()) -> None:
        for job_id, lost in outputs_lost_with(self.state, worker_id, stored):
            self._propose(LoseAttempts(now_ms=self._now_ms, job_id=job_id, attempts=lost))

    # --- after every event -----------------------------------------------------------------------

    def _settle(self) -> None:
        """Do what the states ask for by now, whichever event led to them."""
        self._note_workers()
        if not self._takeover.holds(self._now_ms):
            self._effects += self._closing.due(self._now_ms)
            self._assign_tasks()
            set_back = self._assigner.to_set_back(self._feed.waiting(), self._now_ms)
            self._lose(set_back, is_set_back=True)
        for token, news in self._feed.due(self._open.is_wanted, self._now_ms):
            self._answer(token, news)
        for worker in self._fleet.waiting():
            if worker.poll is not None and worker.poll.deadline_ms <= self._now_ms:
                self._drop_poll(worker)
        for watcher in self._board.due(self._now_ms):
            self._answer(watcher.token, self._status(watcher.job_id))

    def _note_workers(self) -> None:
        """Keep the log's list of workers up to date, by one command at a time."""
        alive = (worker.info.worker_id for worker in self._fleet if worker.alive)
        workers = self._takeover.roster(alive)
        if workers != self.state.workers and not self._noting_workers:
            self._noting_workers = True
            self._propose(NoteWorkers(now_ms=self._now_ms, workers=workers))

    def _assign_tasks(self) -> None:
        for choice in self._assigner.choices(self._now_ms):
            worker = choice.worker
            assert worker.poll is not None
            first, *more = (self._begin(choice, *place) for place in choice.tasks)
            self._board.note_news(first.attempt.task.job_id)
            self._answer(worker.poll.token, TaskOffer(assignment=first, more=tuple(more)))
            worker.poll, worker.idle_since_ms = None, 0

    def _begin(self, choice: Choice, task: TaskId, nearness: Nearness) -> Assignment:
        self._attempt_counter += 1
        attempt = AttemptId(task, self._term, self._attempt_counter)
        worker_id = choice.worker.info.worker_id
        self._running.begin(attempt, worker_id, self._now_ms, choice.is_backup, choice.is_alone)
        record = self.state.jobs[task.job_id]
        return assignment_of(record, attempt, self._fleet.current, nearness)

    # --- small change ----------------------------------------------------------------------------

    def _status(self, job_id: JobId) -> JobStatus | NoSuchJob:
        status = self._board.status(job_id, self._now_ms)
        return status if status is not None else _no_such_job(job_id)

    def _on_caller_gone(self, token: int) -> None:
        self._board.unwatch(token)
        self._pings.drop(token)
        self._feed.forget_caller(token)
        for worker in self._fleet.waiting():
            if worker.poll is not None and worker.poll.token == token:
                worker.poll = None

    def _drop_poll(self, worker: Worker) -> None:
        if worker.poll is not None:
            self._answer(worker.poll.token, TaskOffer(assignment=None, known=worker.alive))
            worker.poll = None

    def _propose_or_answer(self, command: Command | None, token: int) -> None:
        """Nothing is to be done: that is well."""
        if command is not None:
            self._propose(command, token)
        else:
            self._answer(token, Empty())

    def _propose(self, command: Command, token: int | None = None) -> None:
        self._effects.append(Propose(command=command, token=token))

    def _answer(self, token: int, answer: Message | MinigfsError) -> None:
        if isinstance(answer, MinigfsError):
            self._effects.append(Refuse(token=token, error=answer))
        else:
            self._effects.append(Reply(token=token, message=answer))


def _no_such_job(job_id: JobId) -> NoSuchJob:
    return NoSuchJob(f"job {job_id} is unknown here; `minimr jobs list` shows the known ones")
