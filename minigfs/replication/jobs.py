"""Blocking work that a member wants done, as values: whoever has threads runs it.

A job goes through three hands: the member makes it, a thread of its lane calls ``run``, and the
owner's thread gives it back (``Member.done`` or ``Member.failed``). There are two lanes so that a
snapshot of minutes never holds up a write of the log; in each at most one job is out at a time.
"""

import enum
from collections.abc import Callable

__all__ = ["Job", "Lane"]


class Lane(enum.Enum):
    LOG = "log"
    """Writes and syncs of the log."""
    SNAPSHOT = "snapshot"
    """Everything about snapshots, in short slices: writing, sending, receiving, restoring."""


class Job:
    """``work`` runs in any thread; ``then`` and ``no_space`` belong to the owner's."""

    __slots__ = ("_work", "lane", "name", "no_space", "then")

    def __init__(
        self,
        lane: Lane,
        name: str,
        work: Callable[[], None],
        *,
        then: Callable[[], None],
        no_space: Callable[[], None],
    ) -> None:
        self.lane = lane
        self.name = name
        self.then = then
        self.no_space = no_space
        self._work = work

    def run(self) -> None:
        """Do it; blocks. Whatever it raises is for ``Member.failed``. After ``NoSpace`` the same
        job may come out of ``Member.due`` again."""
        self._work()

    def __repr__(self) -> str:
        return f"<Job {self.lane.value}: {self.name}>"
