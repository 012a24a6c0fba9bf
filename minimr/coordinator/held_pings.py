"""Answers to pings. One that has nothing to tell is held back until it has: then a worker hears at
once, not with its next ping, that nobody needs any more what it runs. An attempt whose backup has
won would else go on for a second."""

from collections.abc import Iterable, Iterator

from minimr.config import PING_INTERVAL_MS
from minimr.coordinator.effects import Reply
from minimr.coordinator.fleet import Poll
from minimr.coordinator.running import RunningAttempts
from minimr.coordinator.state import CoordinatorState
from minimr.ids import AttemptId, WorkerId
from minimr.messages import HelloWorker, PingReply, PingWorker

__all__ = ["HeldPings", "ping_reply"]


def ping_reply(
    said: HelloWorker | PingWorker, running: RunningAttempts, state: CoordinatorState
) -> PingReply:
    """What a worker is to hear that says this."""
    cancel = (one.attempt for one in said.running if not running.wants(one.attempt, state))
    finished = (job_id for job_id in said.stored_jobs if job_id not in state.jobs)
    return PingReply(known=True, cancel=tuple(cancel), finished_jobs=tuple(finished))


class HeldPings:
    """One per worker, the latest. What its methods give are the answers that are due."""

    def __init__(self, running: RunningAttempts) -> None:
        self._running = running
        self._held: dict[WorkerId, Poll] = {}

    def take(self, token: int, ping: PingWorker, reply: PingReply, now_ms: int) -> Iterator[Reply]:
        """A worker pings."""
        yield from self._end(ping.worker_id)
        if reply.cancel or reply.finished_jobs or ping.wait_ms <= 0:
            yield Reply(token=token, message=reply)
        else:
            deadline_ms = now_ms + min(ping.wait_ms, PING_INTERVAL_MS)
            self._held[ping.worker_id] = Poll(token=token, deadline_ms=deadline_ms)

    def end_unwanted(self, attempts: Iterable[AttemptId]) -> Iterator[Reply]:
        """Nobody needs these any more; a worker whose ping is not here hears it when it pings."""
        by_worker: dict[WorkerId, list[AttemptId]] = {}
        for attempt in attempts:
            running = self._running.get(attempt)
            if running is not None:
                by_worker.setdefault(running.worker_id, []).append(attempt)
        for worker_id, unwanted in by_worker.items():
            yield from self._end(worker_id, *unwanted)

    def end_due(self, now_ms: int) -> Iterator[Reply]:
        """Some have waited as long as they wanted."""
        due = [worker_id for worker_id, poll in self._held.items() if poll.deadline_ms <= now_ms]
        for worker_id in due:
            yield from self._end(worker_id)

    def drop(self, token: int) -> None:
        """Nobody waits for this answer any more."""
        self._held = {of: poll for of, poll in self._held.items() if poll.token != token}

    def _end(self, worker_id: WorkerId, *cancel: AttemptId) -> Iterator[Reply]:
        poll = self._held.pop(worker_id, None)
        if poll is not None:
            yield Reply(token=poll.token, message=PingReply(known=True, cancel=cancel))
