"""The masters of a storage world: production services over a log that is taken as read.

Each master runs the production file system service, its leadership and its control server on a
loop of its own. What stands below (Raft, the log on disk) has a world of its own; here it is one
sequence of entries, and what a service can notice of it: changes of leader with what was proposed
decided either way, leaders that do not know yet that they lead no more, crashes, and a master that
was started from an old copy of its log.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from minigfs.config import FileSystemConfig
from minigfs.errors import MinigfsError, NotLeader, OutcomeUnknown
from minigfs.ids import Origin
from minigfs.master.leadership import Leadership
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.options import MasterOptions
from minigfs.master.service import FileSystemService
from minigfs.master.state import FileSystemState
from minigfs.raft import Entry
from minigfs.replication.commands import LoggedCommand, encode_logged_command
from minigfs.replication.host import ReplicatedHost
from minigfs.replication.machines import ReplicatedMachines
from minigfs.transport.control_server import ControlServer
from tests.sim.clock import SimRng
from tests.sim.scheduler import MS, SECOND
from tests.sim.storage.fibers import Life
from tests.sim.storage.loop import SimLoop
from tests.sim.storage.production import EPOCH_MS, SimSystemClock
from tests.sim.storage.servers import CLUSTER_ID, SECURITY, StorageSite
from tests.sim.violation import Violation

__all__ = ["MasterGroup", "MasterMachine"]


@dataclass(slots=True)
class Proposal:
    data: bytes
    future: "asyncio.Future[bytes]"


class MasterMachine:
    """One member; ``service`` is there while a process runs."""

    def __init__(self, site: StorageSite, group: "MasterGroup", name: str, seed: str) -> None:
        self.site = site
        self.group = group
        self.name = name
        self.address = f"{name}:7000"
        self.chance = random.Random(seed)
        self.life: Life | None = None
        self.lives = 0
        self.is_replaced = False
        """Another machine has its place: it does not start."""
        self.service: FileSystemService
        self.machines: ReplicatedMachines
        self.leading: int | None = None
        self.loop: SimLoop
        self._proposals: list[Proposal] = []
        self._watchers: list[Callable[[int | None], None]] = []
        self._leadership: Leadership

    @property
    def state(self) -> FileSystemState:
        return self.service.state

    def start(self) -> None:
        """A process that has replayed what is committed."""
        if self.life is not None or self.is_replaced:
            return
        site = self.site
        self.lives += 1
        site.trace.note(f"{self.name} start {self.lives}")
        site.wires.came_back(self.name)
        life = self.life = site.life(self.name)
        self.loop = SimLoop(site.fibers, life, self.group.unexpected)
        self._watchers, self._proposals, self.leading = [], [], None
        self.loop.run(self._make)
        self.loop.start(self._serve())

    def _make(self) -> None:
        options = MasterOptions(
            directory=Path("/simulated") / self.name,
            listen=self.address,
            security=SECURITY,
            config=self.group.config,
        )
        rng = SimRng(self.chance.getrandbits(64))
        self.service = FileSystemService(
            self.group.config, options, SimSystemClock(self.site.fibers), rng
        )
        self.machines = ReplicatedMachines(self.service.machines)
        self.catch_up()

    async def _serve(self) -> None:
        host = cast("ReplicatedHost", self)
        await self.service.attach(host)
        server = ControlServer(self.service.handlers(), SECURITY, name=self.name)
        await server.start(self.address)
        self._leadership = Leadership(host, [self.service])

    def crash(self) -> None:
        life = self.life
        if life is None:
            return
        self.site.trace.note(f"{self.name} is killed")
        self.site.coverage["master crashes"] += 1
        life.alive = False
        self.site.wires.died(self.name, power=False)
        self.group.lost(self)
        self.life = self.leading = None
        delay_us = self.chance.choice((200, 1000, 4000)) * MS
        self.site.scheduler.after(delay_us, self.start)

    def catch_up(self) -> None:
        """Apply what is committed."""
        for index in range(self.machines.applied_index + 1, len(self.group.entries) + 1):
            self.machines.apply(self.group.entries[index - 1])

    def begin_to_lead(self, term: int) -> None:
        if self.leading is not None:
            self.learn_that_it_leads_no_more(self.leading)
        self.catch_up()
        self.leading = term
        self._tell_watchers()

    def learn_that_it_leads_no_more(self, term: int) -> None:
        if self.life is None or self.leading != term:
            return
        if self.life.paused:
            self.life.hold(lambda: self.learn_that_it_leads_no_more(term))
            return
        self.leading = None
        self.loop.run(self._give_up)
        self.catch_up()

    def _give_up(self) -> None:
        self._tell_watchers()
        for proposal in self._proposals:
            if not proposal.future.done():
                proposal.future.set_exception(
                    OutcomeUnknown("this master lost leadership before the change was decided")
                )
        self._proposals.clear()

    def _tell_watchers(self) -> None:
        for watcher in self._watchers:
            self.loop.run(watcher, self.leading)

    def undecided(self, proposals: list[Proposal]) -> None:
        """Whoever waits for these is told when this master learns that it leads no more."""
        self._proposals += proposals

    def take_proposals(self) -> list[Proposal]:
        taken, self._proposals = self._proposals, []
        return taken

    # What services use of a ``ReplicatedHost``

    @property
    def commit_index(self) -> int:
        return self.machines.applied_index

    def members(self) -> tuple[Any, ...]:
        return tuple(SimpleNamespace(address=one.address) for one in self.group.machines)

    def require_leader(self) -> None:
        if self.leading is None:
            raise self._not_leader()

    def _not_leader(self) -> NotLeader:
        leader = self.group.leader
        return NotLeader("this master does not lead", leader.address if leader else "")

    def watch_leadership(self, watcher: Callable[[int | None], None]) -> None:
        self._watchers.append(watcher)
        if self.leading is not None:
            watcher(self.leading)

    async def propose(
        self,
        machine: str,
        command: bytes,
        origin: Origin | None = None,
        *,
        to_lead: bool = False,
    ) -> bytes:
        """The log has no end here, so ``to_lead`` is nothing special."""
        self.require_leader()
        now_ms = EPOCH_MS + self.site.scheduler.now_us // MS
        data = encode_logged_command(
            LoggedCommand(machine=machine, now_ms=now_ms, command=command, origin=origin)
        )
        proposal = Proposal(data, asyncio.get_running_loop().create_future())
        self._proposals.append(proposal)
        self.loop.call_later(self._round_s(), self.group.decide, self)
        return await proposal.future

    async def read_barrier(self) -> None:
        while True:
            self.require_leader()
            await asyncio.sleep(self._round_s())
            if self.group.leader is self:
                return

    def _round_s(self) -> float:
        return self.chance.randrange(1, self.site.options.commit_us_max) / SECOND


class MasterGroup:
    """The entries, and who leads. A ``fork`` of it is what an old copy believes."""

    def __init__(
        self, site: StorageSite, seed: str, unexpected: Callable[[Life, dict[str, Any]], None]
    ) -> None:
        self.site = site
        self.unexpected = unexpected
        self.chance = random.Random(seed)
        self.config = FileSystemConfig(
            cluster_id=CLUSTER_ID,
            chunk_bytes=site.options.chunk_bytes,
            replication=site.options.replication,
        )
        self.entries: list[Entry] = []
        self.term = 0
        self.leader: MasterMachine | None = None
        self.machines: list[MasterMachine] = []
        self._witness = FileSystemMachine()
        self._witnessed = ReplicatedMachines({FILE_SYSTEM_MACHINE: self._witness})

    def fork(self, entry_count: int) -> "MasterGroup":
        """A group that knows the first entries, and none of the others."""
        fork = MasterGroup(self.site, f"fork {entry_count}", self.unexpected)
        for entry in self.entries[:entry_count]:
            fork._append(entry)
        fork.term = self.term  # it may have led before
        return fork

    def state(self) -> FileSystemState:
        """What is committed."""
        return self._witness.state

    def _append(self, entry: Entry) -> bytes | MinigfsError:
        self.entries.append(entry)
        return self._witnessed.apply(entry)

    def decide(self, machine: MasterMachine) -> None:
        """What a leader has proposed so far is committed, if it still leads."""
        if self.leader is machine and machine.life is not None:
            for proposal in machine.take_proposals():
                self._commit(machine, proposal)

    def _commit(self, machine: MasterMachine, proposal: Proposal) -> None:
        entry = Entry(index=len(self.entries) + 1, term=self.term, data=proposal.data)
        expected = self._append(entry)
        answer = machine.machines.apply(entry)
        self.site.coverage["entries"] += 1
        if repr(answer) != repr(expected):
            raise Violation("replies differ", f"{entry}: {answer!r} and {expected!r}")
        if proposal.future.done():
            return
        if isinstance(answer, MinigfsError):
            proposal.future.set_exception(answer)
        else:
            proposal.future.set_result(answer)

    def elect(self, *, stale_us: int = 0) -> bool:
        """Another leader, or the same one again. What the old one has proposed is decided now, one
        way or the other; it notices ``stale_us`` later that it leads no more."""
        before = self.leader
        running = [one for one in self.machines if one.life is not None and not one.life.paused]
        if not running:
            return False
        chosen = self.chance.choice([one for one in running if one is not before] or running)
        self.lose_leader(stale_us=stale_us)
        self.term += 1
        self.leader = chosen
        self.site.coverage["elections"] += 1
        self.site.trace.note(f"{chosen.name} leads in term {self.term}")
        chosen.begin_to_lead(self.term)
        return True

    def lose_leader(self, *, stale_us: int) -> None:
        before, self.leader = self.leader, None
        if before is None or before.leading is None:
            return
        waiting = before.take_proposals()
        for proposal in waiting[: self.chance.randrange(len(waiting) + 1)]:
            # Committed by the next leader: nobody waits for its reply any more.
            self._append(Entry(index=len(self.entries) + 1, term=self.term, data=proposal.data))
        before.undecided(waiting)
        if stale_us:
            self.site.coverage["stale leaders"] += 1
            term = before.leading
            self.site.scheduler.after(stale_us, before.learn_that_it_leads_no_more, term)
        else:
            before.learn_that_it_leads_no_more(before.leading)

    def lost(self, machine: MasterMachine) -> None:
        """A process ended; if it led, another one will soon."""
        if self.leader is machine:
            self.lose_leader(stale_us=0)
            self.site.scheduler.after(self.chance.randrange(100, 900) * MS, self.ensure_leader)

    def ensure_leader(self) -> None:
        if self.leader is None and not self.elect():
            self.site.scheduler.after(200 * MS, self.ensure_leader)
