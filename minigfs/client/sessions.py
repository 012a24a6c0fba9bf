"""The session a client process has with the masters, by which a retry is told from a new request.

Every change carries an ``Origin``: the session, its own number in it, and below which number all
replies have arrived. The masters remember the replies of a session, so a change that is sent
again, perhaps to another leader, is answered and not executed again (Raft thesis section 6.3).

A session is opened by the first change of a process, and belongs to that process: a forked child
opens its own, as numbers must never be given twice. Masters forget a session that is not used for
an hour, and keep a bounded number of replies; a session with one change that hangs while hundreds
pass it is left for a fresh one.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minigfs.ids import Origin, SessionId

__all__ = ["ClientSessions"]

_WINDOW_COUNT_MAX = 256  # numbers from the oldest open change on; masters keep 1,024 replies


class _Session:
    """Gives out numbers; the owner's lock guards it."""

    def __init__(self, session_id: SessionId) -> None:
        self.session_id = session_id
        self._next_sequence = 1
        self._open: dict[int, None] = {}  # sequences without a reply, ascending

    def begin(self) -> Origin | None:
        """The next change's origin; None if too many have passed the oldest open one."""
        oldest = next(iter(self._open), self._next_sequence)
        if self._next_sequence - oldest >= _WINDOW_COUNT_MAX:
            return None
        sequence = self._next_sequence
        self._next_sequence += 1
        self._open[sequence] = None
        return Origin(self.session_id, sequence, oldest)

    def end(self, sequence: int) -> None:
        """The change has its reply, or will never be sent again."""
        del self._open[sequence]


class _Process:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.current: _Session | None = None


class ClientSessions:
    """Thread-safe and fork-safe. ``open_session`` asks the masters for a new session."""

    def __init__(self, open_session: Callable[[], SessionId]) -> None:
        self._open_session = open_session
        self._by_process: dict[int, _Process] = {}

    @contextmanager
    def origin(self) -> Iterator[Origin]:
        """The origin of one change, for all its tries, as long as the block lasts."""
        # One atomic step: a fork may happen while another thread is in here.
        process = self._by_process.setdefault(os.getpid(), _Process())
        with process.lock:
            session, origin = self._begin(process)
        try:
            yield origin
        finally:
            with process.lock:
                session.end(origin.sequence)

    def forget(self, session_id: SessionId) -> None:
        """The masters do not know the session any more: the next change opens another."""
        process = self._by_process.setdefault(os.getpid(), _Process())
        with process.lock:
            if process.current is not None and process.current.session_id == session_id:
                process.current = None

    def _begin(self, process: _Process) -> tuple[_Session, Origin]:
        while True:
            if process.current is None:
                process.current = _Session(self._open_session())
            origin = process.current.begin()
            if origin is not None:
                return process.current, origin
            process.current = None
