"""A caller of the coordinator: finds the leader's, and asks again until it is answered.

As production's connections: at most one try of a request is open, and one whose time is up is
closed at the coordinator before the next begins.
"""

import random
from collections.abc import Callable, Sequence

from minigfs.errors import ClusterError, MinigfsError
from minigfs.transport.messages import Message
from minimr.coordinator.events import CoordinatorRequest
from tests.sim.coordinators import Coordinators
from tests.sim.process import Process
from tests.sim.scheduler import MS, Scheduler

__all__ = ["Caller"]

HOP_US_MAX = 2 * MS


class Caller:
    """``cut_off``: nothing comes through; ``forget`` drops all that is out."""

    def __init__(
        self,
        scheduler: Scheduler,
        coordinators: Coordinators,
        processes: Callable[[], Sequence[Process]],
        loss_permille: int,
        seed: str,
    ) -> None:
        self._scheduler = scheduler
        self._coordinators = coordinators
        self._processes = processes
        self._loss_permille = loss_permille
        self.chance = random.Random(seed)
        self._target: Process | None = None
        self._generation = 0
        self.cut_off = False

    def forget(self) -> None:
        """Whoever asked is gone."""
        self._generation += 1

    def call(
        self,
        request: CoordinatorRequest,
        then: Callable[[Message | MinigfsError], None],
        patience_us: int = 500 * MS,
    ) -> None:
        self._try(self._generation, request, then, patience_us)

    def _try(
        self,
        generation: int,
        request: CoordinatorRequest,
        then: Callable[[Message | MinigfsError], None],
        patience_us: int,
    ) -> None:
        if generation != self._generation:
            return
        process = self._target or self.chance.choice(self._processes())
        token: int | None = None
        is_open = True

        def again(delay_us: int) -> None:
            self._target = None
            self._scheduler.after(delay_us, self._try, generation, request, then, patience_us)

        def arrive() -> None:
            nonlocal token
            if not is_open:
                return
            token = self._coordinators.call(process, request, answer)
            if token is None:
                close()
                again(self.chance.randrange(5 * MS, 60 * MS))

        def answer(message: Message | MinigfsError) -> None:
            if not self._is_lost():
                self._scheduler.after(self.chance.randrange(HOP_US_MAX), hear, message)

        def hear(message: Message | MinigfsError) -> None:
            if not is_open or generation != self._generation or self.cut_off:
                return
            close()
            if isinstance(message, ClusterError):
                again(self.chance.randrange(5 * MS, 60 * MS))
                return
            self._target = process
            then(message)

        def run_out() -> None:
            if is_open:
                close()
                if token is not None:
                    self._coordinators.hang_up(process, token)
                again(0)

        def close() -> None:
            nonlocal is_open
            is_open = False

        if not self._is_lost():
            self._scheduler.after(self.chance.randrange(HOP_US_MAX), arrive)
        self._scheduler.after(patience_us + self.chance.randrange(100 * MS), run_out)

    def _is_lost(self) -> bool:
        return self.cut_off or self.chance.randrange(1000) < self._loss_permille
