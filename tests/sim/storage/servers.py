"""Machines with a chunkserver: a disk that lasts, and production processes on it that come and go.

The process is ``minigfs.chunkserver.process.Chunkserver`` itself. Its disk takes time, so other
threads get on between any two operations, and the process can be ended at any of them.
"""

import builtins
import errno
import json
import random
from collections.abc import Callable
from pathlib import Path

from minigfs.chunkserver.identity import Identity
from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.closing import ClosedOnExit
from minigfs.errors import InvalidConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ClusterId
from minigfs.master.heartbeat_messages import AheadReplica, CatalogueBatch
from minigfs.ports import Buffer, Disk, DiskFile
from minigfs.transport.security import Security
from tests.sim.clock import SimRng
from tests.sim.coverage import Coverage
from tests.sim.disk import SimDisk
from tests.sim.scheduler import MS, Scheduler
from tests.sim.storage.fibers import Fibers, Life
from tests.sim.storage.options import StorageOptions
from tests.sim.storage.wires import HostNetwork, Wires
from tests.sim.trace import Trace

__all__ = ["CLUSTER_ID", "SECURITY", "ServerMachine", "StorageSite", "chunkserver_names"]

CLUSTER_ID = "simulated"
SECURITY = Security(b"token", CLUSTER_ID)
SCRUB_BOUND_MS = 20_000


class StorageSite:
    """What everything in a storage world shares."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        options: StorageOptions,
        trace: Trace,
        coverage: Coverage,
        fibers: Fibers,
        wires: Wires,
        masters: tuple[str, ...],
    ) -> None:
        self.scheduler = scheduler
        self.options = options
        self.trace = trace
        self.coverage = coverage
        self.fibers = fibers
        self.wires = wires
        self.master_addresses = masters
        self._last_process_id = 1
        self.deleting: Callable[[str, ChunkHandle], None] = lambda server, handle: None
        """Told before a chunkserver gives up the file of a sealed chunk."""

    def life(self, name: str) -> Life:
        """A new process. In a container each has the same number as the one before."""
        self._last_process_id += 1
        number = 1 if self.options.containers else self._last_process_id
        return Life(name, number, HostNetwork(self.wires, name))


class ServerMachine:
    """``chunkserver`` is there while a process runs."""

    def __init__(self, site: StorageSite, name: str, seed: str) -> None:
        self.site = site
        self.name = name
        self.address = f"{name}:7000"
        self.chance = random.Random(seed)
        self.disk = SimDisk(site.options.disk_bytes)
        self.life: Life | None = None
        self.lives = 0
        self.chunkserver: Chunkserver | None = None
        self.disk_factor = 1
        self.crash_in: int | None = None
        """At which of the coming disk operations the machine loses power."""
        self.down_until_us = 0
        self.wounds: set[str] = set()
        """Files that were damaged on the medium."""

    @property
    def id(self) -> ChunkserverId:
        return ChunkserverId(f"id-{self.name}")

    @property
    def is_up(self) -> bool:
        return self.life is not None

    def start(self) -> None:
        if self.life is not None:
            return
        wait_us = self.down_until_us - self.site.scheduler.now_us
        if wait_us > 0:
            self.site.scheduler.after(wait_us, self.start)
            return
        self.lives += 1
        self.site.trace.note(f"{self.name} start {self.lives}")
        if self.lives > 1:
            self.site.coverage["chunkserver restarts"] += 1
        self.site.wires.came_back(self.name)
        self.life = self.site.life(self.name)
        self.site.fibers.spawn(self.life, self._serve, self.life, name="main")

    def _serve(self, life: Life) -> None:
        """As ``serve_chunkserver`` does."""
        options = ChunkserverOptions(
            directory=Path("/simulated") / self.name,
            listen=self.address,
            masters=self.site.master_addresses,
            security=SECURITY,
            host=self.name,
            insecure=True,
            scrub_bound_ms=SCRUB_BOUND_MS,
        )
        server = Chunkserver(options, disk=LifeDisk(self, life))
        _watch_deletions(self.site, self.name, server)
        try:
            server.start()
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOSPC):
                raise
            self.site.coverage["chunkservers that could not start"] += 1
        else:
            self.chunkserver = server
            server.wait_for_stop_request()
        self.site.coverage["chunkservers ended by their disk"] += 1
        self.crash(power=False)

    def crash(self, *, power: bool) -> None:
        life = self.life
        if life is None:
            return
        self.site.trace.note(f"{self.name} {'loses power' if power else 'is killed'}")
        self.site.coverage["power losses" if power else "kills"] += 1
        life.alive = False
        self.life = self.chunkserver = None
        self.crash_in = None
        if not power:
            self.disk.kill()
        elif self.chance.random() < 0.4:
            self.disk.crash()
        else:
            self.disk.crash_by_chance(SimRng(self.chance.getrandbits(64)))
        self.site.wires.died(self.name, power=power)
        delay_us = self.chance.choice((50 * MS, 300 * MS, 1500 * MS, 4000 * MS))
        self.site.scheduler.after(delay_us, self.start)
        if self.site.fibers.life is life:
            self.site.fibers.park()  # for ever

    def seen_on_disk(self) -> int:
        """Up to which entry a new process would know the masters' history; 0 for not at all."""
        if not self.disk.exists("history.json"):
            return 0
        with self.disk.open("history.json") as file:
            saved = json.loads(file.read_at(0, file.size_bytes()))
        return int(saved["index"])

    def recover(self) -> None:
        """Whatever ails the machine ends, but for damage to its files."""
        self.disk.resize(self.site.options.disk_bytes)
        self.disk.clear_faults()
        self.disk_factor = 1
        self.down_until_us = 0
        self.crash_in = None
        if self.life is not None and self.life.paused:
            self.life.resume()
        self.start()


class LifeDisk:
    """A machine's disk as one process sees it: operations take time, and end with the process."""

    def __init__(self, machine: ServerMachine, life: Life) -> None:
        self._machine = machine
        self._disk: Disk = machine.disk
        self._life = life

    def spend(self, *, changes: bool = True) -> None:
        """The time of one operation, and sometimes the end of the machine."""
        machine, fibers = self._machine, self._machine.site.fibers
        if changes and machine.crash_in is not None and self._life.alive:
            machine.crash_in -= 1
            if machine.crash_in <= 0:
                machine.site.coverage["crash at a disk operation"] += 1
                machine.crash(power=True)
        if fibers.current is not None:
            fibers.sleep_us(
                1 + machine.chance.randrange(machine.site.options.disk_us_max) * machine.disk_factor
            )

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> DiskFile:
        if create:
            self.spend()
        return LifeFile(self, self._disk.open(path, create=create, exclusive=exclusive))

    def rename(self, source: str, target: str) -> None:
        self.spend()
        self._disk.rename(source, target)

    def link(self, source: str, target: str) -> None:
        self.spend()
        self._disk.link(source, target)

    def remove(self, path: str) -> None:
        self.spend()
        self._disk.remove(path)

    def list(self, directory: str) -> builtins.list[str]:
        return self._disk.list(directory)

    def make_dirs(self, path: str) -> None:
        self._disk.make_dirs(path)

    def sync_dir(self, path: str) -> None:
        self.spend()
        self._disk.sync_dir(path)

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def size_bytes(self, path: str) -> int:
        return self._disk.size_bytes(path)

    def free_bytes(self) -> int:
        return self._disk.free_bytes()

    def capacity_bytes(self) -> int:
        return self._disk.capacity_bytes()


class LifeFile(ClosedOnExit):
    def __init__(self, disk: LifeDisk, file: DiskFile) -> None:
        self._disk = disk
        self._file = file

    def read_at(self, offset: int, length: int) -> bytes:
        self._disk.spend(changes=False)
        return self._file.read_at(offset, length)

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        data = [bytes(memoryview(buffer).cast("B")) for buffer in buffers]
        self._disk.spend()
        self._file.write_at(offset, *data)

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        self.write_at(offset, *buffers)
        self.sync()

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def truncate(self, length: int) -> None:
        self._disk.spend()
        self._file.truncate(length)

    def preallocate(self, length: int) -> None:
        self._disk.spend()
        self._file.preallocate(length)

    def write_behind(self, offset: int, length: int) -> None:
        self._file.write_behind(offset, length)

    def sync(self) -> None:
        self._disk.spend()
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class NoCatalogue:
    """Names of files for ``rescue``: a database of its own, which the simulator leaves out."""

    stored_stamp = 0

    def __init__(self, directory: Path) -> None:
        pass

    def store(self, batch: CatalogueBatch) -> None:
        pass

    def close(self) -> None:
        pass


def chunkserver_names() -> dict[str, object]:
    """What ``Chunkserver`` finds for its real directory: lock, identity and catalogue."""

    def open_identity(directory: Path, cluster_id: str) -> Identity:
        if cluster_id != CLUSTER_ID:
            raise InvalidConfig(f"not of this cluster: {cluster_id}")
        return Identity(
            chunkserver_id=ChunkserverId(f"id-{directory.name}"), cluster_id=ClusterId(cluster_id)
        )

    return {
        "lock_directory": lambda directory: -1,
        "open_identity": open_identity,
        "Catalogue": NoCatalogue,
        "_take_what_others_leave": lambda: None,
    }


def _watch_deletions(site: StorageSite, name: str, server: Chunkserver) -> None:
    """The store tells the world before it gives up a file."""
    store = server._store
    delete, set_aside = store.delete, store.set_aside

    def watched(handle: ChunkHandle, *, at_once: bool = False) -> None:
        if store.find(handle) is not None:
            site.deleting(name, handle)
        delete(handle, at_once=at_once)

    def watched_aside(order: AheadReplica) -> None:
        known = store.find(order.handle)
        if known is not None and known.version >= order.version:
            site.deleting(name, order.handle)
        set_aside(order)

    store.delete = watched  # type: ignore[method-assign]
    store.set_aside = watched_aside  # type: ignore[method-assign]
