"""What happens to single machines: they die, stall, and their disks and clocks fail them."""

import errno
import random

from tests.sim.arena import Arena
from tests.sim.process import Process
from tests.sim.scheduler import MS, SECOND
from tests.sim.setting import CrashPoint, State

__all__ = ["MachineFaults"]


class MachineFaults:
    """Each method strikes once and says whether it could."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._scheduler = arena.site.scheduler

    def _victim(self, chance: random.Random) -> Process | None:
        leader = self._arena.leader
        if leader is not None and chance.random() < 0.4:
            return leader
        up = self._arena.up
        return chance.choice(up) if up else None

    # Crashes

    def kill(self, chance: random.Random) -> bool:
        return self._crash(chance, power=False)

    def lose_power(self, chance: random.Random) -> bool:
        return self._crash(chance, power=True)

    def _crash(self, chance: random.Random, *, power: bool) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.crash(power=power)
        return victim is not None

    def crash_at_point(self, chance: random.Random) -> bool:
        """At the k-th disk operation, send, apply, or edge of a job from now on; sometimes while it
        makes good what a crash has left."""
        victim = self._victim(chance)
        if victim is None:
            return False
        if chance.random() < 0.3:
            victim.crash(power=True)
            victim.arm(CrashPoint.DISK, chance.randrange(1, 12), power=True)
            return True
        point = chance.choice((CrashPoint.DISK, *CrashPoint))
        count = chance.choice((1, 1, 2, 3, 5, 8, 13, 30))
        victim.arm(point, count, power=chance.random() < 0.7)
        return True

    def crash_many(self, chance: random.Random) -> bool:
        """A rack, or all of them: the power goes for everybody at once."""
        up = self._arena.up
        power = chance.random() < 0.7
        count = len(up) if chance.random() < 0.5 else chance.randrange(len(up) + 1)
        for process in chance.sample(up, count):
            process.crash(power=power)
        return count > 0

    def long_outage(self, chance: random.Random) -> bool:
        """Gone until the others have compacted what it lacks."""
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.crash(power=chance.random() < 0.5)
        victim.down_until_us = self._scheduler.now_us + chance.randrange(SECOND, 4 * SECOND)
        return True

    def pause(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is None or victim.paused:
            return False
        victim.pause()
        duration_us = chance.choice((100, 700, 1500, 3000)) * MS
        self._scheduler.after(duration_us, victim.resume_life, victim.life)
        return True

    # Disks

    def slow_disk(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.disk_factor = chance.choice((10, 50, 300))
        self._scheduler.after(chance.randrange(2 * SECOND), self._hurry, victim)
        return True

    def _hurry(self, victim: Process) -> None:
        victim.disk_factor = 1

    def full_disk(self, chance: random.Random) -> bool:
        """Others take the space; sometimes a little is left."""
        victim = self._victim(chance)
        if victim is None:
            return False
        left = chance.choice((0, 0, 1000, self._arena.site.options.segment_bytes * 2))
        victim.disk.resize(victim.disk.used_bytes() + left)
        self._scheduler.after(chance.randrange(200 * MS, 3 * SECOND), self.make_room, victim)
        return True

    def make_room(self, victim: Process) -> None:
        victim.disk.resize(self._arena.site.options.disk_bytes)

    def io_error(self, chance: random.Random) -> bool:
        """One write or sync fails for good reason or none; the process must end."""
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.io_is_failing = True
        victim.disk.fail(chance.choice(("write", "sync", "sync")), errno.EIO)
        return True

    def flip_bit(self, chance: random.Random) -> bool:
        """A bit at rest decays while the machine is off, where the group can do without it."""
        victim = self._victim(chance)
        if victim is None or victim.flipped_bits or not self._arena.can_spare(victim.id):
            return False
        if victim.id not in self._arena.members:
            return False
        victim.crash(power=True)
        return victim.state is State.DOWN and victim.decay(chance)

    # Clocks

    def jump_clock(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.clock_offset_ms += chance.choice((-3_600_000, -2000, 500, 2000, 7_200_000))
        return victim is not None

    def drift_clock(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.clock_drift_permille = chance.choice((-200, -20, 20, 200))
        return victim is not None
