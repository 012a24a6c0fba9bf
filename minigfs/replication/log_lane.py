"""Everything a member writes to its log, one thing at a time, in the order asked for.

A full disk is waited out here. A write that meets it has changed nothing, and is run again every
``RETRY_TICKS``; until it succeeds nothing else is written, and Raft promises nothing new. So that
it does not come to that, the log holds space ahead: ``is_full`` turns true as soon as it cannot get
its next segment, while the rest of this one is left. Clients are refused when that falls to a
reserve, and the reserve serves votes, terms and no-ops until there is space again.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from minigfs.replication.durable_log import DurableLog, Save
from minigfs.replication.jobs import Job, Lane

__all__ = ["LogLane"]

RETRY_TICKS = 10


class _Write(NamedTuple):
    name: str
    begin: Callable[[], Save | None]
    then: Callable[[], None]


class LogLane:
    """Owner's thread only. ``take_job`` hands out at most one job at a time."""

    def __init__(self, log: DurableLog) -> None:
        self._log = log
        self._queue: deque[_Write] = deque()
        self._out: Job | None = None
        self._last: Job | None = None
        self._refused: Job | None = None
        self._retry_in_ticks = 0
        self.is_full = not log.has_room_ahead
        """The disk refused the last write, or the space for the next ones. Until that was tried
        for the first time, a log that has none is taken for full: others must not rely on it."""

    def add(self, name: str, begin: Callable[[], Save | None], then: Callable[[], None]) -> None:
        """Write what ``begin`` says when its turn has come, and call ``then`` when it is durable.
        With None it is not wanted any more."""
        self._queue.append(_Write(name, begin, then))

    def tick(self) -> None:
        if self._retry_in_ticks > 0:
            self._retry_in_ticks -= 1

    def take_job(self) -> Job | None:
        """The next write, if none is out and none waits for space."""
        if self._out is not None:
            return None
        if self._refused is not None:
            if self._retry_in_ticks == 0:
                self._out, self._refused = self._refused, None
            return self._out
        self._out = self._room_job() or self._next_job()
        return self._out

    def came_back(self, job: Job) -> None:
        assert job is self._out, "a job comes back once"
        self._out, self._last = None, job

    def _next_job(self) -> Job | None:
        while self._queue:
            name, begin, then = self._queue.popleft()
            save = begin()
            if save is not None:
                return self._job(name, save, then)
        return None

    def _room_job(self) -> Job | None:
        """Try to get the next segment; now, or some time after the last try failed."""
        if self._log.has_room_ahead:
            self.is_full = False
            return None
        if self._retry_in_ticks > 0:
            return None
        save = self._log.begin_room()
        return None if save is None else self._job("find room", save, self._room_tried)

    def _room_tried(self) -> None:
        if not self._log.has_room_ahead:
            self.is_full = True
            self._retry_in_ticks = RETRY_TICKS

    def _job(self, name: str, save: Save, then: Callable[[], None]) -> Job:
        def finish() -> None:
            self._log.finish_save(save)
            then()

        return Job(Lane.LOG, name, save.run, then=finish, no_space=self._no_space)

    def _no_space(self) -> None:
        """The same again later."""
        self._refused = self._last
        self.is_full = True
        self._retry_in_ticks = RETRY_TICKS
