"""The production coordinator and played workers on a virtual clock: how long a job takes.

Maps sleep; a reduce takes a while for each map output that it fetches, as they come, and a while
for its own work. A worker can be killed, and started again with or without its disk.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from minigfs.transport.messages import Message
from minimr.config import PING_INTERVAL_MS, TICK_INTERVAL_MS
from minimr.coordinator.commands import OpenTerm
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import Propose, Reply
from minimr.coordinator.events import Applied, Called, CallerGone, CoordinatorRequest, Event, Tick
from minimr.coordinator.machine import CoordinatorMachine
from minimr.messages import (
    Assignment,
    Failure,
    FailureKind,
    GetMapOutputs,
    HelloWorker,
    JobSpec,
    JobState,
    JobStatus,
    MapAssignment,
    MapOutputNews,
    NewsHeard,
    PingReply,
    PingWorker,
    PollTask,
    Progress,
    ReduceAssignment,
    ReportFailure,
    ReportSuccess,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import result_of, worker_info

HOP_MS = 2


@dataclass
class Slot:
    """One worker; ``life`` grows with all that makes timers of the past void."""

    name: str
    incarnation: int = 1
    up: bool = True
    life: int = 0
    running: Assignment | None = None
    began_ms: int = 0
    polls: int = 0
    disk: set[str] = field(default_factory=set)
    to_fetch: deque[int] = field(default_factory=deque)
    got: set[int] = field(default_factory=set)
    heard: NewsHeard = field(default_factory=NewsHeard)

    @property
    def info(self) -> WorkerInfo:
        return worker_info(self.name, self.incarnation, stored=tuple(sorted(self.disk)))


@dataclass
class VirtualCluster:
    """``fetch_ms``: of one map output; ``map_ms`` by split."""

    worker_count: int
    map_ms: tuple[int, ...]
    fetch_ms: int = 0
    reduce_ms: int = 0
    now_ms: int = 1

    def __post_init__(self) -> None:
        self.machine = CoordinatorMachine()
        self.machine.adopt(self.machine.preview(OpenTerm(now_ms=1, term=1)))
        self.coordinator = Coordinator(self.machine, term=1, now_ms=1)
        self.numbers = itertools.count(1)
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self.answers: dict[int, Callable[[Message], None]] = {}
        self.slots = [Slot(f"worker-{number:02d}") for number in range(self.worker_count)]

    def run(self, spec: JobSpec) -> JobStatus:
        self.call(SubmitJob(spec=spec), lambda _: None)
        for slot in self.slots:
            self.start(slot)
        self.tick()
        while spec.job_id in self.machine.state.jobs:
            self.now_ms, _, action = heapq.heappop(self.timers)
            action()
        (status,) = self.machine.state.history
        assert status.state is JobState.DONE, status.failure
        return status

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (self.now_ms + delay_ms, next(self.numbers), action))

    def kill(self, slot: Slot, *, back_after_ms: int) -> None:
        """-9; it comes back with its disk, as Ray brings it back."""
        slot.up, slot.running = False, None
        slot.life += 1
        for token in [token for token in self.answers if token == slot.polls]:
            del self.answers[token]
            self.handle(CallerGone(token=token))

        def back() -> None:
            slot.incarnation += 1
            slot.up = True
            self.start(slot)

        self.after(back_after_ms, back)

    # --- the coordinator -------------------------------------------------------------------------

    def tick(self) -> None:
        self.handle(Tick())
        self.after(TICK_INTERVAL_MS, self.tick)

    def call(self, request: CoordinatorRequest, then: Callable[[Message], None]) -> int:
        token = next(self.numbers)
        self.answers[token] = then
        self.handle(Called(token=token, request=request))
        return token

    def handle(self, event: Event) -> None:
        for effect in self.coordinator.handle(event, self.now_ms):
            if isinstance(effect, Reply):
                then = self.answers.pop(effect.token)
                self.after(HOP_MS, partial(then, effect.message))
            else:
                assert isinstance(effect, Propose)
                self.machine.adopt(self.machine.preview(effect.command))
                applied = Applied(command=effect.command, token=effect.token)
                self.after(0, partial(self.handle, applied))

    # --- a worker --------------------------------------------------------------------------------

    def start(self, slot: Slot) -> None:
        hello = HelloWorker(worker=slot.info)
        self.call(hello, self.if_alive(slot, lambda _: self.poll(slot)))
        self.ping(slot, slot.incarnation)

    def if_alive(self, slot: Slot, then: Callable[[Message], None]) -> Callable[[Message], None]:
        life = slot.life

        def heard(answer: Message) -> None:
            if slot.life == life:
                then(answer)

        return heard

    def poll(self, slot: Slot) -> None:
        def offered(answer: Message) -> None:
            assert isinstance(answer, TaskOffer)
            if answer.assignment is None:
                self.poll(slot)
            else:
                self.begin(slot, answer.assignment)

        poll = PollTask(worker=slot.info, wait_ms=10_000)
        slot.polls = self.call(poll, self.if_alive(slot, offered))

    def begin(self, slot: Slot, assignment: Assignment) -> None:
        slot.life += 1
        slot.running, slot.began_ms = assignment, self.now_ms
        if isinstance(assignment, MapAssignment):
            self.end_after(slot, self.map_ms[assignment.split.index])
        elif isinstance(assignment, ReduceAssignment):
            slot.heard, slot.got = NewsHeard(), set()
            slot.to_fetch = deque(output.map_index for output in assignment.map_outputs)
            self.fetch(slot, assignment)
        else:
            self.end_after(slot, 1)

    def end_after(self, slot: Slot, delay_ms: int) -> None:
        life = slot.life
        self.after(delay_ms, lambda: self.succeed(slot) if slot.life == life else None)

    def fetch(self, slot: Slot, reduce: ReduceAssignment) -> None:
        """The next output, or ask for more, or all are there."""
        life = slot.life
        while slot.to_fetch and slot.to_fetch[0] in slot.got:
            slot.to_fetch.popleft()
        if slot.to_fetch:
            slot.got.add(slot.to_fetch.popleft())
            again = partial(self.fetch, slot, reduce)
            self.after(self.fetch_ms, lambda: again() if slot.life == life else None)
        elif len(slot.got) == reduce.map_count:
            self.end_after(slot, self.reduce_ms)
        else:
            self.ask(slot, reduce)

    def ask(self, slot: Slot, reduce: ReduceAssignment) -> None:
        def told(news: Message) -> None:
            assert isinstance(news, MapOutputNews)
            if not news.is_wanted:
                self.cancel(slot)
                return
            slot.heard = news.heard
            slot.to_fetch.extend(output.map_index for output in news.outputs)
            self.fetch(slot, reduce)

        request = GetMapOutputs(
            worker_id=slot.info.worker_id,
            attempt=reduce.attempt,
            heard=slot.heard,
            wait_ms=2_000,
        )
        self.call(request, self.if_alive(slot, told))

    def succeed(self, slot: Slot) -> None:
        assert slot.running is not None
        if isinstance(slot.running, MapAssignment):
            slot.disk.add(slot.running.attempt.file_stem)
        result = result_of(slot.running, slot.info)
        if hasattr(result, "counters"):
            result = msgspec.structs.replace(result, counters={})
        self.report(
            slot,
            ReportSuccess(
                worker_id=slot.info.worker_id, attempt=slot.running.attempt, result=result
            ),
        )

    def cancel(self, slot: Slot) -> None:
        assert slot.running is not None
        failure = Failure(kind=FailureKind.CANCELLED, error="cancelled")
        attempt = slot.running.attempt
        self.report(
            slot, ReportFailure(worker_id=slot.info.worker_id, attempt=attempt, failure=failure)
        )

    def report(self, slot: Slot, report: ReportSuccess | ReportFailure) -> None:
        slot.life += 1
        slot.running = None
        self.call(report, self.if_alive(slot, lambda _: self.poll(slot)))

    def ping(self, slot: Slot, incarnation: int) -> None:
        if not slot.up or slot.incarnation != incarnation:
            return

        def answered(answer: Message) -> None:
            assert isinstance(answer, PingReply)
            if slot.running is not None and slot.running.attempt in answer.cancel:
                self.cancel(slot)

        running = ()
        if slot.running is not None:
            running = (
                Progress(
                    attempt=slot.running.attempt,
                    done_bytes=self.now_ms - slot.began_ms,
                    total_bytes=1 << 20,
                    steps=self.now_ms,
                ),
            )
        request = PingWorker(
            worker_id=slot.info.worker_id,
            incarnation=slot.info.incarnation,
            executor_pid=0,
            running=running,
        )
        self.call(request, self.if_alive(slot, answered))
        self.after(PING_INTERVAL_MS, lambda: self.ping(slot, incarnation))
