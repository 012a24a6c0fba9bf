"""The SNAPSHOT lane's queue: slices of work on snapshots, first come, first served.

Slices are short, so that a snapshot being written, one being sent and one being received go on side
by side, and the interpreter is not held by one of them for long.
"""

from collections import deque
from collections.abc import Callable

from minigfs.replication.jobs import Job, Lane

__all__ = ["SnapshotLane"]


class SnapshotLane:
    """Owner's thread only. ``take_job`` hands out at most one job at a time."""

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()
        self._out: Job | None = None

    def add(
        self,
        name: str,
        work: Callable[[], None],
        *,
        then: Callable[[], None],
        no_space: Callable[[], None],
    ) -> None:
        self._queue.append(Job(Lane.SNAPSHOT, name, work, then=then, no_space=no_space))

    def clean_up(self, name: str, work: Callable[[], None]) -> None:
        """Work whose end interests nobody: closing and removing files."""
        self.add(name, work, then=_nothing, no_space=_nothing)

    def take_job(self) -> Job | None:
        if self._out is None and self._queue:
            self._out = self._queue.popleft()
            return self._out
        return None

    def came_back(self, job: Job) -> None:
        assert job is self._out, "a job comes back once"
        self._out = None


def _nothing() -> None:
    pass
