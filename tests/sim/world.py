"""One seed's world: a group of members, its clients, its operator and its bad luck.

Three phases. In the storm faults strike while clients work, until enough messages were delivered.
Then what a run must have seen and has not yet is provoked. In the end all is healed: a commit must
come within twenty election timeouts, and all members must come to one state.
"""

import random
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import IO

from minigfs.raft import NodeId
from minigfs.raft.invariants import check_cluster
from minigfs.raft.messages import TimeoutNow
from minigfs.replication.peer_messages import PeerMessage
from tests.linearizability.history import History
from tests.sim.arena import Arena
from tests.sim.checks.histories import check_acknowledged, check_histories, check_namespace
from tests.sim.checks.jobs import JobBook
from tests.sim.checks.ledger import Ledger
from tests.sim.checks.states import StateBook
from tests.sim.clients import Client
from tests.sim.coverage import Coverage
from tests.sim.faults import FaultPlan
from tests.sim.file_clients import FileClient
from tests.sim.housekeeping import Housekeeping
from tests.sim.job_world import JobWorld
from tests.sim.message_network import MessageNetwork
from tests.sim.operators import Operator
from tests.sim.options import Options
from tests.sim.process import Process
from tests.sim.requests import Group, Requester
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.setting import Site, State
from tests.sim.trace import Trace
from tests.sim.violation import Violation

__all__ = ["Result", "World"]

ELECTION_TICKS = 10  # RaftConfig's default
LIVENESS_TIMEOUTS = 20
MEMBERS_PROVOKED_MAX = 15
STORM_US_MAX = 40 * SECOND
PROVOKE_US_MAX = 60 * SECOND
OPERATIONS_PER_CLIENT_MAX = 1_000_000
JOB_OPERATIONS = 50  # the workers' begin behind those of so many clients
BAD_LUCK_US = 10 * SECOND
JOBS_US_MAX = 120 * SECOND
HOARDS = 3
FILE_CLIENTS = 2  # so few that a history is judged quickly


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended."""

    seed: int
    violation: Violation | None
    digest: str
    coverage: Coverage
    struck: tuple[int, ...]
    last_lines: tuple[str, ...]


class World:
    """``run`` it once."""

    def __init__(
        self,
        seed: int,
        options: Options,
        *,
        without: Collection[int] = (),
        trace_file: IO[str] | None = None,
    ) -> None:
        self.seed = seed
        self.options = options
        self.scheduler = Scheduler()
        self.trace = Trace(self.scheduler, trace_file)
        self.coverage = Coverage()
        self.ledger = Ledger(self.coverage)
        self.book = StateBook(self.coverage)
        self.network = MessageNetwork(
            self.scheduler,
            random.Random(f"network {seed}"),
            options,
            self.trace,
            self.coverage,
        )
        self.network.deliver = self._deliver
        self.network.lost = self._lost
        self.job_book = JobBook(self.coverage) if options.has_jobs else None
        site = Site(
            scheduler=self.scheduler,
            options=options,
            trace=self.trace,
            coverage=self.coverage,
            network=self.network,
            ledger=self.ledger,
            book=self.book,
            jobs=self.job_book,
        )
        self.arena = Arena(site, seed)
        self.operator = Operator(self.arena, seed)
        self.faults = FaultPlan(self.arena, self.operator, seed, without)
        self.registers = History(lambda: self.scheduler.now_us)
        self.lists = History(lambda: self.scheduler.now_us)
        self._group = Group(
            scheduler=self.scheduler,
            options=options,
            trace=self.trace,
            coverage=self.coverage,
            ledger=self.ledger,
            processes=lambda: self.arena.present,
        )
        self.files = History(lambda: self.scheduler.now_us)
        self.clients: list[Requester] = []
        self.jobs: JobWorld | None = None
        if options.has_files:
            self._host_files()
        else:
            self.clients += [self._client(number) for number in range(options.clients)]
        self._timeouts_now: list[tuple[NodeId, int]] = []
        chance = random.Random(f"world {seed}")
        for process in self.arena.processes.values():
            self.scheduler.after(chance.randrange(100 * MS), process.start)

    def _client(self, number: int) -> Client:
        first = (number + 1) * OPERATIONS_PER_CLIENT_MAX
        seed = f"client {self.seed} {number}"
        return Client(self._group, self.registers, self.lists, f"c{number}", first, seed)

    def _host_files(self) -> None:
        """A client of keys, and some of files; they share what a narrow group can do."""
        options, seed = self.options, self.seed
        Housekeeping(self.scheduler, self.coverage, lambda: self.arena.up, f"housekeeping {seed}")
        self.clients.append(self._client(0))
        for number in range(1, FILE_CLIENTS + 1):
            client = FileClient(
                self._group,
                self.files,
                f"f{number}",
                (number + 1) * OPERATIONS_PER_CLIENT_MAX,
                f"file client {seed} {number}",
                hoards=HOARDS if number == 1 and options.piece_bytes >= 2048 else 0,
            )
            self.clients.append(client)
        if self.job_book is not None:
            first = JOB_OPERATIONS * OPERATIONS_PER_CLIENT_MAX
            self.jobs = JobWorld(
                self._group,
                self.job_book,
                lambda: self.arena.up,
                seed,
                first,
                OPERATIONS_PER_CLIENT_MAX,
            )

    # What connects its parts

    def _deliver(self, target: NodeId, message: PeerMessage) -> bool:
        if isinstance(message, TimeoutNow):
            self._timeouts_now.append((target, message.term))
        return self.arena.processes[target].receive(message)

    def _lost(self, source: NodeId, target: NodeId) -> None:
        process = self.arena.processes[source]
        if process.member is not None:
            process.handle(process.member.unreachable, target)

    def _count_transfers(self) -> None:
        leader_of_term = self.ledger.leader_of_term
        handed_over = {
            (target, term)
            for target, term in self._timeouts_now
            if leader_of_term.get(term + 1) == target
        }
        self.coverage["transfers"] = len(handed_over)

    # Its story

    def run(self) -> Result:
        violation: Violation | None = None
        try:
            self._storm()
            self._provoke()
            self._calm()
            self._check_end()
        except Violation as found:
            violation = found
        except Exception as found:  # of a check, or of the simulator: the other seeds go on
            at = traceback.extract_tb(found.__traceback__)[-1]
            violation = Violation(
                f"{type(found).__name__} in {at.name}", f"{at.filename}:{at.lineno}: {found}"
            )
        self._count_transfers()
        return Result(
            seed=self.seed,
            violation=violation,
            digest=self.trace.digest,
            coverage=self.coverage,
            struck=tuple(self.faults.struck),
            last_lines=tuple(self.trace.last_lines()),
        )

    def _run_until(self, condition: Callable[[], bool], within_us: int) -> bool:
        until_us = self.scheduler.now_us + within_us
        while not condition():
            if self.scheduler.now_us > until_us or not self.scheduler.step():
                return False
        return True

    def _storm(self) -> None:
        self._run_until(lambda: self.coverage["delivered"] >= self.options.events, STORM_US_MAX)

    def _provoke(self) -> None:
        """Let happen what must be in every run and was not yet in this one."""
        self._count_transfers()
        missing = self.coverage.missing()
        enough = self.coverage["delivered"] >= self.options.events
        if not missing and enough:
            return
        self.trace.note(f"provoke {missing}")
        self._heal()
        chance = random.Random(f"provoke {self.seed}")
        until_us = self.scheduler.now_us + PROVOKE_US_MAX
        while self.scheduler.now_us < until_us:
            self._count_transfers()
            missing = self.coverage.missing()
            if not missing and self.coverage["delivered"] >= self.options.events:
                return
            for name in missing:
                self._provoke_one(name, chance)
            for _ in range(10):
                self._run_until(lambda: False, 100 * MS)
                self._count_transfers()
                if not self.coverage.missing():
                    break
        raise Violation("not provoked", f"{missing}, {self.coverage['delivered']} delivered")

    def _provoke_one(self, name: str, chance: random.Random) -> None:
        if name == "crash-restarts":
            self.faults.strike("power-loss", chance)
        elif name == "changes and transfers":
            self.faults.strike("transfer", chance)
        elif name == "snapshot installs" and not self.operator.is_joining:
            leader = self.arena.leader
            if leader is not None and leader.log.first_index() > 1:
                self.operator.join(MEMBERS_PROVOKED_MAX)  # it starts with nothing

    # The end

    def _heal(self) -> None:
        """No faults any more; whoever can run runs."""
        self.faults.stop()
        self.network.heal()
        for process in list(self.arena.processes.values()):
            process.recover()

    def _calm(self) -> None:
        """Liveness: a commit within twenty election timeouts of a healed quorum, then one state."""
        self.trace.note("calm")
        self.operator.rest()
        self._heal()
        limit_us = LIVENESS_TIMEOUTS * ELECTION_TICKS * self.options.tick_us
        committed = self.ledger.commit_index
        probe = self._client(len(self.clients))
        self.clients.append(probe)
        if not self._run_until(lambda: self.ledger.commit_index > committed, limit_us):
            raise Violation(
                "no progress",
                f"no commit after {committed} in {limit_us // MS} ms: {self._states()}",
            )
        for client in self.clients:
            if client is not probe:
                client.stop()  # a narrow group serves one at a time, and not in turn
        if not self._run_until(lambda: bool(probe.acknowledged), 4 * limit_us):
            raise Violation("no progress", f"no new client is answered: {self._states()}")
        probe.stop()
        self._end_jobs()
        if not self._run_until(self._is_settled, 2 * limit_us):
            raise Violation("members do not come to one state", self._states())

    def _end_jobs(self) -> None:
        """First workers and publishers go on having bad luck; in a healed world every job ends."""
        jobs = self.jobs
        if jobs is None:
            return
        jobs.submit_no_more()
        self._run_until(lambda: jobs.is_idle, BAD_LUCK_US)
        jobs.rest()
        if not self._run_until(lambda: jobs.is_idle, JOBS_US_MAX):
            raise Violation("jobs never end", self._states())
        jobs.stop()

    def _final_members(self) -> list[Process]:
        """The live members of the final configuration."""
        members = (self.arena.processes[name] for name in self.ledger.configuration.members)
        return [process for process in members if process.state in (State.UP, State.DOWN)]

    def _is_settled(self) -> bool:
        busy: list[Requester] = [*self.clients, *(self.jobs.workers if self.jobs else ())]
        if any(client.open_requests for client in busy):
            return False
        processes = self._final_members()
        if not all(process.is_up for process in processes):
            return False
        return all(
            process.machines.applied_index == self.ledger.commit_index for process in processes
        )

    def _check_end(self) -> None:
        processes = self._final_members()
        check_cluster([process.node for process in processes])
        frozen = {process.id: b"".join(process.machines.freeze()) for process in processes}
        if len(set(frozen.values())) != 1:
            raise Violation("machines differ", f"at {self.ledger.commit_index}: {frozen}")
        acknowledged = (number for client in self.clients for number in client.acknowledged)
        check_acknowledged(acknowledged, self.book, self.ledger.commit_index)
        check_histories(self.registers, self.lists, self.coverage)
        if self.job_book is not None:
            self.job_book.check_end(processes[0].hosted.jobs.state)
        check_namespace(self.files, self.coverage)

    def _states(self) -> str:
        return "; ".join(
            f"{process.id} {process.state.value}"
            + (f" {process.node.status()}" if process.is_up else "")
            for process in self.arena.present
        )
