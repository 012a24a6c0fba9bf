"""News of map outputs for the reduces that wait for them (MapReduce sections 3.1 and 3.3).

Soft state. Per job, the maps whose output came, went or moved are listed in that order; whoever has
heard the first ``count`` changes is told of the others. So each worker hears of each output about
once, however many partitions there are, and a reduce keeps what it has fetched when a map runs
again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from minimr.config import NEWS_INTERVAL_MS, POLL_WAIT_MS_MAX
from minimr.coordinator.fleet import Fleet
from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.state import JobStage
from minimr.ids import AttemptId, JobId, TaskPhase, WorkerId
from minimr.messages import GetMapOutputs, MapOutput, MapOutputNews, NewsHeard

__all__ = ["OutputFeed"]

_OUTPUTS_PER_ANSWER = 4096  # about a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A reduce attempt asks for news; ``token`` answers it."""

    token: int
    attempt: AttemptId
    heard: NewsHeard
    asked_ms: int
    deadline_ms: int


class OutputFeed:
    """Of all jobs of one coordinator, which is that of ``term``."""

    def __init__(self, machine: CoordinatorMachine, fleet: Fleet, term: int) -> None:
        self._machine = machine
        self._fleet = fleet
        self._term = term
        self._changes: dict[JobId, list[int]] = {}  # map indexes
        self._waiting: dict[int, _Waiting] = {}
        self._is_stale = False  # something may have changed for those who wait

    def note(self, attempts: Iterable[AttemptId]) -> None:
        """These attempts have ended, or what they had left is gone."""
        self._is_stale = True
        for attempt in attempts:
            task = attempt.task
            if task.phase is TaskPhase.MAP and task.job_id in self._changes:
                self._changes[task.job_id].append(task.index)

    def note_moved(self, worker_id: WorkerId) -> None:
        """A worker serves its outputs at another address."""
        self._is_stale = True
        for job_id, changes in self._changes.items():
            record = self._machine.state.jobs.get(job_id)
            outputs = record.map_outputs() if record is not None else ()
            changes.extend(one.map_index for one in outputs if one.worker_id == worker_id)

    def wait(self, token: int, request: GetMapOutputs, now_ms: int) -> None:
        """Answer ``token`` when there is news."""
        self._is_stale = True
        record = self._machine.state.jobs.get(request.attempt.task.job_id)
        if record is not None and record.job_id not in self._changes:
            self._changes[record.job_id] = [one.map_index for one in record.map_outputs()]
        self._waiting[token] = _Waiting(
            token=token,
            attempt=request.attempt,
            heard=request.heard,
            asked_ms=now_ms,
            deadline_ms=now_ms + min(max(request.wait_ms, 0), POLL_WAIT_MS_MAX),
        )

    def forget_caller(self, token: int) -> None:
        self._waiting.pop(token, None)

    def forget_job(self, job_id: JobId) -> None:
        self._is_stale = True
        self._changes.pop(job_id, None)

    def wake(self) -> None:
        """Time has passed."""
        self._is_stale = True

    def waiting(self) -> list[AttemptId]:
        """The attempts that wait now."""
        return [waiting.attempt for waiting in self._waiting.values()]

    def due(
        self, is_wanted: Callable[[AttemptId], bool], now_ms: int
    ) -> Iterator[tuple[int, MapOutputNews]]:
        """Take out those whose wait is over, with their answers."""
        if not self._is_stale:
            return
        self._is_stale = False
        for waiting in tuple(self._waiting.values()):
            if not is_wanted(waiting.attempt):
                news = MapOutputNews(heard=waiting.heard, is_wanted=False)
            elif self._has_news(waiting, now_ms) or waiting.deadline_ms <= now_ms:
                news = self._news(waiting)
            else:
                continue
            del self._waiting[waiting.token]
            yield waiting.token, news

    def _start(self, waiting: _Waiting) -> int:
        """Changes that were heard of from another coordinator are told again."""
        return waiting.heard.count if waiting.heard.term == self._term else 0

    def _has_news(self, waiting: _Waiting, now_ms: int) -> bool:
        """Maps that end one after the other are told of together; the last one at once."""
        job_id = waiting.attempt.task.job_id
        record = self._machine.state.jobs[job_id]
        start = self._start(waiting)
        return len(self._changes[job_id]) > start and (
            start == 0
            or record.stage is not JobStage.MAP
            or now_ms - waiting.asked_ms >= NEWS_INTERVAL_MS
        )

    def _news(self, waiting: _Waiting) -> MapOutputNews:
        job_id = waiting.attempt.task.job_id
        start = self._start(waiting)
        changed = self._changes[job_id][start : start + _OUTPUTS_PER_ANSWER]
        record = self._machine.state.jobs[job_id]
        outputs: list[MapOutput] = []
        gone: list[int] = []
        for index in dict.fromkeys(changed):
            output = record.map_output(index)
            if output is None:
                gone.append(index)
            else:
                outputs.append(self._fleet.current(output))
        heard = NewsHeard(self._term, start + len(changed))
        return MapOutputNews(heard=heard, outputs=tuple(outputs), gone=tuple(gone))
