"""A coordinator on a log in memory, and what tests need to speak to it."""

from collections import deque
from dataclasses import dataclass, field

from minigfs.errors import MinigfsError
from minigfs.transport.messages import Message
from minimr.coordinator.commands import (
    Command,
    OpenTerm,
    PublishJob,
    decode_command,
    encode_command,
)
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import DiscardStaging, Effect, Propose, PublishOutput, Refuse, Reply
from minimr.coordinator.events import (
    Applied,
    Called,
    CoordinatorRequest,
    Event,
    PublishRefused,
    Refused,
    Tick,
)
from minimr.coordinator.invariants import check_invariants
from minimr.coordinator.machine import CoordinatorMachine
from minimr.ids import AttemptId, JobId, WorkerId
from minimr.messages import (
    Assignment,
    AttemptResult,
    Failure,
    FailureKind,
    FileRange,
    HelloWorker,
    JobSpec,
    JobStatus,
    MapAssignment,
    MapOutput,
    MapResult,
    Part,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    PublishResult,
    ReduceAssignment,
    ReduceResult,
    ReportFailure,
    ReportSuccess,
    Split,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)

START_MS = 1_700_000_000_000


def make_spec(
    name: str = "count-1",
    *,
    maps: int = 2,
    reduces: int = 1,
    hosts: tuple[tuple[str, ...], ...] = (),
    published_by_master: bool = False,
    attempt_limit: int = 4,
    backup_policy: str = "rate",
    slowstart_permille: int = 1000,
) -> JobSpec:
    splits = tuple(
        Split(
            index=index,
            ranges=(
                FileRange(url="file:///in", start=100 * index, length=100, file_bytes=100 * maps),
            ),
            size_bytes=100,
            hosts=hosts[index] if hosts else (),
        )
        for index in range(maps)
    )
    return JobSpec(
        job_id=JobId(name),
        name="count",
        code=b"",
        inputs=("file:///in",),
        output=f"file:///{name}",
        staging=f"file:///_minimr-{name}",
        splits=splits,
        partition_count=reduces,
        published_by_master=published_by_master,
        attempt_limit=attempt_limit,
        backup_policy=backup_policy,
        slowstart_permille=slowstart_permille,
    )


def worker_info(
    name: str,
    incarnation: int = 1,
    *,
    host: str = "",
    stored: tuple[str, ...] = (),
    rack: str = "",
    unfit: str = "",
) -> WorkerInfo:
    return WorkerInfo(
        worker_id=WorkerId(name),
        incarnation=f"{name}#{incarnation}",
        address=f"{name}:{7000 + incarnation}",
        host=host or name,
        pid=1,
        executor_pid=2,
        directory=f"/{name}",
        stored=stored,
        rack=rack,
        unfit=unfit,
    )


def result_of(assignment: Assignment, info: WorkerInfo) -> AttemptResult:
    """What a deterministic job reports: each task counts something of its own."""
    attempt = assignment.attempt
    index = attempt.task.index
    part = Part(
        name=f"part-r-{index:05d}",
        attempt_name=attempt.file_stem,
        size_bytes=10,
        xxh3="00",
        record_count=1,
        min_key=None,
        max_key=None,
        attempt=attempt,
    )
    if isinstance(assignment, ReduceAssignment):
        return ReduceResult(counters={"reduce.test": 1 << index}, part=part)
    if not isinstance(assignment, MapAssignment):
        return PublishResult(manifest_xxh3="00")
    counters = {"map.test": 1 << index}
    if assignment.partition_count == 0:
        return MapResult(counters=counters, output=None, part=part)
    output = MapOutput(
        map_index=index,
        attempt=attempt,
        worker_id=info.worker_id,
        address=info.address,
        host=info.host,
        path=f"{info.directory}/{attempt.file_stem}",
        size_bytes=7,
        record_count=1,
        digest="00",
    )
    return MapResult(counters=counters, output=output, part=None)


def failure(kind: FailureKind = FailureKind.USER, lost: tuple[AttemptId, ...] = ()) -> Failure:
    return Failure(kind=kind, error=f"a {kind.value} failure", lost_outputs=lost)


@dataclass
class Stand:
    """Carries out the effects of one coordinator after another over one log.

    ``lazy``: proposals wait until ``catch_up``; otherwise they are applied at once.
    """

    lazy: bool = False
    now_ms: int = START_MS
    log: list[bytes] = field(default_factory=list)
    answers: dict[int, Message | MinigfsError] = field(default_factory=dict)
    trace: list[tuple[Event, tuple[Effect, ...]]] = field(default_factory=list)
    discarded: list[JobSpec] = field(default_factory=list)
    pending: deque[Propose | PublishOutput] = field(default_factory=deque)
    refuse_publish: bool = False

    def __post_init__(self) -> None:
        self._next_token = 1
        self.open_term()

    # --- the log -----------------------------------------------------------------------------

    def open_term(self) -> None:
        """A new coordinator replays the log; what was not in it is gone with the old one."""
        self.pending.clear()
        self.machine = CoordinatorMachine()
        for index, entry in enumerate(self.log):
            self.machine.apply(index, entry)
        term = self.machine.state.term + 1
        self._append(OpenTerm(now_ms=self.now_ms, term=term))
        self.coordinator = Coordinator(self.machine, term=term, now_ms=self.now_ms)

    def _append(self, command: Command) -> None:
        entry = encode_command(command)
        assert decode_command(entry) == command
        self.log.append(entry)
        self.machine.apply(len(self.log), entry)
        check_invariants(self.machine.state)
        if not isinstance(command, OpenTerm):
            assert self.machine.preview(command) is self.machine.state, "twice equals once"

    def changes(self) -> list[Command]:
        """The logged commands that changed the state, in order."""
        machine, changes = CoordinatorMachine(), []
        for index, entry in enumerate(self.log):
            if machine.apply(index, entry) == b"1":
                changes.append(decode_command(entry))
        return changes

    def catch_up(self, count: int | None = None) -> None:
        """Let the log take the next ``count`` proposals (None: all, and all that follow)."""
        while self.pending and count != 0:
            self._commit(self.pending.popleft())
            count = None if count is None else count - 1

    def refuse_next(self) -> None:
        """The log refuses the first waiting proposal that somebody waits for."""
        for proposal in self.pending:
            if isinstance(proposal, Propose) and proposal.token is not None:
                self.pending.remove(proposal)
                self.answers[proposal.token] = MinigfsError("the log is full")
                self.handle(Refused(command=proposal.command))
                return

    def _commit(self, proposal: Propose | PublishOutput) -> None:
        if isinstance(proposal, Propose):
            self._append(proposal.command)
            self.handle(Applied(command=proposal.command, token=proposal.token))
            return
        job_id = proposal.spec.job_id
        command = PublishJob(now_ms=self.now_ms, job_id=job_id)
        if self.refuse_publish or self.machine.preview(command) is self.machine.state:
            self.handle(PublishRefused(job_id=job_id, failure=failure(FailureKind.OUTPUT)))
            return
        self._append(command)
        self.handle(Applied(command=command))

    # --- events and effects ------------------------------------------------------------------

    def handle(self, event: Event) -> tuple[Effect, ...]:
        effects = tuple(self.coordinator.handle(event, self.now_ms))
        self.trace.append((event, effects))
        for effect in effects:
            match effect:
                case Reply(token=token, message=message):
                    assert token not in self.answers, "answered twice"
                    self.answers[token] = message
                case Refuse(token=token, error=error):
                    assert token not in self.answers, "answered twice"
                    self.answers[token] = error
                case Propose() | PublishOutput():
                    self.pending.append(effect)
                case DiscardStaging(spec=spec):
                    self.discarded.append(spec)
        if not self.lazy:
            self.catch_up()
        return effects

    def call(self, request: CoordinatorRequest) -> int:
        token = self._next_token
        self._next_token += 1
        self.handle(Called(token=token, request=request))
        return token

    def ask(self, request: CoordinatorRequest) -> Message:
        answer = self.answers[self.call(request)]
        assert isinstance(answer, Message)
        return answer

    def refused(self, request: CoordinatorRequest) -> MinigfsError:
        answer = self.answers[self.call(request)]
        assert isinstance(answer, MinigfsError)
        return answer

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.handle(Tick())

    # --- what clients and workers say ----------------------------------------------------------

    def submit(self, spec: JobSpec) -> JobStatus:
        status = self.ask(SubmitJob(spec=spec))
        assert isinstance(status, JobStatus)
        return status

    def hello(
        self,
        info: WorkerInfo,
        running: tuple[AttemptId, ...] = (),
        stored_jobs: tuple[JobId, ...] = (),
    ) -> PingReply:
        progress = tuple(Progress(attempt=one, done_bytes=1, total_bytes=100) for one in running)
        request = HelloWorker(worker=info, running=progress, stored_jobs=stored_jobs)
        reply = self.ask(request)
        assert isinstance(reply, PingReply)
        return reply

    def poll(self, info: WorkerInfo) -> Assignment | None:
        token = self.call(PollTask(worker=info, wait_ms=1))
        if token not in self.answers:
            self.wait(1)
        offer = self.answers[token]
        assert isinstance(offer, TaskOffer)
        return offer.assignment

    def take(self, info: WorkerInfo) -> Assignment:
        assignment = self.poll(info)
        assert assignment is not None
        return assignment

    def ping(
        self, info: WorkerInfo, *running: AttemptId, stored_jobs: tuple[JobId, ...] = ()
    ) -> PingReply:
        reply = self.ask(
            PingWorker(
                worker_id=info.worker_id,
                incarnation=info.incarnation,
                executor_pid=2,
                running=tuple(
                    Progress(attempt=one, done_bytes=50, total_bytes=100) for one in running
                ),
                stored_jobs=stored_jobs,
            )
        )
        assert isinstance(reply, PingReply)
        return reply

    def succeed(self, info: WorkerInfo, assignment: Assignment) -> None:
        self.ask(
            ReportSuccess(
                worker_id=info.worker_id,
                attempt=assignment.attempt,
                result=result_of(assignment, info),
            )
        )

    def fail(self, info: WorkerInfo, assignment: Assignment, what: Failure) -> None:
        self.ask(ReportFailure(worker_id=info.worker_id, attempt=assignment.attempt, failure=what))

    def run_all(self, info: WorkerInfo) -> list[Assignment]:
        """One worker does everything there is to do."""
        done = []
        while (assignment := self.poll(info)) is not None:
            self.succeed(info, assignment)
            done.append(assignment)
        return done
