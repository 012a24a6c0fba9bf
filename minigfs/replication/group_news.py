"""What followers hear a moment later, so that it costs them, and the leader, less.

Entries: a leader sends them to a majority at once (``minigfs.raft.thrift``). The rest of the group
gets them in runs, one every ``MOMENT_S`` as long as there are new ones.

Commits: the next entries carry the commit index, and on a busy leader they follow within the
millisecond: a message for each commit, and the answer to it, would double the work. So these news
wait until nothing happened for a moment. Nobody waits for them but a follower whose state is read
without asking the leader; the next heartbeat would say it as well.
"""

import asyncio
from collections.abc import Callable

__all__ = ["GroupNews"]

MOMENT_S = 0.05


class GroupNews:
    """Belongs to a running loop. Each moment after something happened it calls ``tell_rest``, and
    ``tell_commit`` at the end of one in which nothing did."""

    def __init__(self, *, tell_rest: Callable[[], None], tell_commit: Callable[[], None]) -> None:
        self._tell_rest = tell_rest
        self._tell_commit = tell_commit
        self._is_quiet = True
        self._timer: asyncio.TimerHandle | None = None

    def happened(self) -> None:
        """Something more was proposed or committed just now."""
        self._is_quiet = False
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(MOMENT_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._is_quiet:
            self._tell_commit()
            return
        self._is_quiet = True
        self._wait()
        self._tell_rest()
