"""What a leading master does by itself: writers that are gone, garbage, what was removed.

Each turn proposes a bounded command and then lets others have theirs, so that a tree of a million
files is taken apart, and its chunks deleted, while requests are answered as ever.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from minigfs.disk_room import short_at_bytes
from minigfs.errors import MinigfsError
from minigfs.master import commands
from minigfs.master.locating import new_places
from minigfs.master.repair_work import RepairWork
from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.master.trash import first_to_give_up, next_to_expire, trashed_count
from minigfs.ports import Clock

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

TICK_MS = 1_000
CREATIONS_HALVED_TICKS = 10
DISCARDS_MAX = 1_000  # per tick
EXPIRED_MAX = 100  # things of the trash in one step
GIVEN_UP_MAX = 10  # then, at a time: what they free shows only after a while
FOR_EVER_MS = 2**62
TRASH_INODES_MAX = 1_000_000  # files and directories; half a gigabyte of every master's memory
REAP_PAUSE_MS = 40  # between steps: taking a tree apart leaves the masters most of their time


class Housekeeping:
    """Belongs to the event loop, and to one tenure."""

    def __init__(
        self,
        tenure: Tenure,
        clock: Clock,
        state: Callable[[], FileSystemState],
        propose: Callable[[commands.Command], Awaitable[object]],
    ) -> None:
        self._tenure = tenure
        self._clock = clock
        self._state = state
        self._propose = propose

    async def run(self) -> None:
        """For ever; repair runs beside it, since it waits for nothing here."""
        repair = RepairWork(self._tenure.repairs, self._clock, self._state, self._propose)
        await asyncio.gather(self._tick_for_ever(), repair.run())

    async def _tick_for_ever(self) -> None:
        tick_count = 0
        while True:
            try:
                await self._reap_until(self._tenure.now_ms + TICK_MS)
                await self.tick()
            except MinigfsError as error:
                # A full disk refuses changes; what is due now is due again at the next tick.
                logger.warning("housekeeping is put off: %s", error)
                await asyncio.sleep(TICK_MS / 1000)
            except Exception:  # a mistake of ours in one thing must not end the care for all others
                logger.exception("housekeeping failed")
                await asyncio.sleep(TICK_MS / 1000)
            tick_count += 1
            if tick_count % CREATIONS_HALVED_TICKS == 0:
                self._tenure.membership.halve_creations()

    async def tick(self) -> None:
        """Discard files whose writers are gone or never came, empty the trash of what has expired,
        see to garbage, log where servers are, and go on with clones that nobody waits for."""
        state, now_ms = self._state(), self._tenure.now_ms
        expired = self._tenure.leases.expired(state.temporary, now_ms)[:DISCARDS_MAX]
        if expired:
            logger.info("discarding %d files whose writers are gone", len(expired))
        expired += self._tenure.spares.unwanted(now_ms)
        if expired:
            await self._propose(commands.DiscardFiles(self._clock.now_ms(), expired))
        self._tenure.catalogue.step(self._state(), now_ms)
        forgotten = self._tenure.membership.sweep_garbage(self._state(), now_ms)
        if forgotten:
            await self._propose(commands.ForgetGarbage(self._clock.now_ms(), forgotten))
        places = new_places(self._state(), self._tenure.membership.all_servers())
        if places:
            await self._propose(commands.PlaceServers(self._clock.now_ms(), places))
        await self._expire_trash()
        while self._state().cloned_ids:
            await self._propose(commands.CloneStep(self._clock.now_ms()))
            await asyncio.sleep(0)

    async def _expire_trash(self) -> None:
        while due := next_to_expire(self._state()):
            wall_ms = self._clock.now_ms()
            if due[1] > wall_ms:
                break
            await self._propose(commands.ExpireTrash(wall_ms, wall_ms, EXPIRED_MAX))
            if next_to_expire(self._state()) == due:
                break  # it is being cloned
            await asyncio.sleep(0)

        await self._shrink_trash()
        state = self._state()
        if state.trash and not state.garbage and not state.condemned and self._is_short_of_space():
            logger.warning("the disks are nearly full: what expires first in the trash is given up")
            await self._propose(
                commands.ExpireTrash(self._clock.now_ms(), FOR_EVER_MS, GIVEN_UP_MAX)
            )

    async def _shrink_trash(self) -> None:
        """What expires first goes before its time, while the trash takes too much memory."""
        while (excess := trashed_count(self._state()) - TRASH_INODES_MAX) > 0:
            due = next_to_expire(self._state())
            logger.warning("the trash holds %d files too many: the oldest are given up", excess)
            count = first_to_give_up(self._state(), excess, EXPIRED_MAX)
            await self._propose(commands.ExpireTrash(self._clock.now_ms(), FOR_EVER_MS, count))
            if next_to_expire(self._state()) == due:
                break  # it is being cloned
            await asyncio.sleep(0)

    def _is_short_of_space(self) -> bool:
        beats = [
            server.last_heartbeat
            for server in self._tenure.membership.all_servers()
            if server.is_alive(self._tenure.now_ms)
        ]
        free_bytes = sum(beat.free_bytes for beat in beats)
        return free_bytes < sum(short_at_bytes(beat.capacity_bytes) for beat in beats)

    async def _reap_until(self, until_ms: int) -> None:
        """Take apart what is condemned until the next tick, or wait for it."""
        while self._state().condemned and self._tenure.now_ms < until_ms:
            await self._propose(commands.Reap(self._clock.now_ms()))
            await asyncio.sleep(REAP_PAUSE_MS / 1000)
        await asyncio.sleep(max(until_ms - self._tenure.now_ms, 0) / 1000)
