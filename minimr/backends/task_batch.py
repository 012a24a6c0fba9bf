"""The attempts that a worker was offered together, until the coordinator has heard of their ends.

Most offers are of one attempt. Several are short by what was known of their job, and run one after
the other; if one of them takes long all the same, or its executor to start, those behind it are
given back, to be run where there is room. Its methods may be called from any thread.
"""

import threading
import time
from collections.abc import Collection

from minigfs.transport.messages import Empty, Request
from minimr.ids import AttemptId, WorkerId
from minimr.messages import (
    Assignment,
    FailureKind,
    Progress,
    ReportFailure,
    ReportSuccess,
    ReportTasks,
)
from minimr.tasks.gasp import GaspPage

__all__ = ["TaskBatch"]

_LONG_MS = 500  # all attempts of an offer should take less than half of it together


class TaskBatch:
    """One offer's."""

    def __init__(self, assignments: tuple[Assignment, ...], worker_id: WorkerId) -> None:
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._began_ns = time.monotonic_ns()
        self._open = {assignment.attempt: assignment for assignment in assignments}
        self._turns: tuple[AttemptId, ...] = ()  # of those that the executor was given
        self._cancelled: set[AttemptId] = set()
        self._unreported: list[ReportSuccess | ReportFailure] = []
        self._returned: list[AttemptId] = []
        self._noted: tuple[AttemptId | None, int, int] = (None, 0, 0)
        self._notes = 0

    # --- who runs them ---------------------------------------------------------------------------

    def take_open(self) -> tuple[Assignment, ...]:
        """Those that have not ended, for an executor to run in this order. From here on the others
        are given back."""
        with self._lock:
            self._give_back(self._cancelled)
            self._turns = tuple(self._open)
            return tuple(self._open.values())

    def note_progress(self, turn: int, done_bytes: int, total_bytes: int) -> None:
        with self._lock:
            self._noted = (self._turns[turn - 1], done_bytes, total_bytes)
            self._notes += 1

    def attempt_at(self, turn: int) -> AttemptId:
        return self._turns[turn - 1]

    def end(self, report: ReportSuccess | ReportFailure) -> bool:
        """An attempt has ended; False if it was given back. One whose executor was killed is: the
        kill may have been meant for the one before it."""
        with self._lock:
            if isinstance(report, ReportFailure) and report.failure.kind is FailureKind.CANCELLED:
                self._give_back([report.attempt])
            if self._open.pop(report.attempt, None) is None:
                return False
            self._unreported.append(report)
            return True

    def give_back(self, attempts: Collection[AttemptId] | None = None) -> None:
        """These, or all, are not run here (again), as far as they have not ended."""
        with self._lock:
            self._give_back(self._open if attempts is None else attempts)

    def give_back_if_long(self, page: GaspPage) -> bool:
        """If the attempt at hand takes long, or the executor's start, give back what waits behind
        it; whether there is something to report that should not wait for its end."""
        with self._lock:
            at_hand = self._at_hand(page) or next(iter(self._open), None)
            if at_hand not in self._open or page.at_hand_ms < _LONG_MS:
                return False
            waiting = [attempt for attempt in self._open if attempt != at_hand]
            if waiting:
                page.stop()
                self._give_back(waiting)
            return bool(self._unreported or self._returned)

    def cancel(self, attempts: Collection[AttemptId], page: GaspPage | None) -> None:
        """Nobody needs these: those that wait are given back when the one at hand has ended, which
        goes on (see ``is_unwanted``). To be said again as long as ``progress`` names them."""
        with self._lock:
            cancelled = self._open.keys() & attempts
            self._cancelled |= cancelled
            if page is not None and cancelled - {self._at_hand(page)}:
                page.stop()

    def is_unwanted(self, page: GaspPage) -> bool:
        """Whether what the executor does is of use to nobody: the attempt at hand is cancelled, or
        all are before the first has taken its turn."""
        with self._lock:
            at_hand = self._at_hand(page)
            tended = self._open.keys() if at_hand is None else self._open.keys() & {at_hand}
            return bool(tended) and self._cancelled.issuperset(tended)

    def _give_back(self, attempts: Collection[AttemptId]) -> None:
        given = [attempt for attempt in tuple(attempts) if self._open.pop(attempt, None)]
        self._returned += given

    # --- who tells of them -----------------------------------------------------------------------

    def progress(self, page: GaspPage | None) -> tuple[Progress, ...]:
        """Of all whose end was not reported yet, so that nobody takes them for lost."""
        with self._lock:
            elapsed_ms = (time.monotonic_ns() - self._began_ns) // 1_000_000
            at_hand = self._at_hand(page) if page is not None else None
            attempts = (*self._open, *(report.attempt for report in self._unreported))
            return tuple(
                self._progress(one, elapsed_ms, page if one == at_hand else None)
                for one in attempts
            )

    def report(self) -> Request[Empty] | None:
        """What is to be reported; None if nothing is. See ``note_reported``."""
        with self._lock:
            if not self._unreported and not self._returned:
                return None
            if len(self._unreported) == 1 and not self._returned:
                return self._unreported[0]
            return ReportTasks(
                worker_id=self._worker_id,
                ends=tuple(self._unreported),
                returned=tuple(self._returned),
            )

    def note_reported(self, report: Request[Empty]) -> None:
        """The coordinator has heard it; one report at a time."""
        with self._lock:
            ends = len(report.ends) if isinstance(report, ReportTasks) else 1
            del self._unreported[:ends]
            if isinstance(report, ReportTasks):
                del self._returned[: len(report.returned)]

    def _at_hand(self, page: GaspPage) -> AttemptId | None:
        turn = page.turn
        return self._turns[turn - 1] if 0 < turn <= len(self._turns) else None

    def _progress(self, attempt: AttemptId, elapsed_ms: int, page: GaspPage | None) -> Progress:
        noted, done_bytes, total_bytes = self._noted
        if noted != attempt:
            done_bytes = total_bytes = 0
        is_ended = attempt not in self._open
        return Progress(
            attempt=attempt,
            done_bytes=max(done_bytes, page.done_bytes) if page is not None else done_bytes,
            total_bytes=total_bytes,
            steps=(page.steps + self._notes) if page is not None else 0,
            elapsed_ms=elapsed_ms,
            worked_ms=page.worked_ms if page is not None else -1 if is_ended else 0,
        )
