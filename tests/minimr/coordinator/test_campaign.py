"""A random campaign against the coordinator: workers die, lie idle, report late and twice, the log
lags and refuses, coordinators come and go. Whatever happened, every job ends, and rightly."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from minigfs.errors import MinigfsError
from minimr.config import WORKER_DEAD_AFTER_MS
from minimr.coordinator.backups import POLICIES
from minimr.coordinator.commands import CommitAttempt, FailAttempt
from minimr.coordinator.events import CallerGone
from minimr.coordinator.invariants import check_invariants
from minimr.coordinator.state import AttemptEnd
from minimr.coordinator.transitions import END_OF_FAILURE
from minimr.ids import AttemptId, JobId, TaskId
from minimr.messages import (
    Assignment,
    CancelJob,
    Failure,
    FailureKind,
    GetMapOutputs,
    JobSpec,
    JobState,
    MapAssignment,
    MapOutput,
    MapOutputNews,
    NewsHeard,
    PingReply,
    PollTask,
    PublishAssignment,
    ReduceAssignment,
    ReportFailure,
    ReportSuccess,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import Stand, failure, make_spec, result_of, worker_info

WORKERS = ("ann", "bob", "cid")
FAILURES = [*FailureKind]


@dataclass
class ModelWorker:
    """A worker as it is supposed to behave, with its disk."""

    name: str
    incarnation: int = 0
    up: bool = False
    heard_ms: int = 0
    poll: int | None = None
    running: Assignment | None = None
    report: ReportSuccess | ReportFailure | None = None
    report_token: int | None = None
    past_reports: list[ReportSuccess | ReportFailure] = field(default_factory=list)
    got: dict[int, AttemptId] = field(default_factory=dict)  # map outputs that its reduce fetched
    known: dict[int, MapOutput] = field(default_factory=dict)
    missed: tuple[AttemptId, ...] = ()
    heard: NewsHeard = field(default_factory=NewsHeard)
    ask_token: int | None = None
    disk: dict[str, JobId] = field(default_factory=dict)

    @property
    def info(self) -> WorkerInfo:
        return worker_info(self.name, self.incarnation, stored=tuple(sorted(self.disk)))

    @property
    def busy_with(self) -> tuple[AttemptId, ...]:
        return (self.running.attempt,) if self.running is not None else ()


class Campaign(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    @initialize()
    def begin(self) -> None:
        self.stand = Stand(lazy=True)
        self.workers = {name: ModelWorker(name) for name in WORKERS}
        self.attempts: set[AttemptId] = set()
        self.specs: dict[JobId, JobSpec] = {}
        self.cancelled: set[JobId] = set()
        self.calm = False
        for name in WORKERS:
            self.worker_starts(name, False)

    # --- clients -----------------------------------------------------------------------------

    @rule(
        target=jobs,
        maps=st.integers(0, 4),
        reduces=st.integers(0, 2),
        by_master=st.booleans(),
        limit=st.sampled_from([4, 2, 1]),
        policy=st.sampled_from([*POLICIES]),
        slowstart=st.sampled_from([0, 0, 500, 1000]),
    )
    def submit(
        self, maps: int, reduces: int, by_master: bool, limit: int, policy: str, slowstart: int
    ) -> JobId:
        spec = make_spec(
            f"job-{len(self.specs) % 4}",
            maps=maps,
            reduces=reduces,
            published_by_master=by_master,
            attempt_limit=limit,
            backup_policy=policy,
            slowstart_permille=slowstart,
        )
        spec = self.specs.setdefault(spec.job_id, spec)
        self.stand.call(SubmitJob(spec=spec))
        return spec.job_id

    @rule(job_id=jobs, really=st.sampled_from([False, False, False, True]))
    def cancel(self, job_id: JobId, really: bool) -> None:
        if not really:
            return
        self.cancelled.add(job_id)
        self.stand.call(CancelJob(job_id=job_id))

    # --- the log -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 8))
    def log_catches_up(self, count: int) -> None:
        self.stand.catch_up(count)

    @rule()
    def log_refuses(self) -> None:
        self.stand.refuse_next()

    @rule(refuse=st.booleans())
    def output_becomes_unwritable(self, refuse: bool) -> None:
        self.stand.refuse_publish = refuse and not self.calm

    @rule(kept=st.integers(-2, 2))
    def coordinator_dies(self, kept: int) -> None:
        """Some proposals made it into the log though nobody heard; everybody's calls are lost."""
        if kept < 0:
            return
        self.stand.catch_up(kept)
        self.stand.open_term()
        for worker in self.workers.values():
            worker.poll = worker.report_token = worker.ask_token = None

    # --- workers -----------------------------------------------------------------------------

    names = st.sampled_from(WORKERS)

    @rule(name=names, lose_disk=st.booleans())
    def worker_starts(self, name: str, lose_disk: bool) -> None:
        worker = self.workers[name]
        if worker.up:
            return
        if lose_disk and not self.calm:
            worker.disk.clear()
        worker.incarnation += 1
        worker.up = True
        self.say_hello(worker)

    @rule(name=names)
    def worker_dies(self, name: str) -> None:
        worker = self.workers[name]
        worker.up = False
        worker.running = worker.report = worker.report_token = None
        self.hang_up(worker)
        self.stop_asking(worker)

    def stop_asking(self, worker: ModelWorker) -> None:
        if worker.ask_token is not None and worker.ask_token not in self.stand.answers:
            self.stand.handle(CallerGone(token=worker.ask_token))
        worker.ask_token = None

    def hang_up(self, worker: ModelWorker) -> None:
        if worker.poll is not None and worker.poll not in self.stand.answers:
            self.stand.handle(CallerGone(token=worker.poll))
        worker.poll = None

    @rule(name=names)
    def poll_breaks(self, name: str) -> None:
        """The connection is cut: an offer that was on its way never arrives."""
        worker = self.workers[name]
        self.hang_up(worker)
        if worker.report is None and worker.running is not None:
            self.attempts.add(worker.running.attempt)
            worker.running = None

    def worker_polls(self, name: str) -> None:
        worker = self.workers[name]
        if not worker.up or worker.running is not None or worker.poll is not None:
            return
        self.heard(worker)
        worker.poll = self.stand.call(PollTask(worker=worker.info, wait_ms=10_000))
        self.collect(worker)

    @rule(names=st.lists(st.sampled_from(WORKERS), min_size=1, max_size=6))
    def workers_go_on(self, names: list[str]) -> None:
        """What happens most of the time: work."""
        for name in names:
            self.worker_finishes(name)
            self.stand.catch_up()
            self.collect(self.workers[name])
            self.worker_polls(name)
            self.stand.catch_up()
            self.collect(self.workers[name])

    @rule(slow=names, turns=st.integers(1, 4))
    def one_worker_is_slow(self, slow: str, turns: int) -> None:
        """The others do what there is to do, until they wait for it."""
        for _ in range(turns):
            self.everybody_works(but=slow)

    @rule(name=names)
    def worker_pings(self, name: str) -> None:
        worker = self.workers[name]
        if not worker.up:
            return
        reply = self.stand.ping(worker.info, *worker.busy_with)
        if reply.known:
            self.heard(worker)
            self.obey(worker, reply)
        else:
            self.say_hello(worker)

    def say_hello(self, worker: ModelWorker) -> None:
        stored_jobs = tuple(sorted(set(worker.disk.values())))
        self.heard(worker)
        reply = self.stand.hello(worker.info, worker.busy_with, stored_jobs)
        for stem, job_id in tuple(worker.disk.items()):
            if job_id in reply.finished_jobs:
                del worker.disk[stem]
        self.obey(worker, reply)

    def obey(self, worker: ModelWorker, reply: PingReply) -> None:
        is_unwanted = worker.running is not None and worker.running.attempt in reply.cancel
        if is_unwanted and worker.report is None:
            self.report(worker, failure(FailureKind.CANCELLED))

    def heard(self, worker: ModelWorker) -> None:
        worker.heard_ms = self.stand.now_ms

    @rule(name=names)
    def worker_finishes_while_the_log_lags(self, name: str) -> None:
        self.worker_finishes(name)

    def worker_finishes(self, name: str) -> None:
        worker = self.workers[name]
        if not worker.up or worker.running is None or worker.report is not None:
            return
        assignment = worker.running
        if isinstance(assignment, ReduceAssignment) and not self.has_gathered(worker, assignment):
            return
        if isinstance(assignment, MapAssignment) and assignment.partition_count > 0:
            worker.disk[assignment.attempt.file_stem] = assignment.attempt.task.job_id
        worker.report = ReportSuccess(
            worker_id=worker.info.worker_id,
            attempt=assignment.attempt,
            result=result_of(assignment, worker.info),
        )
        self.send_report(worker)

    def has_gathered(self, worker: ModelWorker, reduce: ReduceAssignment) -> bool:
        """A reduce fetches what it knows of, and asks for what it lacks."""
        for index, output in worker.known.items():
            owner = self.workers[output.worker_id]
            if index in worker.got:
                continue
            if owner.up and output.attempt.file_stem in owner.disk:
                worker.got[index] = output.attempt
            else:
                worker.missed = (*worker.missed, output.attempt)
        worker.known = {}
        if len(worker.got) == reduce.map_count:
            return True
        if worker.ask_token is None:
            worker.ask_token = self.stand.call(
                GetMapOutputs(
                    worker_id=worker.info.worker_id,
                    attempt=reduce.attempt,
                    heard=worker.heard,
                    wait_ms=1_000,
                    missed=worker.missed,
                )
            )
            worker.missed = ()
        return False

    def hear(self, worker: ModelWorker) -> None:
        """The reduce reads the news that it has got, if any."""
        news = self.stand.answers.get(worker.ask_token or 0)
        if not isinstance(news, MapOutputNews):
            return
        worker.ask_token = None
        if not isinstance(worker.running, ReduceAssignment) or worker.report is not None:
            return
        worker.heard = news.heard
        worker.known = {output.map_index: output for output in news.outputs}
        record = self.stand.machine.state.jobs.get(worker.running.attempt.task.job_id)
        for output in news.outputs if record is not None else ():
            end = record.task(output.attempt.task).end_of(output.attempt)
            assert end in (AttemptEnd.COMMITTED, AttemptEnd.LOST), "told of what was no output"
        if not news.is_wanted:
            self.report(worker, failure(FailureKind.CANCELLED))

    @rule(which=st.integers(0, 2), kind=st.sampled_from(FAILURES), lost=st.sets(st.integers(0, 3)))
    def worker_fails(self, which: int, kind: FailureKind, lost: set[int]) -> None:
        busy = [one for one in self.workers.values() if one.running and one.report is None]
        if not busy:
            return
        worker = busy[which % len(busy)]
        got = worker.got if isinstance(worker.running, ReduceAssignment) else {}
        blamed = tuple(got[index] for index in sorted(lost) if index in got)
        self.report(worker, failure(kind, blamed))

    def report(self, worker: ModelWorker, what: Failure) -> None:
        assert worker.running is not None
        worker.report = ReportFailure(
            worker_id=worker.info.worker_id,
            attempt=worker.running.attempt,
            failure=what,
        )
        self.send_report(worker)

    def send_report(self, worker: ModelWorker) -> None:
        assert worker.report is not None
        worker.past_reports.append(worker.report)
        worker.report_token = self.stand.call(worker.report)

    @rule(name=names, which=st.integers(0, 20))
    def old_report_arrives_again(self, name: str, which: int) -> None:
        reports = self.workers[name].past_reports
        if reports:
            self.stand.call(reports[which % len(reports)])

    # --- time --------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 4), silent=st.sets(st.sampled_from(WORKERS), max_size=2))
    def time_passes(self, seconds: int, silent: set[str]) -> None:
        """Most workers ping meanwhile."""
        for _ in range(seconds):
            self.stand.wait(1_000)
            for name in WORKERS:
                if name not in silent:
                    self.worker_pings(name)

    @rule()
    def everybody_is_silent(self) -> None:
        self.stand.wait(WORKER_DEAD_AFTER_MS + 1)

    # --- what must hold after every step -----------------------------------------------------

    @invariant()
    def rules_hold(self) -> None:
        check_invariants(self.stand.machine.state)
        for worker in self.workers.values():
            self.collect(worker)

    def collect(self, worker: ModelWorker) -> None:
        """The worker reads the answers it has got."""
        self.hear(worker)
        if worker.report_token is None and worker.report is not None:
            self.send_report(worker)  # the coordinator changed: say it again
        answer = self.stand.answers.get(worker.report_token or 0)
        if isinstance(answer, MinigfsError):
            self.send_report(worker)
        elif answer is not None:
            worker.running = worker.report = worker.report_token = None
        offer = self.stand.answers.get(worker.poll or 0)
        if isinstance(offer, TaskOffer):
            worker.poll = None
            if offer.assignment is not None:
                self.check_assignment(worker, offer.assignment)
                worker.running = offer.assignment
                self.stop_asking(worker)
                worker.got, worker.missed, worker.heard = {}, (), NewsHeard()
                outputs = getattr(offer.assignment, "map_outputs", ())
                worker.known = {output.map_index: output for output in outputs}

    def check_assignment(self, worker: ModelWorker, assignment: Assignment) -> None:
        attempt = assignment.attempt
        assert self.stand.now_ms - worker.heard_ms <= WORKER_DEAD_AFTER_MS, "assigned to the dead"
        assert attempt not in self.attempts, "an attempt was named twice"
        self.attempts.add(attempt)
        spec = self.specs[attempt.task.job_id]
        record = self.stand.machine.state.jobs.get(attempt.task.job_id)
        if record is None or record.task(attempt.task).end_of(attempt) is not None:
            return  # a rival was faster than this offer on its way
        assert not record.is_settled(attempt.task), "a committed task is run again"
        if isinstance(assignment, ReduceAssignment):
            assert assignment.map_count == len(spec.splits)
            is_early = spec.slowstart_permille < 1000
            assert is_early or len(assignment.map_outputs) == len(spec.splits), "begins too early"
        if isinstance(assignment, PublishAssignment):
            tasks = [part.attempt.task.index for part in assignment.parts]
            assert tasks == list(range(spec.partition_count or len(spec.splits)))

    # --- in the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        """Faults stop, everybody works: then every job must come to its end."""
        if not hasattr(self, "stand"):
            return
        self.calm = True
        self.stand.refuse_publish = False
        for _ in range(400):
            self.everybody_works()
            if not self.stand.machine.state.jobs and not self.stand.pending:
                break
        assert not self.stand.machine.state.jobs, "a job never ended"
        for status in self.stand.machine.state.history:
            self.check_end(status.job_id)
        self.check_log()

    def everybody_works(self, but: str = "") -> None:
        for name in WORKERS:
            self.worker_starts(name, False)
            self.worker_pings(name)
            if name != but:
                self.worker_finishes(name)  # what it took in the turn before: attempts overlap
            self.stand.catch_up()
            self.collect(self.workers[name])
            self.worker_polls(name)
            self.stand.catch_up()
            self.collect(self.workers[name])
        self.stand.wait(200)
        self.stand.catch_up()

    def check_end(self, job_id: JobId) -> None:
        spec, status = self.specs[job_id], self.stand.machine.state.ended(job_id)
        assert status is not None
        if status.state is JobState.DONE:
            maps, reduces = len(spec.splits), spec.partition_count
            assert status.counters.get("map.test", 0) == (1 << maps) - 1
            assert status.counters.get("reduce.test", 0) == (1 << reduces) - 1
            assert status.counters["map.attempts.committed"] == maps
            launched, won, wasted = (
                status.counters[f"backup.{what}"] for what in ("launched", "won", "wasted")
            )
            assert launched == won + wasted
            indexes = [part.attempt.task.index for part in status.parts]
            assert indexes == list(range(reduces or maps))
            assert len({part.attempt for part in status.parts}) == len(status.parts)
        elif status.state is JobState.FAILED:
            assert status.failure is not None
        else:
            assert job_id in self.cancelled
        discarded = sum(one.job_id == job_id for one in self.stand.discarded)
        assert discarded <= (status.state is not JobState.DONE)

    def check_log(self) -> None:
        """Read the history again, by other means than the machine: it kept the rules."""
        counted: dict[TaskId, set[AttemptId]] = {}
        committed_parts: dict[TaskId, AttemptId] = {}
        for command in self.stand.changes():
            if isinstance(command, FailAttempt):
                if END_OF_FAILURE[command.failure.kind] is AttemptEnd.FAILED:
                    counted.setdefault(command.attempt.task, set()).add(command.attempt)
            elif isinstance(command, CommitAttempt) and getattr(command.result, "part", None):
                committed_parts.setdefault(command.attempt.task, command.attempt)
        for task, attempts in counted.items():
            assert len(attempts) <= self.specs[task.job_id].attempt_limit
        for status in self.stand.machine.state.history:
            for part in status.parts:
                assert committed_parts[part.attempt.task] == part.attempt


Campaign.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestCampaign = Campaign.TestCase
