"""Threads of simulated processes: fibers on one thread of the machine, run by the scheduler.

Production chunkservers and clients are threads that block. Here each such thread is a greenlet;
where it would block it *parks*, and a planned event lets it go on, a drawn moment after what it
waited for. So exactly one thing happens at a time, in an order that the seed decides, and a process
can be paused or ended between any two steps: its fibers are then never resumed.
"""

import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import greenlet

from tests.sim.scheduler import Scheduler

__all__ = ["Fiber", "Fibers", "Life"]

WAKE_US_MAX = 200  # a thread is on a processor some time after it could be


class Life:
    """One process, from its start to its end."""

    def __init__(self, name: str, process_id: int, network: object) -> None:
        self.name = name
        self.process_id = process_id
        self.network = network
        """What this process gets for its network."""
        self.alive = True
        self.paused = False
        self._held: list[Callable[[], None]] = []

    def hold(self, action: Callable[[], None]) -> None:
        """It is paused; ``action`` comes when it goes on."""
        self._held.append(action)

    def resume(self) -> None:
        self.paused = False
        held, self._held = self._held, []
        for action in held:
            action()


class Fiber:
    """One thread of a process."""

    def __init__(
        self, life: Life, name: str, run: Callable[[], None], hub: greenlet.greenlet
    ) -> None:
        self.life = life
        self.name = name
        self.turn = 0  # what was planned for an earlier one is out of date
        self.is_done = False
        self.ended: list[Callable[[], None]] = []
        self.greenlet = greenlet.greenlet(run, hub)  # where its end leads to


class Fibers:
    """All of a world. ``failed`` is told of what ends a thread that nobody expects to end."""

    def __init__(
        self, scheduler: Scheduler, seed: str, failed: Callable[[Fiber, BaseException], None]
    ) -> None:
        self.scheduler = scheduler
        self._chance = random.Random(seed)
        self._failed = failed
        self._hub = greenlet.getcurrent()
        self._all: list[Fiber] = []  # those of dead processes too, which must not be unwound
        self._is_closing = False
        self.current: Fiber | None = None
        self.life: Life | None = None
        """The process that runs now."""

    def spawn(self, life: Life, action: Callable[..., Any], *arguments: Any, name: str) -> Fiber:
        def run() -> None:
            try:
                action(*arguments)
            except greenlet.GreenletExit:
                pass
            except BaseException as error:
                self._failed(fiber, error)
            fiber.is_done = True
            for ended in fiber.ended:
                ended()

        fiber = Fiber(life, name, run, self._hub)
        self._all.append(fiber)
        self.wake(fiber)
        return fiber

    def wake(self, fiber: Fiber) -> None:
        """Let it go on, if it is still where it is now."""
        self.scheduler.after(self._chance.randrange(WAKE_US_MAX), self._resume, fiber, fiber.turn)

    def park(self, timeout_us: int | None = None) -> None:
        """The fiber that calls waits until it is woken, or the time is up."""
        fiber = self.current
        assert fiber is not None, "only a fiber can wait"
        if self._is_closing:
            raise greenlet.GreenletExit
        if timeout_us is not None:
            self.scheduler.after(timeout_us, self._resume, fiber, fiber.turn)
        self._hub.switch()
        if self._is_closing:
            raise greenlet.GreenletExit

    def sleep_us(self, duration_us: int) -> None:
        """Not to be woken before."""
        until_us = self.scheduler.now_us + duration_us
        while self.scheduler.now_us < until_us:
            self.park(until_us - self.scheduler.now_us)

    @contextmanager
    def within(self, life: Life) -> Iterator[None]:
        """What runs in the block belongs to this process."""
        before, self.life = self.life, life
        try:
            yield
        finally:
            self.life = before

    def _resume(self, fiber: Fiber, turn: int) -> None:
        life = fiber.life
        if fiber.turn != turn or fiber.is_done or not life.alive:
            return
        if life.paused:
            life.hold(lambda: self._resume(fiber, turn))
            return
        fiber.turn += 1
        before, self.current = self.current, fiber
        try:
            with self.within(life):
                fiber.greenlet.switch()
        finally:
            self.current = before

    def close(self) -> None:
        """Unwind what is left, now that nobody looks any more."""
        self._is_closing = True
        for fiber in self._all:
            if fiber.greenlet and not fiber.is_done:
                self.current, self.life = fiber, fiber.life
                fiber.greenlet.throw(greenlet.GreenletExit)
        self.current = None
        self._all.clear()


def where(error: BaseException) -> str:
    """The innermost place of production code that an error passed."""
    at = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if "/minigfs/" in frame.filename:
            at = f"{frame.filename.rpartition('/minigfs/')[2]}:{frame.name}"
    return at
