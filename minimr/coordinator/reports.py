"""What workers report about their attempts, as the commands that end these."""

from collections.abc import Iterable

from minigfs.errors import ProtocolError
from minimr.coordinator.admission import result_problem
from minimr.coordinator.commands import AttemptCommand, EndAttempts
from minimr.coordinator.ends import commit_of, failure_of, losses_of
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.takeover import OpenAttempts
from minimr.ids import AttemptId
from minimr.messages import ReportFailure, ReportSuccess, ReportTasks

__all__ = ["Reports"]

Report = ReportSuccess | ReportFailure


class Reports:
    """Marks what it makes commands of as ending, so that nothing else ends it meanwhile."""

    def __init__(self, running: RunningAttempts, open_attempts: OpenAttempts) -> None:
        self._running = running
        self._open = open_attempts

    def end(self, report: Report, now_ms: int) -> AttemptCommand | None:
        """None for a report that is late or came before: what it reports is settled.

        Raises ``ProtocolError`` for a result that cannot be its attempt's.
        """
        attempt = report.attempt
        record = self._open.record_of(attempt)
        if record is None:
            return None
        running = self._running.get(attempt)
        if isinstance(report, ReportFailure):
            command: AttemptCommand = failure_of(
                attempt, report.failure, self._running, record, now_ms
            )
        else:
            problem = result_problem(record, attempt, report.result)
            if problem is not None:
                raise ProtocolError(problem)
            if running is not None:
                running.note_end(report.worked_ms, now_ms)
            command = commit_of(attempt, report.result, self._running, now_ms)
        if running is not None:
            running.ending = True
        return command

    def end_all(
        self, request: ReportTasks, now_ms: int
    ) -> tuple[EndAttempts | None, ProtocolError | None]:
        """Of the ends that can be: one command, if there are any; and what is wrong with others."""
        ends: list[AttemptCommand] = []
        refused: ProtocolError | None = None
        for report in request.ends:
            try:
                end = self.end(report, now_ms)
            except ProtocolError as error:
                refused = error
            else:
                ends += [end] if end is not None else []
        ends += self.lose(request.returned, now_ms, is_set_back=True)
        return (EndAttempts(now_ms=now_ms, ends=tuple(ends)) if ends else None), refused

    def lose(
        self, attempts: Iterable[AttemptId], now_ms: int, *, is_set_back: bool = False
    ) -> tuple[AttemptCommand, ...]:
        """Those that run went with their worker; ``is_set_back``: they were taken from it."""
        found = (self._running.get(attempt) for attempt in attempts)
        lost = [running for running in found if running is not None and not running.ending]
        for running in lost:
            running.ending = True
        return losses_of(lost, now_ms, is_set_back=is_set_back)
