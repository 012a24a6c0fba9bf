"""The coordinator in this process: proposals are applied at once, callers block for their answers.

The same machine as in the master, with a lock in the place of the event loop and of the log.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import assert_never, cast

from minigfs.errors import MinigfsError
from minigfs.ports import Clock
from minigfs.transport.messages import Message, ReplyT, Request
from minimr.config import TICK_INTERVAL_MS
from minimr.coordinator.commands import OpenTerm
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import DiscardStaging, Effect, Propose, PublishOutput, Refuse, Reply
from minimr.coordinator.events import Applied, Called, CoordinatorRequest, Event, Tick
from minimr.coordinator.machine import CoordinatorMachine
from minimr.plan.naming import working_urls

__all__ = ["CoordinatorClosed", "InProcessCoordinator"]


class CoordinatorClosed(MinigfsError):
    """The backend was closed while a call waited."""


class InProcessCoordinator:
    """Thread-safe. ``discard_staging(url)`` removes the staging directory of a job that ended
    without output, before anybody learns that it ended. ``keeps_deadlines``: slots that are silent
    for long, or make no progress, are given up."""

    def __init__(
        self, clock: Clock, discard_staging: Callable[[str], None], *, keeps_deadlines: bool
    ) -> None:
        self._keeps_deadlines = keeps_deadlines
        self._clock = clock
        self._offset_ms = clock.now_ms() - clock.monotonic_ms()
        self._discard_staging = discard_staging
        self._machine = CoordinatorMachine()
        self._machine.adopt(self._machine.preview(OpenTerm(now_ms=self._now_ms(), term=1)))
        self._coordinator = Coordinator(self._machine, term=1, now_ms=self._now_ms())
        self._tokens = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, threading.Condition] = {}
        self._ticked_ms = self._now_ms()
        self._answers: dict[int, Message | MinigfsError] = {}
        self._closed = False

    def call(self, request: Request[ReplyT]) -> ReplyT:
        """The answer to ``request``, or the error that is the answer."""
        with self._lock:
            token = next(self._tokens)
            self._handle(Called(token=token, request=cast("CoordinatorRequest", request)))
            self._tick()
            if token not in self._answers:
                self._await(token)
            answer = self._answers.pop(token)
        if isinstance(answer, MinigfsError):
            raise answer
        return cast("ReplyT", answer)

    def _await(self, token: int) -> None:
        """Only the call that is answered wakes up: others would take the interpreter from the slots
        after every task."""
        answered = self._waiting[token] = threading.Condition(self._lock)
        try:
            while token not in self._answers:
                if self._closed:
                    raise CoordinatorClosed("the local backend was closed")
                answered.wait(TICK_INTERVAL_MS / 1000)
                self._tick()
        finally:
            del self._waiting[token]

    def _tick(self) -> None:
        is_due = self._now_ms() - self._ticked_ms >= TICK_INTERVAL_MS
        if is_due and self._keeps_deadlines:
            self._ticked_ms = self._now_ms()
            self._handle(Tick())

    def close(self) -> None:
        """End every call that waits."""
        with self._lock:
            self._closed = True
            for answered in self._waiting.values():
                answered.notify()

    def _now_ms(self) -> int:
        return self._offset_ms + self._clock.monotonic_ms()

    def _handle(self, event: Event) -> None:
        """Carry out an event's effects, and those of what they lead to, in order."""
        events = deque([event])
        while events:
            for effect in self._coordinator.handle(events.popleft(), self._now_ms()):
                applied = self._carry_out(effect)
                if applied is not None:
                    events.append(applied)

    def _carry_out(self, effect: Effect) -> Applied | None:
        match effect:
            case Reply(token=token, message=message):
                self._answer(token, message)
            case Refuse(token=token, error=error):
                self._answer(token, error)
            case Propose(command=command, token=token):
                self._machine.adopt(self._machine.preview(command))
                return Applied(command=command, token=token)
            case DiscardStaging(spec=spec):
                for url in working_urls(spec.staging):
                    self._discard_staging(url)
            case PublishOutput():
                raise AssertionError("local jobs are published by their publish task")
            case _:
                assert_never(effect)
        return None

    def _answer(self, token: int, answer: Message | MinigfsError) -> None:
        self._answers[token] = answer
        if token in self._waiting:
            self._waiting[token].notify()
