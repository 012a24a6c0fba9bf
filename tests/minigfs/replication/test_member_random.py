"""Whole members under chance: what was acknowledged is there, once, on every member.

Small and quick; the simulator (``tests.sim``) does this at length and with more kinds of faults.
"""

import random

import pytest

from minigfs.errors import MinigfsError
from minigfs.ids import Origin
from minigfs.raft import NodeId
from minigfs.replication.commands import OpenSession, decode_session_id, encode_session_command
from minigfs.replication.durable_log import LogSettings
from minigfs.replication.jobs import Lane
from minigfs.replication.member import MemberSettings, Ticket
from tests.minigfs.replication.hub import SESSIONS, Hub, Seat

SETTINGS = MemberSettings(
    snapshot_every_entries=15,
    keep_entries=3,
    keep_entries_max=60,
    piece_bytes=300,
    pieces_in_flight=2,
    reserve_bytes=2_048,
    apply_entries_max=4,
)


class Client:
    """Asks one request after the other, each until it is answered, always under its origin."""

    def __init__(self, session: bytes) -> None:
        self._session_id = decode_session_id(session)
        self.sequence = 0
        self.acknowledged: list[bytes] = []
        self._asked: tuple[Seat, int, Ticket] | None = None

    @property
    def command(self) -> bytes:
        return b"%d-%d " % (self._session_id, self.sequence) + bytes(self.sequence % 50)

    def work(self, hub: Hub, chance: random.Random) -> None:
        if self._asked is not None:
            seat, life, ticket = self._asked
            outcome = seat.outcomes.get(ticket)
            is_hopeless = seat.is_down or seat.lives != life or chance.random() < 0.02
            if outcome is None and not is_hopeless:
                return
            self._asked = None
            if outcome is not None and outcome.error is None:
                self.acknowledged.append(self.command)
                self.sequence += 1
        seats = [seat for seat in hub.alive if seat.member.is_leader]
        if seats:
            seat = chance.choice(seats)
            origin = Origin(self._session_id, self.sequence, self.sequence)
            ticket = hub.ticket()
            try:
                seat.member.propose("list", self.command, origin, ticket)
            except MinigfsError:
                return
            self._asked = (seat, seat.lives, ticket)


class Storm:
    """One seed's faults: each is drawn, lasts a while, and goes."""

    def __init__(self, hub: Hub, seed: int) -> None:
        self.hub = hub
        self.chance = random.Random(seed)
        self.loss = self.chance.choice([0.0, 0.05, 0.3])
        self.cut: set[tuple[NodeId, NodeId]] = set()
        hub.is_lost = lambda message: (
            (message.source, message.target) in self.cut or self.chance.random() < self.loss
        )

    def blow(self) -> None:
        chance, seats = self.chance, list(self.hub.seats.values())
        seat = chance.choice(seats)
        match chance.randrange(8):
            case 0 if len(self.hub.alive) == len(seats):
                seat.disk.crash_by_chance(DiskDice(chance))
                seat.is_down = True
            case 1 | 2:
                for down in seats:
                    if down.is_down:
                        down.start()
            case 3:
                other = chance.choice(seats)
                self.cut.add((seat.id, other.id))
            case 4:
                self.cut.clear()
            case 5:
                seat.held = {chance.choice(list(Lane))}
            case 6:
                seat.held = set()
                seat.disk.resize(1 << 24)
            case 7 if chance.random() < 0.3:
                seat.disk.resize(seat.disk.used_bytes() + chance.randrange(4_000))

    def calm(self) -> None:
        self.cut.clear()
        self.loss = 0.0
        for seat in self.hub.seats.values():
            seat.held = set()
            seat.disk.resize(1 << 24)
            if seat.is_down:
                seat.start()


class DiskDice:
    """Chance for a disk, drawn from the storm's."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def random_u64(self) -> int:
        return self._chance.getrandbits(64)

    def uniform_ms(self, low: int, high: int) -> int:
        return self._chance.randint(low, high)


def turn(hub: Hub, chance: random.Random) -> None:
    """Deliver some of what is under way, in any order; now and then twice; then a tick or none."""
    messages, hub.in_flight = hub.in_flight, []
    chance.shuffle(messages)
    for message in messages:
        fate = chance.random()
        if fate < 0.2:
            hub.in_flight.append(message)  # later
        if fate > 0.15:
            hub.deliver(message)
    for seat in hub.alive:
        if chance.random() < 0.5:
            seat.member.tick()
        hub.pump(seat)


@pytest.mark.parametrize("seed", range(24))
def test_what_was_acknowledged_is_there_once_whatever_happens(seed: int) -> None:
    hub = Hub(settings=SETTINGS, log_settings=LogSettings(segment_bytes=8_192))
    clients = []
    for _ in range(3):
        session = hub.ask(encode_session_command(OpenSession()), machine=SESSIONS)
        assert isinstance(session, bytes)
        clients.append(Client(session))
    storm = Storm(hub, seed)
    for _ in range(600):
        turn(hub, storm.chance)
        for client in clients:
            client.work(hub, storm.chance)
        if storm.chance.random() < 0.08:
            storm.blow()
    storm.calm()
    for _ in range(60):
        hub.tick()
        for client in clients:
            client.work(hub, storm.chance)
    commands = hub.converge(ticks_max=600)
    assert len(commands) == len(set(commands)), "nothing is done twice"
    for client in clients:
        assert client.acknowledged, "a calm group answers"
        mine = [command for command in commands if command in set(client.acknowledged)]
        assert mine == client.acknowledged, "all of it, in the order asked"
