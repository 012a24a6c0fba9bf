"""What clients see of jobs: statuses, lists, and long polls that end when there is news."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from minimr.coordinator.machine import CoordinatorMachine
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.state import JobRecord
from minimr.coordinator.status import job_status, status_version
from minimr.ids import JobId
from minimr.messages import JobList, JobStatus

__all__ = ["JobBoard", "Watcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """A client waits for a status other than ``known_version``; ``token`` answers it. While the job
    runs it is not answered before ``news_ms``: who looks at thousands of small tasks would else
    take more time than they do."""

    token: int
    job_id: JobId
    known_version: int
    deadline_ms: int
    news_ms: int


class JobBoard:
    """Reads the hard state and the running attempts; owns the watchers."""

    def __init__(self, machine: CoordinatorMachine, running: RunningAttempts) -> None:
        self._machine = machine
        self._running = running
        self._watchers: dict[int, Watcher] = {}
        self._news: dict[JobId, int] = {}
        self._waiting = ""

    def status(self, job_id: JobId, now_ms: int) -> JobStatus | None:
        record = self._machine.state.jobs.get(job_id)
        if record is None:
            return self._machine.state.ended(job_id)
        return self._live_status(record, now_ms)

    def job_list(self, now_ms: int) -> JobList:
        """Oldest first; without parts, which would make a list of many jobs very long."""
        state = self._machine.state
        ended = [msgspec.structs.replace(status, parts=()) for status in state.history]
        live = [self._live_status(record, now_ms) for record in state.jobs.values()]
        return JobList(jobs=(*ended, *live))

    def note_news(self, job_id: JobId) -> None:
        """Something changed that the job's record does not show: an attempt began or went on."""
        self._news[job_id] = self._news.get(job_id, 0) + 1

    def note_waiting(self, why: str) -> None:
        """Why no job can get on at the moment; "" if one can."""
        if why != self._waiting:
            self._waiting = why
            for job_id in self._machine.state.jobs:
                self.note_news(job_id)

    def forget_job(self, job_id: JobId) -> None:
        self._news.pop(job_id, None)

    def watch(self, watcher: Watcher) -> None:
        self._watchers[watcher.token] = watcher

    def unwatch(self, token: int) -> None:
        self._watchers.pop(token, None)

    def due(self, now_ms: int) -> Iterator[Watcher]:
        """Take out, in order of arrival, the watchers whose wait is over."""
        for watcher in tuple(self._watchers.values()):
            if watcher.deadline_ms <= now_ms or self._has_news(watcher, now_ms):
                self.unwatch(watcher.token)
                yield watcher

    def _has_news(self, watcher: Watcher, now_ms: int) -> bool:
        version = self._version(watcher)
        is_first = watcher.known_version < 0
        return version != watcher.known_version and (
            version is None or is_first or now_ms >= watcher.news_ms
        )

    def _version(self, watcher: Watcher) -> int | None:
        record = self._machine.state.jobs.get(watcher.job_id)
        if record is None:  # unknown, or ended: there is nothing to wait for
            return None
        return status_version(record, self._news.get(watcher.job_id, 0))

    def _live_status(self, record: JobRecord, now_ms: int) -> JobStatus:
        running = self._running.progress_of(record.job_id)
        return job_status(
            record,
            now_ms,
            news=self._news.get(record.job_id, 0),
            running=running,
            waiting="" if running else self._waiting,
            backups_running=sum(one.is_backup for one in self._running.of_job(record.job_id)),
        )
