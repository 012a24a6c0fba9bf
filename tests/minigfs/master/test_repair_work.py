"""The sweep of all chunks goes on, a slice a turn, whatever else there is to look at."""

import pytest

from minigfs.ids import ChunkHandle
from minigfs.master import commands
from minigfs.master.repair import LOOKS_MAX
from minigfs.master.repair_work import RepairWork
from tests.minigfs.master.repair_world import RepairWorld
from tests.stepped_clock import SteppedClock

FIRST_SWEPT = 1 << 20  # what servers speak of lies below


class Sweep:
    """Of a million chunks that the state does not have: to look at one costs nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = RepairWorld(2, goal=2)
        self.looked_at: list[ChunkHandle] = []
        monkeypatch.setattr(self.world.repairs, "_look", self._look)
        self.world.repairs.wants_sweep = False
        clock = SteppedClock(self.world.now_ms)
        self.work = RepairWork(self.world.repairs, clock, lambda: self.world.state, self._propose)
        self.work._next_sweep_ms = 1 << 62
        self.work._swept = [self.world.state]
        self.work._unswept = iter(map(ChunkHandle, range(FIRST_SWEPT, 2 * FIRST_SWEPT)))

    def _look(self, _chunk: object, handle: ChunkHandle, _now_ms: int) -> None:
        self.looked_at.append(handle)

    async def _propose(self, _command: commands.Command) -> None:
        """Nothing is decided here."""

    def turn(self) -> None:
        self.work._sweep_on()
        self.world.repairs.turn(self.world.state, self.world.now_ms)


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    return Sweep(monkeypatch)


def test_every_turn_has_something_to_look_at(sweep: Sweep) -> None:
    for _ in range(20):
        sweep.turn()
    assert len(sweep.looked_at) > 19 * (LOOKS_MAX - 1)


def test_it_goes_on_while_servers_have_news_all_the_time(sweep: Sweep) -> None:
    for turn in range(20):
        sweep.world.membership.news.append(ChunkHandle(turn))
        sweep.turn()
    swept = [handle for handle in sweep.looked_at if handle >= FIRST_SWEPT]
    assert len(swept) > 9 * (LOOKS_MAX - 1)
