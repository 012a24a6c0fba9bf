"""Whole members in one process: real logs on simulated disks, and a hub between them.

Jobs run at once unless their lane is held; messages wait in ``in_flight`` until they are delivered.
Everything is deterministic.
"""

import random
from collections.abc import Callable, Iterator

from minigfs.errors import MinigfsError, NotLeader
from minigfs.ids import Origin
from minigfs.raft import Configuration, NodeId, RaftConfig
from minigfs.replication.commands import SESSIONS_MACHINE
from minigfs.replication.durable_log import DurableLog, LogSettings
from minigfs.replication.jobs import Job, Lane
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.member import Member, MemberSettings, Outcome, Ticket
from minigfs.replication.peer_messages import (
    PeerMessage,
    decode_peer_message,
    encode_peer_message,
)
from tests.sim.disk import SimDisk

LIST = "list"


class ListMachine:
    """Remembers every command; the reply is how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def freeze(self) -> Iterator[bytes]:
        return iter(tuple(self.commands))

    def restore(self, records: Iterator[bytes]) -> None:
        self.commands = list(records)


class Dice:
    """An ``Rng`` that a test can repeat."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def random_u64(self) -> int:
        return self._random.getrandbits(64)

    def uniform_ms(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Seat:
    """One member's place: its disk outlives its lives."""

    def __init__(
        self,
        name: str,
        founding: Configuration,
        settings: MemberSettings,
        log_settings: LogSettings,
        disk_bytes: int,
    ) -> None:
        self.id = NodeId(name)
        self.disk = SimDisk(disk_bytes)
        self.settings = settings
        self.log_settings = log_settings
        self.lives = 0
        self.now_ms = 1_000
        self.held: set[Lane | str] = set()  # lanes, or names of jobs
        self.jobs: list[Job] = []
        self.outcomes: dict[Ticket, Outcome] = {}
        self.is_down = False
        DurableLog.create(
            self.disk, "", member_id=self.id, configuration=founding, settings=log_settings
        ).close()
        self.start()

    def start(self) -> None:
        """Begin a life from what the disk holds."""
        self.lives += 1
        self.is_down = False
        self.jobs = []
        self.machine = ListMachine()
        self.machines = ReplicatedMachines({LIST: self.machine})
        self.log = DurableLog.open(self.disk, "", settings=self.log_settings)
        self.member = Member(
            config=RaftConfig(node_id=self.id, incarnation=self.lives),
            log=self.log,
            machines=self.machines,
            rng=Dice(self.lives + int.from_bytes(self.id.encode(), "big")),
            now_ms=lambda: self.now_ms,
            settings=self.settings,
        )

    def crash(self) -> None:
        """What was not synced is gone; so are outcomes nobody gave."""
        self.is_down = True
        self.disk.crash()

    def run_jobs(self) -> bool:
        """Run what no test holds back; whether there was anything."""
        runnable = [job for job in self.jobs if not self.held & {job.lane, job.name}]
        for job in runnable:
            self.jobs.remove(job)
            try:
                job.run()
            except Exception as error:
                self.member.failed(job, error)
            else:
                self.member.done(job)
        return bool(runnable)


class Hub:
    """Members and the network between them."""

    def __init__(
        self,
        names: str = "abc",
        *,
        settings: MemberSettings | None = None,
        log_settings: LogSettings | None = None,
        disk_bytes: int = 1 << 24,
    ) -> None:
        self._settings = settings or MemberSettings()
        self._log_settings = log_settings or LogSettings(segment_bytes=64 * 1024)
        self._disk_bytes = disk_bytes
        self.founding = Configuration(voters=tuple(NodeId(name) for name in names))
        self.seats: dict[NodeId, Seat] = {}
        self.in_flight: list[PeerMessage] = []
        self.is_lost: Callable[[PeerMessage], bool] = lambda message: False
        self.sent: list[PeerMessage] = []
        self._next_ticket = 1
        for name in names:
            self.add(name, self.founding)

    def add(self, name: str, founding: Configuration | None = None) -> Seat:
        """A member's process; by default one that knows nobody yet."""
        seat = Seat(
            name,
            founding or Configuration(),
            self._settings,
            self._log_settings,
            self._disk_bytes,
        )
        self.seats[seat.id] = seat
        return seat

    def __getitem__(self, name: str) -> Seat:
        return self.seats[NodeId(name)]

    @property
    def alive(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if not seat.is_down]

    # Events

    def pump(self, seat: Seat) -> None:
        """All that is due at one member, jobs included."""
        while True:
            due = seat.member.due()
            for message in due.messages:
                self.sent.append(message)
                self.in_flight.append(message)
            seat.jobs.extend(due.jobs)
            for outcome in due.outcomes:
                assert outcome.ticket not in seat.outcomes, "an outcome comes once"
                seat.outcomes[outcome.ticket] = outcome
            if not seat.run_jobs() and not due.more:
                return

    def deliver(self, message: PeerMessage) -> None:
        seat = self.seats.get(message.target)
        if seat is not None and not seat.is_down and not self.is_lost(message):
            seat.member.receive(decode_peer_message(encode_peer_message(message)))

    def run(self, rounds_max: int = 2_000) -> None:
        """Until nothing is due any more."""
        for _ in range(rounds_max):
            for seat in self.alive:
                self.pump(seat)
            if not self.in_flight:
                return
            messages, self.in_flight = self.in_flight, []
            for message in messages:
                self.deliver(message)
        raise AssertionError("the group does not come to rest")

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for seat in self.alive:
                seat.member.tick()
            self.run()

    # Faults

    def isolate(self, *names: str) -> None:
        self.is_lost = lambda message: message.source in names or message.target in names

    def heal(self) -> None:
        self.is_lost = lambda message: False

    def crash(self, name: str) -> None:
        self[name].crash()

    def restart(self, name: str) -> None:
        self[name].start()

    # What a test does

    def leader(self, ticks_max: int = 100) -> Seat:
        """The one that leads for certain, once there is one."""
        for _ in range(ticks_max):
            leaders = [seat for seat in self.alive if seat.member.leads_for_certain]
            if leaders:
                return max(leaders, key=lambda seat: seat.member.term)
            self.tick()
        raise AssertionError("nobody leads")

    def follower(self) -> Seat:
        leader = self.leader()
        return next(seat for seat in self.alive if seat is not leader)

    def ticket(self) -> Ticket:
        self._next_ticket += 1
        return Ticket(self._next_ticket)

    def propose(
        self,
        seat: Seat,
        command: bytes,
        *,
        origin: Origin | None = None,
        machine: str = LIST,
    ) -> Ticket:
        ticket = self.ticket()
        seat.member.propose(machine, command, origin, ticket)
        return ticket

    def ask(
        self,
        command: bytes,
        *,
        origin: Origin | None = None,
        machine: str = LIST,
    ) -> bytes | MinigfsError:
        """Propose at the leader and let the group work until there is an outcome."""
        for _ in range(50):
            seat = self.leader()
            try:
                ticket = self.propose(seat, command, origin=origin, machine=machine)
            except NotLeader:
                self.tick()
                continue
            return self.outcome(seat, ticket)
        raise AssertionError("no leader takes it")

    def outcome(self, seat: Seat, ticket: Ticket, ticks_max: int = 60) -> bytes | MinigfsError:
        self.run()
        for _ in range(ticks_max):
            if ticket in seat.outcomes:
                break
            self.tick()
        outcome = seat.outcomes[ticket]
        if outcome.error is not None:
            return outcome.error
        assert outcome.reply is not None
        return outcome.reply

    def converge(self, ticks_max: int = 200) -> list[bytes]:
        """Let all living members apply the same; what that is."""
        for _ in range(ticks_max):
            indexes = {seat.member.applied_index for seat in self.alive}
            commits = {seat.member.commit_index for seat in self.alive}
            if len(indexes | commits) == 1:
                break
            self.tick()
        states = [seat.machine.commands for seat in self.alive]
        assert all(state == states[0] for state in states), "machines differ"
        assert len({seat.member.applied_index for seat in self.alive}) == 1, "some are behind"
        return states[0]


SESSIONS = SESSIONS_MACHINE
