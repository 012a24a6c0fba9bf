"""The plan of faults: a numbered sequence, each drawn from the seed and its number alone.

So any of them can be left out and the others stay what they are: ``--without 3,17``. A fault knows
what it does, to whom (as far as that can be said before it happens), and ends by itself.
"""

import random
from collections.abc import Callable, Collection

from tests.sim.arena import Arena
from tests.sim.machine_faults import MachineFaults
from tests.sim.network_faults import NetworkFaults
from tests.sim.operators import Operator
from tests.sim.scheduler import MS

__all__ = ["FaultPlan"]


class FaultPlan:
    """Strikes again and again until ``stop``."""

    def __init__(
        self, arena: Arena, operator: Operator, seed: int, without: Collection[int]
    ) -> None:
        self._arena = arena
        self._seed = seed
        self._without = without
        self._next_number = 0
        self._stopped = False
        self.struck: list[int] = []
        """Numbers of those that happened."""
        network = NetworkFaults(arena)
        machine = MachineFaults(arena)
        self._strikes: dict[str, Callable[[random.Random], bool]] = {
            "cut-one-way": network.cut_one_way,
            "isolate": network.isolate,
            "deaf": network.deafen,
            "mute": network.mute,
            "partition": network.partition,
            "bridge": network.bridge,
            "swizzle": network.swizzle,
            "noise": network.noise,
            "replay": network.replay,
            "kill": machine.kill,
            "power-loss": machine.lose_power,
            "crash-point": machine.crash_at_point,
            "crash-many": machine.crash_many,
            "long-outage": machine.long_outage,
            "pause": machine.pause,
            "slow-disk": machine.slow_disk,
            "full-disk": machine.full_disk,
            "io-error": machine.io_error,
            "bit-flip": machine.flip_bit,
            "clock-jump": machine.jump_clock,
            "clock-drift": machine.drift_clock,
            "join": lambda chance: operator.join(),
            "remove": lambda chance: self._remove(operator, chance, leader=False),
            "remove-leader": lambda chance: self._remove(operator, chance, leader=True),
            "transfer": lambda chance: self._transfer(operator, chance),
        }
        self._kinds = arena.site.options.kinds
        if self._kinds:
            first_us = 700 * MS if arena.site.options.calm_start else 50 * MS
            arena.site.scheduler.after(first_us, self._strike)

    def stop(self) -> None:
        self._stopped = True

    def strike(self, kind: str, chance: random.Random) -> bool:
        """One fault of this kind, now; False if there is nobody to do it to."""
        if not self._strikes[kind](chance):
            return False
        self._arena.site.coverage[kind] += 1
        return True

    def _strike(self) -> None:
        if self._stopped:
            return
        number = self._next_number
        self._next_number += 1
        chance = random.Random(f"fault {self._seed} {number}")
        kind = chance.choice(self._kinds)
        gap_us = int(chance.expovariate(1 / self._arena.site.options.gap_us))
        if number not in self._without:
            self._arena.site.trace.note(f"fault {number}: {kind}")
            if self.strike(kind, chance):
                self.struck.append(number)
        self._arena.site.scheduler.after(min(gap_us, 2000 * MS), self._strike)

    def _remove(self, operator: Operator, chance: random.Random, *, leader: bool) -> bool:
        leading = self._arena.leader
        if not leader:
            return operator.remove(chance.choice(self._arena.members))
        return leading is not None and operator.remove(leading.id)

    def _transfer(self, operator: Operator, chance: random.Random) -> bool:
        leading = self._arena.leader
        if leading is None:
            return False
        others = [voter for voter in self._arena.members if voter != leading.id]
        return bool(others) and operator.transfer(leading, chance.choice(others))
