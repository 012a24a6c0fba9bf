"""What strikes a storage world: each mishap has a number, by which it can be left out."""

import errno
import random
from collections.abc import Callable, Collection, Sequence

from minigfs.chunkserver.store import chunk_path
from tests.sim.scheduler import MS, SECOND
from tests.sim.storage.masters import MasterGroup, MasterMachine
from tests.sim.storage.servers import ServerMachine, StorageSite
from tests.sim.storage.users import UserMachine

__all__ = ["Mishaps"]

OLD_COPY_AGE_US = 8 * SECOND
OLD_MASTER_US = 6 * SECOND


class Mishaps:
    """Strikes until ``stop``. Damage to media hits one machine of a world, at rest."""

    def __init__(
        self,
        site: StorageSite,
        group: MasterGroup,
        servers: Sequence[ServerMachine],
        users: Sequence[UserMachine],
        seed: int,
        without: Collection[int],
    ) -> None:
        self._site = site
        self._group = group
        self._servers = servers
        self._users = users
        self._seed = seed
        self._without = without
        self._next_number = 0
        self._stopped = False
        self._cuts: list[tuple[str, str]] = []
        self._old_positions: list[tuple[int, int]] = []  # (moment, entries)
        self._old_master: tuple[MasterMachine, MasterMachine] | None = None
        self.decaying = servers[seed % len(servers)]
        self.struck: list[int] = []
        self._strikes: dict[str, Callable[[random.Random], bool]] = {
            "kill": lambda chance: self._crash(chance, power=False),
            "power-loss": lambda chance: self._crash(chance, power=True),
            "crash-point": self._crash_at_point,
            "crash-many": self._crash_many,
            "pause": self._pause,
            "slow-disk": self._slow_disk,
            "full-disk": self._full_disk,
            "io-error": self._io_error,
            "bit-flip": self._flip_bit,
            "file-lost": self._lose_file,
            "isolate": self._isolate,
            "cut-one-way": self._cut_one_way,
            "reset": self._reset,
            "new-leader": lambda chance: group.elect(),
            "stale-leader": lambda chance: group.elect(stale_us=chance.randrange(4 * SECOND)),
            "master-crash": self._crash_master,
            "old-master": self._boot_old_master,
            "client-crash": self._crash_client,
        }
        site.scheduler.after(2 * SECOND, self._strike)

    def stop(self) -> None:
        """No mishaps any more, and what they did to networks and machines ends."""
        self._stopped = True
        self._end_old_master()
        for source, target in self._cuts:
            self._site.wires.mend(source, target)
        self._cuts.clear()
        for server in self._servers:
            server.recover()
        for machine in self._group.machines:
            machine.start()
        for user in self._users:
            if user.life is not None and user.life.paused:
                user.life.resume()

    def _strike(self) -> None:
        if self._stopped:
            return
        site = self._site
        self._old_positions.append((site.scheduler.now_us, len(self._group.entries)))
        number = self._next_number
        self._next_number += 1
        chance = random.Random(f"mishap {self._seed} {number}")
        site.scheduler.after(
            min(int(chance.expovariate(1 / site.options.gap_us)), 5 * SECOND), self._strike
        )
        if not site.options.kinds:
            return
        kind = chance.choice(site.options.kinds)
        if number in self._without:
            return
        site.trace.note(f"mishap {number}: {kind}")
        if self._strikes[kind](chance):
            self.struck.append(number)
            site.coverage[kind] += 1

    # Chunkservers

    def _victim(self, chance: random.Random) -> ServerMachine | None:
        up = [server for server in self._servers if server.is_up]
        return chance.choice(up) if up else None

    def _crash(self, chance: random.Random, *, power: bool) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.crash(power=power)
        return victim is not None

    def _crash_at_point(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.crash_in = chance.choice((1, 2, 3, 5, 8, 13, 20, 40))
        return victim is not None

    def _crash_many(self, chance: random.Random) -> bool:
        power = chance.random() < 0.7
        for victim in [server for server in self._servers if chance.random() < 0.7]:
            victim.crash(power=power)
        return True

    def _pause(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is None or victim.life is None or victim.life.paused:
            return False
        life = victim.life
        life.paused = True
        duration_us = chance.choice((300 * MS, 2 * SECOND, 4 * SECOND, 12 * SECOND))
        self._site.scheduler.after(duration_us, life.resume)
        return True

    def _slow_disk(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.disk_factor = chance.choice((10, 50))
        self._site.scheduler.after(chance.randrange(4 * SECOND), self._hurry, victim)
        return True

    def _hurry(self, victim: ServerMachine) -> None:
        victim.disk_factor = 1

    def _full_disk(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.disk.resize(victim.disk.used_bytes() + chance.choice((0, 5_000, 100_000)))
        room = self._site.options.disk_bytes
        self._site.scheduler.after(chance.randrange(4 * SECOND), victim.disk.resize, room)
        return True

    def _io_error(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        if victim is not None:
            victim.disk.fail(chance.choice(("write", "sync")), errno.EIO)
        return victim is not None

    # Media

    def _flip_bit(self, chance: random.Random) -> bool:
        path = self._file_to_spare(chance)
        if path is None:
            return False
        disk = self.decaying.disk
        offset = chance.randrange(disk.size_bytes(path))
        disk.flip_bit(path, offset, chance.randrange(8))
        self.decaying.wounds.add(path)
        return True

    def _lose_file(self, chance: random.Random) -> bool:
        path = self._file_to_spare(chance)
        if path is None:
            return False
        self.decaying.disk.lose_file(path)
        return True

    def _file_to_spare(self, chance: random.Random) -> str | None:
        """A sealed chunk of which another machine has a sound replica, for all that is known."""
        victim = self.decaying
        found = []
        if victim.chunkserver is None:
            return None  # it may be looking for its files just now
        for chunk in self._group.state().chunks.values():
            path = chunk_path(chunk.handle)
            if victim.chunkserver._store.find(chunk.handle) is None:
                continue
            others = [
                server
                for server in self._servers
                if server is not victim
                and server.id in chunk.replicas
                and server.disk.exists(path)
                and not chunk.is_open
                and chunk.length_bytes
            ]
            if others and victim.id in chunk.replicas and victim.disk.exists(path):
                found.append(path)
        return chance.choice(sorted(found)) if found else None

    # The network

    def _hosts(self) -> list[str]:
        machines = (*self._servers, *self._users, *self._group.machines)
        return [machine.name for machine in machines]

    def _cut(self, source: str, target: str, duration_us: int) -> None:
        self._site.wires.cut(source, target)
        self._cuts.append((source, target))
        self._site.scheduler.after(duration_us, self._mend, source, target)

    def _mend(self, source: str, target: str) -> None:
        if (source, target) in self._cuts:
            self._cuts.remove((source, target))
            self._site.wires.mend(source, target)

    def _isolate(self, chance: random.Random) -> bool:
        lonely = chance.choice([machine.name for machine in (*self._servers, *self._users)])
        duration_us = chance.choice((500 * MS, 3 * SECOND, 12 * SECOND))
        for other in self._hosts():
            if other != lonely:
                self._cut(lonely, other, duration_us)
                self._cut(other, lonely, duration_us)
        return True

    def _cut_one_way(self, chance: random.Random) -> bool:
        source, target = chance.sample(self._hosts(), 2)
        self._cut(source, target, chance.randrange(100 * MS, 5 * SECOND))
        return True

    def _reset(self, chance: random.Random) -> bool:
        self._site.wires.reset(*chance.sample(self._hosts(), 2))
        return True

    # Masters and clients

    def _crash_master(self, chance: random.Random) -> bool:
        victim = chance.choice(self._group.machines)
        if self._old_master is not None and victim is self._old_master[0]:
            return False
        victim.crash()
        return True

    def _crash_client(self, chance: random.Random) -> bool:
        victim = chance.choice(self._users)
        victim.crash()
        return True

    def _boot_old_master(self, chance: random.Random) -> bool:
        """An old copy of a master's directory is started in its place, and leads a group of its
        own; the chunkservers hear of nobody else for a while. Clients do not hear of it."""
        before_us = self._site.scheduler.now_us - OLD_COPY_AGE_US
        seen = min(server.seen_on_disk() for server in self._servers)
        # A copy that has all that some server has kept of what it saw is believed there; that is
        # the known limit of a file that is written every five seconds.
        old = [count for moment_us, count in self._old_positions if moment_us < before_us]
        old = [count for count in old if count < seen]
        replaced = chance.choice(self._group.machines)
        if self._old_master is not None or not old or replaced.life is None:
            return False
        replaced.crash()
        fork = self._group.fork(chance.choice(old))
        impostor = MasterMachine(self._site, fork, replaced.name, f"old {self._next_number}")
        fork.machines.append(impostor)
        self._old_master = (replaced, impostor)
        replaced.is_replaced = True
        for user in self._users:
            self._cut(user.name, impostor.name, OLD_MASTER_US)
            self._cut(impostor.name, user.name, OLD_MASTER_US)
        for server in self._servers:
            if chance.random() < 0.7:
                for machine in self._group.machines:
                    if machine is not replaced:
                        self._cut(server.name, machine.name, OLD_MASTER_US * 2 // 3)
            if chance.random() < 0.3:
                server.crash(power=True)
        impostor.start()
        fork.elect()
        self._site.scheduler.after(OLD_MASTER_US, self._end_old_master)
        return True

    def _end_old_master(self) -> None:
        if self._old_master is None:
            return
        replaced, impostor = self._old_master
        self._old_master = None
        impostor.is_replaced = True
        impostor.crash()
        replaced.is_replaced = False
        replaced.start()
