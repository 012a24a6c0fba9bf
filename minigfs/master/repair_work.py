"""The turns of repair on a leading master: decided in ``repair``, logged and answered here.

A turn takes a few milliseconds. While there is much to look at, turns follow each other with short
pauses, in which the master serves others; otherwise there are a few a second. A sweep looks at all
chunks, a slice in each turn: after a server has said what it has, and soon after an election. It
begins with what lies in the trash, which is repaired after what lives.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice

from msgspec.structs import replace as with_fields

from minigfs.errors import MinigfsError
from minigfs.ids import ChunkHandle
from minigfs.master import commands
from minigfs.master.handle_set import HandleSet
from minigfs.master.heartbeat_messages import Heartbeat, HeartbeatReply
from minigfs.master.release import let_go
from minigfs.master.repair import LOOKS_MAX, Repairs
from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.master.trash import chunks_in_trash
from minigfs.ports import Clock

__all__ = ["RepairWork", "with_repair_orders"]

logger = logging.getLogger(__name__)

TURN_MS = 200
BUSY_PAUSE_MS = 10  # as long as a turn takes, or longer: repair leaves the master half of its time
RETRY_MS = 1_000
SWEEP_AGAIN_MS = 300_000  # for what no event has told


class RepairWork:
    """Belongs to the event loop, and to one tenure."""

    def __init__(
        self,
        repairs: Repairs,
        clock: Clock,
        state: Callable[[], FileSystemState],
        propose: Callable[[commands.Command], Awaitable[object]],
    ) -> None:
        self._repairs = repairs
        self._clock = clock
        self._state = state
        self._propose = propose
        self._swept: list[FileSystemState] = []
        self._unswept: Iterator[ChunkHandle] = iter(())
        self._in_trash: Iterator[ChunkHandle | None] | None = None
        self._removed = HandleSet()
        self._next_sweep_ms = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            pause_ms = TURN_MS
            try:
                self._sweep_on()
                await self.turn()
            except MinigfsError as error:
                logger.warning("repair is put off: %s", error)
                pause_ms = RETRY_MS
            except Exception:  # a mistake of ours with one chunk must not end it for all
                logger.exception("repair failed")
                pause_ms = RETRY_MS
            else:
                if self._swept or self._repairs.is_busy:
                    pause_ms = BUSY_PAUSE_MS
            await asyncio.sleep(pause_ms / 1000)

    async def turn(self) -> None:
        """Decide, and log what was decided."""
        changes = self._repairs.turn(self._state(), self._clock.monotonic_ms())
        if changes:
            await self._propose(commands.AdjustReplicas(self._clock.now_ms(), changes))
            self._repairs.logged(changes)

    def _sweep_on(self) -> None:
        """Have the next slice of a sweep looked at, or begin one that is due."""
        now_ms = self._clock.monotonic_ms()
        if not self._swept and (self._repairs.wants_sweep or now_ms >= self._next_sweep_ms):
            self._repairs.wants_sweep = False
            self._next_sweep_ms = now_ms + SWEEP_AGAIN_MS
            self._swept = [self._state()]
            self._unswept = iter(self._swept[0].chunks)
            self._in_trash, self._removed = chunks_in_trash(self._swept[0]), HandleSet()
        if self._in_trash is not None:
            met = list(islice(self._in_trash, LOOKS_MAX))
            self._removed.update(handle for handle in met if handle is not None)
            if not met:
                self._repairs.removed, self._in_trash = self._removed, None
        elif self._swept and not self._repairs.has_unseen:  # news come all the time
            part = list(islice(self._unswept, LOOKS_MAX - 1))  # so that one turn sees its end
            self._repairs.look_at(part)
            if not part:
                self._unswept = iter(())
                swept, self._swept = self._swept, []
                asyncio.get_running_loop().run_in_executor(None, let_go, swept, self._state)


async def with_repair_orders(
    reply: HeartbeatReply,
    beat: Heartbeat,
    tenure: Tenure,
    state: Callable[[], FileSystemState],
    confirm: Callable[[], Awaitable[None]],
) -> HeartbeatReply:
    """The answer to a heartbeat with what repair wants of the server.

    Before anything of a live chunk is deleted or set aside, ``confirm`` makes sure that no other
    master leads: that one might have logged meanwhile that it counts on what is here.
    """
    repairs, server = tenure.repairs, tenure.membership.server(beat.chunkserver_id)
    repairs.take_reports(beat.chunkserver_id, beat.copied, state(), tenure.now_ms)
    delete, set_aside = reply.delete, reply.set_aside
    if server is not None and (server.strays or server.ahead):
        await confirm()
        delete += repairs.strays_to_delete(beat.chunkserver_id, state(), tenure.now_ms)
        set_aside = tenure.membership.set_aside_orders(server, state())
    return with_fields(
        reply,
        copy=repairs.orders_for(beat.chunkserver_id),
        delete=delete,
        set_aside=set_aside,
    )
