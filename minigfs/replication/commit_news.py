"""Tells followers of commits that nothing else has told them of.

The next entries carry the commit index, and on a busy leader they follow within the millisecond: a
message for each commit, and the answer to it, would double the work. So news wait until nothing was
committed for a moment. Nobody waits for them but a follower whose state is read without asking the
leader; the next heartbeat would say it as well.
"""

import asyncio
from collections.abc import Callable

__all__ = ["CommitNews"]

QUIET_S = 0.005


class CommitNews:
    """Belongs to a running loop. ``tell`` is called once it was quiet after a commit."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._is_quiet = True
        self._timer: asyncio.TimerHandle | None = None

    def committed(self) -> None:
        """Something more was committed just now."""
        self._is_quiet = False
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._is_quiet:
            self._tell()
            return
        self._is_quiet = True
        self._wait()
