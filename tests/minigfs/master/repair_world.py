"""Chunkservers as repair sees them: they hold replicas, good or bad, and do what they are told."""

from collections.abc import Callable
from dataclasses import dataclass, field

from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master import commands
from minigfs.master.heartbeat_messages import CopyOrder, CopyReport, Heartbeat, ReplicaReport
from minigfs.master.membership import Membership
from minigfs.master.repair import RepairLimits, Repairs
from minigfs.master.state import Chunk
from tests.minigfs.master.harness import Driver

__all__ = ["Disk", "RepairWorld", "server_id"]

LENGTH_BYTES = 1000
BEAT_MS = 500


def server_id(number: int) -> ChunkserverId:
    return ChunkserverId(f"s{number}")


@dataclass
class Disk:
    """One chunkserver: whether each replica it holds is good."""

    server: ChunkserverId
    host: str
    rack: str = ""
    alive: bool = True
    pid: int = 1
    capacity_bytes: int = 1_000_000
    free_bytes: int = 900_000
    held: dict[ChunkHandle, bool] = field(default_factory=dict)
    new: set[ChunkHandle] = field(default_factory=set)
    gone: set[ChunkHandle] = field(default_factory=set)
    copied: list[CopyReport] = field(default_factory=list)
    orders: tuple[CopyOrder, ...] = ()
    owes_full: bool = True
    report: int = 0


class RepairWorld:
    """A leading master's repair, its log, and the servers; time passes by ``run``."""

    def __init__(
        self,
        server_count: int,
        *,
        goal: int = 3,
        limits: RepairLimits | None = None,
        hosts: int | None = None,
    ) -> None:
        self.driver = Driver()
        self.goal = goal
        self.limits = limits or RepairLimits()
        self.now_ms = 1_000_000
        self.disks = {
            server_id(n): Disk(server=server_id(n), host=f"h{n % (hosts or server_count)}")
            for n in range(server_count)
        }
        self.orders_seen: list[CopyOrder] = []
        self.copies_fail = False
        self.speaks: Callable[[], bool] = lambda: True  # whether a server's heartbeat is sent now
        self.elect()
        self.run(3)

    @property
    def state(self):
        return self.driver.state

    @property
    def handles(self) -> list[ChunkHandle]:
        return sorted(self.state.chunks)

    def chunk(self, handle: ChunkHandle) -> Chunk:
        return self.state.chunks[handle]

    def elect(self) -> None:
        """Another master leads: all that is soft is gone."""
        self.membership = Membership()
        self.repairs = Repairs(self.membership, began_ms=self.now_ms, limits=self.limits)

    def write(self, replicas: tuple[int, ...], goal: int | None = None) -> ChunkHandle:
        """A published file of one chunk, acknowledged by these servers."""
        goal = goal or self.goal
        servers = tuple(server_id(n) for n in replicas)
        created = self.driver.apply(commands.CreateFile(6, "/hint", False, goal))
        assert isinstance(created, commands.FileCreated)
        allocated = self.driver.apply(commands.AllocateChunks(7, created.file_id, 0, (servers,)))
        assert isinstance(allocated, commands.ChunksAllocated)
        (handle,) = allocated.handles
        sealed = commands.SealedReplicas(handle, LENGTH_BYTES, handle * 7, servers)
        path = f"/f{created.file_id}"
        self.driver.apply(commands.PublishFile(8, created.file_id, path, (sealed,), False))
        for server in servers:
            self.disks[server].held[handle] = True
            self.disks[server].new.add(handle)
        self.membership.confirm(self.chunk(handle), self.now_ms)
        self.repairs.look_at((handle,))
        return handle

    # What may happen.

    def kill(self, number: int) -> None:
        disk = self.disks[server_id(number)]
        disk.alive = False

    def revive(self, number: int) -> None:
        disk = self.disks[server_id(number)]
        if not disk.alive:
            disk.alive, disk.owes_full, disk.pid = True, True, disk.pid + 1
            disk.copied, disk.orders = [], ()

    def damage(self, number: int, handle: ChunkHandle, *, told: bool = True) -> None:
        disk = self.disks[server_id(number)]
        if handle in disk.held:
            disk.held[handle] = False
            if told:
                self.membership.mark_damaged(handle, disk.server)

    def lose(self, number: int, handle: ChunkHandle) -> None:
        disk = self.disks[server_id(number)]
        if disk.held.pop(handle, None) is not None:
            disk.new.discard(handle)
            disk.gone.add(handle)

    def decommission(self, number: int, *, undo: bool = False) -> None:
        self.driver.apply(commands.SetDraining(12, server_id(number), not undo))

    def add_server(self, number: int) -> None:
        self.disks[server_id(number)] = Disk(server=server_id(number), host=f"h{number}")

    def remove_file(self, handle: ChunkHandle) -> None:
        path = next(
            f"/{inode.name}"
            for inode in self.state.inodes.values()
            if handle in getattr(inode, "chunks", ())
        )
        self.driver.apply(commands.Remove(9, path, False))

    # Time.

    def run(self, seconds: float) -> None:
        end_ms = self.now_ms + int(seconds * 1000)
        while self.now_ms < end_ms:
            self.now_ms += BEAT_MS
            self.beat_all()
            self.turn()

    def turn(self) -> None:
        if self.repairs.wants_sweep:
            self.repairs.wants_sweep = False
            self.repairs.look_at(tuple(self.state.chunks))
        while True:
            changes = self.repairs.turn(self.state, self.now_ms)
            if changes:
                self.driver.apply(commands.AdjustReplicas(10, changes))
                self.repairs.logged(changes)
            if not self.repairs.is_busy:
                break
        forgotten = self.membership.sweep_garbage(self.state, self.now_ms)
        if forgotten:
            self.driver.apply(commands.ForgetGarbage(11, forgotten))

    def beat_all(self) -> None:
        for disk in self.disks.values():
            if disk.alive and self.speaks():
                self._carry_out(disk)
                self._beat(disk)

    def _carry_out(self, disk: Disk) -> None:
        for order in disk.orders:
            assert self.state.next_handle > order.handle
            sources = [self._at(address) for address in order.sources]
            good = disk.held.get(order.handle) or any(
                source.alive and source.held.get(order.handle) for source in sources
            )
            failure = "" if good and not self.copies_fail else "fs.corrupt: no"
            if not failure:
                disk.held[order.handle] = True
                disk.new.add(order.handle)
                disk.gone.discard(order.handle)
            disk.copied.append(
                CopyReport(handle=order.handle, version=order.version, failure=failure)
            )
        disk.orders = ()

    def _beat(self, disk: Disk) -> None:
        full = disk.owes_full
        if full:
            disk.report += 1
            disk.new, disk.gone, disk.owes_full = set(), set(), False
        named = disk.held if full else disk.new
        beat = Heartbeat(
            chunkserver_id=disk.server,
            cluster_id="c",
            address=f"{disk.server}:1",
            host=disk.host,
            rack=disk.rack,
            pid=disk.pid,
            directory="/d",
            capacity_bytes=disk.capacity_bytes,
            free_bytes=disk.free_bytes,
            chunk_count=len(disk.held),
            stored_bytes=len(disk.held) * LENGTH_BYTES,
            full=full,
            chunks=tuple(self._report(handle) for handle in sorted(named)),
            gone=tuple(sorted(disk.gone)),
            report=disk.report if full else 0,
            copied=tuple(disk.copied),
        )
        disk.new, disk.gone, disk.copied = set(), set(), []
        reply = self.membership.heartbeat(beat, self.state, self.now_ms)
        self.repairs.take_reports(disk.server, beat.copied, self.state, self.now_ms)
        strays = self.repairs.strays_to_delete(disk.server, self.state, self.now_ms)
        disk.owes_full = reply.send_full_report
        for handle in (*reply.delete, *strays):
            self._delete(disk, handle)
        disk.orders = self.repairs.orders_for(disk.server)
        self.orders_seen += disk.orders

    def _delete(self, disk: Disk, handle: ChunkHandle) -> None:
        was_good = disk.held.pop(handle, False)
        disk.new.discard(handle)
        disk.gone.add(handle)
        if handle in self.state.chunks and was_good:
            assert self.good(handle), "the last good replica of a live chunk was deleted"

    def _report(self, handle: ChunkHandle) -> ReplicaReport:
        chunk = self.state.chunks.get(handle)
        version = 1 if chunk is None else chunk.version
        return ReplicaReport(handle=handle, version=version, length_bytes=LENGTH_BYTES)

    def _at(self, address: str) -> Disk:
        return self.disks[ChunkserverId(address.removesuffix(":1"))]

    # What can be seen.

    def good(self, handle: ChunkHandle) -> list[ChunkserverId]:
        """The servers with a good replica, whoever knows of it."""
        return [disk.server for disk in self.disks.values() if disk.held.get(handle)]

    def is_whole(self, handle: ChunkHandle) -> bool:
        """Whether the set has as many good replicas as are asked for, and nobody else has any."""
        replicas = set(self.chunk(handle).replicas)
        holders = {disk.server for disk in self.disks.values() if handle in disk.held}
        return len(replicas) == self.goal and replicas == holders == set(self.good(handle))

    def fill(self, number: int) -> None:
        disk = self.disks[server_id(number)]
        disk.free_bytes = 10_000

    def relabel(self, number: int, **labels: str) -> None:
        disk = self.disks[server_id(number)]
        for name, value in labels.items():
            setattr(disk, name, value)
