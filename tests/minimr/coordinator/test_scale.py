"""Maps times reducers: what the coordinator says, logs and keeps grows with their sum."""

import itertools
from dataclasses import dataclass

import msgspec
import pytest

from minigfs.transport.messages import Message
from minimr.coordinator.commands import OpenTerm, encode_command
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import Propose, Reply
from minimr.coordinator.events import Applied, Called, CoordinatorRequest
from minimr.coordinator.machine import CoordinatorMachine
from minimr.messages import (
    GetMapOutputs,
    HelloWorker,
    JobState,
    MapOutputNews,
    MapResult,
    NewsHeard,
    PollTask,
    ReduceAssignment,
    ReduceResult,
    ReportSuccess,
    SubmitJob,
    TaskOffer,
    WorkerInfo,
)
from tests.minimr.coordinator.harness import make_spec, result_of, worker_info

WORKERS = 20


@dataclass
class Fleet:
    """Workers that do what they are told at once, and what that takes in bytes."""

    said_bytes: int = 0
    log_bytes: int = 0
    now_ms: int = 1_000

    def __post_init__(self) -> None:
        self.machine = CoordinatorMachine()
        self.machine.adopt(self.machine.preview(OpenTerm(now_ms=0, term=1)))
        self.coordinator = Coordinator(self.machine, term=1, now_ms=self.now_ms)
        self.tokens = itertools.count(1)

    def call(self, request: CoordinatorRequest) -> Message | None:
        """The answer, if there is one at once."""
        token = next(self.tokens)
        answer: Message | None = None
        events: list[Called | Applied] = [Called(token=token, request=request)]
        while events:
            for effect in self.coordinator.handle(events.pop(0), self.now_ms):
                if isinstance(effect, Propose):
                    self.log_bytes += len(encode_command(effect.command))
                    self.machine.adopt(self.machine.preview(effect.command))
                    events.append(Applied(command=effect.command, token=effect.token))
                elif isinstance(effect, Reply) and effect.token == token:
                    answer = effect.message
        for message in (request, answer):
            if not isinstance(message, SubmitJob):
                self.said_bytes += len(msgspec.msgpack.encode(message))
        return answer

    def run(self, maps: int, reduces: int) -> None:
        spec = make_spec(maps=maps, reduces=reduces)
        self.call(SubmitJob(spec=spec))
        workers = [worker_info(f"worker-{number:04d}") for number in range(WORKERS)]
        for worker in workers:
            self.call(HelloWorker(worker=worker))
        heard = dict.fromkeys((worker.worker_id for worker in workers), NewsHeard())
        told = dict.fromkeys(heard, 0)
        for worker in itertools.cycle(workers):
            if not self.machine.state.jobs:
                break
            self.work(worker, heard, told)
        assert set(told.values()) == {maps}, "each worker hears of each map once"
        (status,) = self.machine.state.history
        assert status.state is JobState.DONE

    def work(self, worker: WorkerInfo, heard: dict[str, NewsHeard], told: dict[str, int]) -> None:
        offer = self.call(PollTask(worker=worker, wait_ms=0))
        if not isinstance(offer, TaskOffer) or offer.assignment is None:
            return
        attempt = offer.assignment.attempt
        if isinstance(offer.assignment, ReduceAssignment):
            while told[worker.worker_id] < offer.assignment.map_count:
                news = self.call(
                    GetMapOutputs(
                        worker_id=worker.worker_id,
                        attempt=attempt,
                        heard=heard[worker.worker_id],
                    )
                )
                assert isinstance(news, MapOutputNews)
                told[worker.worker_id] += len(news.outputs)
                heard[worker.worker_id] = news.heard
        result = result_of(msgspec.structs.replace(offer.assignment), worker)
        if isinstance(result, MapResult | ReduceResult):
            result = msgspec.structs.replace(result, counters={"records": 1})
        self.call(ReportSuccess(worker_id=worker.worker_id, attempt=attempt, result=result))


def check_growth(maps: int, reduces: int) -> Fleet:
    """Twice as many of both: twice as many bytes, not four times."""
    half, whole = Fleet(), Fleet()
    half.run(maps // 2, reduces // 2)
    whole.run(maps, reduces)
    assert whole.said_bytes < 2.2 * half.said_bytes
    assert whole.log_bytes < 2.2 * half.log_bytes
    return whole


def test_messages_and_log_grow_with_the_sum_of_maps_and_reduces() -> None:
    check_growth(300, 300)


@pytest.mark.slow
def test_two_thousand_by_two_thousand() -> None:
    """432 KB with each of 2,000 reduce tasks made 860 MB of messages once."""
    whole = check_growth(2_000, 2_000)
    assert whole.said_bytes < 20e6 + WORKERS * 2_000 * 260
    assert whole.log_bytes < 4e6
    state_bytes = sum(map(len, whole.machine.freeze()))
    assert state_bytes < 2e6
