"""What backup policies are worth: the production coordinator, workers of given speeds, a virtual
clock.

A map that sleeps on workers of which some are slow (MapReduce section 5.4 has the real thing). The
coordinator is the one in the masters, driven event by event; only the workers are played here. They
poll, report, and ping once a second with the share of their input that they have done. A run of an
hour takes a moment, and the same arguments give the same figures on every machine.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from minigfs.errors import MinigfsError
from minigfs.transport.messages import Message
from minimr.config import PING_INTERVAL_MS, POLL_WAIT_MS_MAX, TICK_INTERVAL_MS
from minimr.coordinator.backups import POLICIES
from minimr.coordinator.commands import OpenTerm
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import Propose, Refuse, Reply
from minimr.coordinator.events import Applied, Called, CoordinatorRequest, Event, Tick
from minimr.coordinator.machine import CoordinatorMachine
from minimr.ids import JobId, TaskId, WorkerId
from minimr.messages import (
    Assignment,
    Failure,
    FailureKind,
    FileRange,
    JobSpec,
    JobStatus,
    MapAssignment,
    MapResult,
    Part,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    PublishResult,
    ReportFailure,
    ReportSuccess,
    Split,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)

__all__ = ["Marks", "PolicyFigures", "Scenario", "measure", "ratios", "run_scenario"]

_JOB = JobId("stragglers-00000000")
_BYTES_PER_MS = 64 * 1024  # what a usual worker maps; only ratios matter
_PROGRESS_STEPS = 8  # a worker knows how far it is in eighths of its task
_HOP_MS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``task_ms``: what each map takes on a usual worker; ``slowness``: how many times as long it
    takes on each worker. ``step_count`` 0: workers cannot tell how far they are. ``start_ms``: how
    long each worker's first attempt waits for its executor; (): not at all."""

    task_ms: tuple[int, ...]
    slowness: tuple[int, ...]
    policy: str
    step_count: int = _PROGRESS_STEPS
    start_ms: tuple[int, ...] = ()


class PolicyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """``slot_seconds`` counts all attempts until they ended or were cancelled."""

    policy: str
    scenario: str
    makespan_s: float
    slot_seconds: float
    wasted_slot_seconds: float
    backup_slot_seconds: float
    backups_launched: int
    backups_won: int
    backups_wasted: int


def measure(*, workers: int, maps: int, task_ms: int, slowdown: int) -> list[PolicyFigures]:
    """Every policy on three inputs: nothing wrong, one slow worker, one map in eight ten times as
    large (which no policy should take for a slow worker)."""
    even = (task_ms,) * maps
    skewed = tuple(task_ms * (10 if index % 8 == 0 else 1) for index in range(maps))
    usual = (1,) * workers
    slow = (slowdown, *usual[1:])
    scenarios = (("undisturbed", even, usual), ("slow-worker", even, slow), ("skew", skewed, usual))
    return [
        run_scenario(Scenario(task_ms=tasks, slowness=speeds, policy=policy), name)
        for name, tasks, speeds in scenarios
        for policy in POLICIES
    ]


def run_scenario(scenario: Scenario, name: str) -> PolicyFigures:
    return _Lab(scenario).run(name)


@dataclass(slots=True)
class _Slot:
    """One worker; ``life`` grows with each attempt, so that its timers of the past are void."""

    info: WorkerInfo
    slowness: int
    cold_ms: int  # what its executors take to start
    start_ms: int  # of the one for the next attempt; 0 once that has started
    assignment: Assignment | None = None
    began_ms: int = 0
    ready_ms: int = 0
    whole_ms: int = 0
    is_backup: bool = False
    life: int = 0


class _Lab:
    """One run: a heap of timers around the pure coordinator."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._now_ms = 1
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, Callable[[Message], None]] = {}
        self._busy_ms = self._wasted_ms = self._backup_ms = 0
        self._started: dict[TaskId, int] = {}
        machine = CoordinatorMachine()
        machine.adopt(machine.preview(OpenTerm(now_ms=1, term=1)))
        self._machine = machine
        self._coordinator = Coordinator(machine, term=1, now_ms=1)
        self._slots = [
            _Slot(info=_worker(number), slowness=slowness, cold_ms=start_ms, start_ms=start_ms)
            for number, (slowness, start_ms) in enumerate(
                zip(
                    scenario.slowness,
                    scenario.start_ms or (0,) * len(scenario.slowness),
                    strict=True,
                )
            )
        ]

    def run(self, name: str) -> PolicyFigures:
        self._call(SubmitJob(spec=_spec(self._scenario)), lambda _: None)
        for slot in self._slots:
            self._poll(slot)
            self._ping(slot)
        self._tick()
        while _JOB in self._machine.state.jobs:
            at_ms, _, action = heapq.heappop(self._timers)
            self._now_ms = at_ms
            action()
        (status,) = self._machine.state.history
        return self._figures(name, status)

    def _figures(self, name: str, status: JobStatus) -> PolicyFigures:
        for slot in self._slots:
            if slot.assignment is not None:
                self._count(slot, wasted=True)
        counters = status.counters
        return PolicyFigures(
            policy=self._scenario.policy,
            scenario=name,
            makespan_s=(status.ended_ms - status.submitted_ms) / 1000,
            slot_seconds=self._busy_ms / 1000,
            wasted_slot_seconds=self._wasted_ms / 1000,
            backup_slot_seconds=self._backup_ms / 1000,
            backups_launched=counters["backup.launched"],
            backups_won=counters["backup.won"],
            backups_wasted=counters["backup.wasted"],
        )

    def _after(self, delay_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now_ms + delay_ms, next(self._numbers), action))

    # --- the coordinator -------------------------------------------------------------------------

    def _tick(self) -> None:
        self._handle(Tick())
        self._after(TICK_INTERVAL_MS, self._tick)

    def _call(self, request: CoordinatorRequest, then: Callable[[Message], None]) -> None:
        token = next(self._numbers)
        self._answers[token] = then
        self._handle(Called(token=token, request=request))

    def _handle(self, event: Event) -> None:
        for effect in self._coordinator.handle(event, self._now_ms):
            match effect:
                case Reply(token=token, message=message):
                    then = self._answers.pop(token)
                    self._after(_HOP_MS, partial(then, message))
                case Propose(command=command, token=token):
                    self._machine.adopt(self._machine.preview(command))
                    self._after(0, partial(self._handle, Applied(command=command, token=token)))
                case Refuse(error=error):
                    raise MinigfsError(f"the coordinator refused: {error}")
                case _:
                    raise AssertionError(f"a sleeping job needs no {effect}")

    # --- workers ---------------------------------------------------------------------------------

    def _poll(self, slot: _Slot) -> None:
        def offered(answer: Message) -> None:
            assert isinstance(answer, TaskOffer)
            if answer.assignment is None:
                self._poll(slot)
            else:
                self._begin(slot, answer.assignment)

        self._call(PollTask(worker=slot.info, wait_ms=POLL_WAIT_MS_MAX), offered)

    def _begin(self, slot: _Slot, assignment: Assignment) -> None:
        slot.life += 1
        slot.assignment, slot.began_ms = assignment, self._now_ms
        slot.ready_ms, slot.start_ms = self._now_ms + slot.start_ms, 0
        task = assignment.attempt.task
        self._started[task] = self._started.get(task, 0) + 1
        slot.is_backup = self._started[task] > 1
        usual_ms = 0
        if isinstance(assignment, MapAssignment):
            usual_ms = self._scenario.task_ms[assignment.split.index]
        slot.whole_ms = usual_ms * slot.slowness
        life = slot.life
        self._after(slot.ready_ms - self._now_ms + slot.whole_ms, lambda: self._succeed(slot, life))

    def _succeed(self, slot: _Slot, life: int) -> None:
        if slot.life != life:
            return
        assert slot.assignment is not None
        attempt = slot.assignment.attempt
        report = ReportSuccess(
            worker_id=slot.info.worker_id,
            attempt=attempt,
            result=_result(slot.assignment),
            worked_ms=slot.whole_ms or 1,
        )
        self._end(slot, report, wasted=not self._is_first(slot.assignment))

    def _is_first(self, assignment: Assignment) -> bool:
        record = self._machine.state.jobs.get(_JOB)
        return record is not None and not record.is_settled(assignment.attempt.task)

    def _end(self, slot: _Slot, report: ReportSuccess | ReportFailure, *, wasted: bool) -> None:
        self._count(slot, wasted=wasted)
        slot.life += 1
        slot.assignment = None
        self._call(report, lambda _: self._poll(slot))

    def _count(self, slot: _Slot, *, wasted: bool) -> None:
        took_ms = self._now_ms - slot.began_ms
        self._backup_ms += took_ms if slot.is_backup else 0
        self._busy_ms += took_ms
        self._wasted_ms += took_ms if wasted else 0

    def _ping(self, slot: _Slot) -> None:
        next_ms = self._now_ms + PING_INTERVAL_MS

        def answered(answer: Message) -> None:
            assert isinstance(answer, PingReply)
            self._after(max(0, next_ms - self._now_ms), lambda: self._ping(slot))
            assignment = slot.assignment
            if assignment is not None and assignment.attempt in answer.cancel:
                failure = Failure(kind=FailureKind.CANCELLED, error="cancelled")
                report = ReportFailure(
                    worker_id=slot.info.worker_id, attempt=assignment.attempt, failure=failure
                )
                slot.start_ms = slot.cold_ms  # the executor was killed
                self._end(slot, report, wasted=True)

        request = PingWorker(
            worker_id=slot.info.worker_id,
            incarnation=slot.info.incarnation,
            executor_pid=0,
            running=self._progress(slot),
            wait_ms=PING_INTERVAL_MS,
        )
        self._call(request, answered)

    def _progress(self, slot: _Slot) -> tuple[Progress, ...]:
        if not isinstance(slot.assignment, MapAssignment):
            return ()
        total_bytes = slot.assignment.split.size_bytes
        steps = self._scenario.step_count
        worked_ms = max(0, self._now_ms - slot.ready_ms)
        step = min(steps, worked_ms * steps // max(1, slot.whole_ms))
        done_bytes = total_bytes * step // steps if steps else 0
        return (
            Progress(
                attempt=slot.assignment.attempt,
                done_bytes=done_bytes,
                total_bytes=0,  # nor does a real map say it before it has mapped a block
                worked_ms=worked_ms,
            ),
        )


def _worker(number: int) -> WorkerInfo:
    return WorkerInfo(
        worker_id=WorkerId(f"worker-{number:03d}"),
        incarnation="1",
        address="",
        host=f"host-{number:03d}",
        pid=0,
        executor_pid=0,
        directory="",
    )


def _spec(scenario: Scenario) -> JobSpec:
    sizes = [_BYTES_PER_MS * ms for ms in scenario.task_ms]
    return JobSpec(
        job_id=_JOB,
        name="stragglers",
        code=b"",
        inputs=(),
        output="file:///out",
        staging="file:///_out",
        splits=tuple(
            Split(
                index=index,
                ranges=(FileRange(url="file:///in", start=0, length=size, file_bytes=size),),
                size_bytes=size,
            )
            for index, size in enumerate(sizes)
        ),
        partition_count=0,
        backup_policy=scenario.policy,
    )


def _result(assignment: Assignment) -> MapResult | PublishResult:
    if not isinstance(assignment, MapAssignment):
        return PublishResult(manifest_xxh3="")
    attempt = assignment.attempt
    part = Part(
        name=f"part-m-{attempt.task.index:05d}",
        attempt_name=attempt.file_stem,
        size_bytes=0,
        xxh3="0",
        record_count=0,
        min_key=None,
        max_key=None,
        attempt=attempt,
    )
    return MapResult(counters={}, output=None, part=part)


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """Of the default policy with one slow worker. ``backup_slot_share``: slot seconds of backup
    attempts; ``extra_slot_share``: of all attempts, what the slow ones cost until they were
    cancelled included; both as shares of the undisturbed run's."""

    none_over_default: float
    default_over_undisturbed: float
    backup_slot_share: float
    extra_slot_share: float
    skew_backups: int


def ratios(figures: Sequence[PolicyFigures]) -> Marks:
    by_name = {(of.scenario, of.policy): of for of in figures}
    undisturbed = by_name["undisturbed", "none"]
    slow, default = by_name["slow-worker", "none"], by_name["slow-worker", "rate"]
    return Marks(
        none_over_default=round(slow.makespan_s / default.makespan_s, 3),
        default_over_undisturbed=round(default.makespan_s / undisturbed.makespan_s, 3),
        backup_slot_share=round(default.backup_slot_seconds / undisturbed.slot_seconds, 4),
        extra_slot_share=round(default.slot_seconds / undisturbed.slot_seconds - 1, 4),
        skew_backups=by_name["skew", "rate"].backups_launched,
    )
