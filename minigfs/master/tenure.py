"""What a leading master knows beyond the log: soft state, made when it begins to lead and dropped
when it ends.

It is learnt from heartbeats within moments: chunkservers notice by themselves that another master
leads. Until then nothing is held against anybody: an open writer gets a full lease, a replica
counts as present until its server says otherwise, and placement waits a moment for the servers.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from msgspec.structs import replace as with_fields

from minigfs.errors import NotLeader
from minigfs.ids import ChunkHandle, ChunkserverId, FileId
from minigfs.master.catalogue import CatalogueFeed
from minigfs.master.copy_book import RepairLimits
from minigfs.master.health import HealthTally
from minigfs.master.heartbeat_messages import Heartbeat, HeartbeatReply
from minigfs.master.history import TenureMark, contains, newest_position
from minigfs.master.membership import Membership, Server
from minigfs.master.messages import (
    HOLD_MS,
)
from minigfs.master.placement import Candidate
from minigfs.master.release import let_go
from minigfs.master.repair import Repairs
from minigfs.master.spare_files import SpareFiles
from minigfs.master.state import Chunk, FileSystemState
from minigfs.master.writers import WriterLeases
from minigfs.ports import Clock
from minigfs.transport.address import Address
from minigfs.transport.control_server import ControlConnection, current_connection

__all__ = ["HEALTH_SLICE_CHUNKS", "PLACEMENT_GRACE_MS", "REPORT_GRACE_MS", "Tenure"]

REPORT_GRACE_MS = 10_000  # a chunkserver heartbeats twice a second, and may be slow
PLACEMENT_GRACE_MS = 1_500  # two heartbeats: better wait than write everything to one server
logger = logging.getLogger(__name__)

HEALTH_SLICE_CHUNKS = 1_000  # a few milliseconds of the event loop


class Tenure:
    """Belongs to the event loop on which one master leads for one term."""

    def __init__(self, clock: Clock, term: int, limits: RepairLimits) -> None:
        self.membership = Membership()
        self.leases = WriterLeases()  # of temporary files
        self.append_leases = WriterLeases()  # of open files
        self.catalogue = CatalogueFeed(term)
        self.spares = SpareFiles()
        self._clock = clock
        self._began_ms = clock.monotonic_ms()
        self._server_joined = asyncio.Event()
        self._over = asyncio.Event()
        self._tally: asyncio.Task[HealthTally] | None = None
        self._watched: dict[tuple[ControlConnection, str], Callable[[], None]] = {}
        self.strangers: dict[ChunkserverId, Address] = {}  # have seen a history that is not ours
        self.repairs = Repairs(
            self.membership, began_ms=self._began_ms, limits=limits, barred=self.strangers
        )

    @property
    def now_ms(self) -> int:
        return self._clock.monotonic_ms()

    @property
    def may_still_report(self) -> bool:
        """Whether a chunkserver that was not heard of yet may just be slow."""
        return self.now_ms - self._began_ms < REPORT_GRACE_MS

    @property
    def alive_count(self) -> int:
        return self.membership.alive_count(self.now_ms)

    def candidates(self, state: FileSystemState) -> list[Candidate]:
        """The live servers that chunks may be put on: none that is to be emptied, or would not
        obey."""
        return [
            candidate
            for candidate in self.membership.candidates(self.now_ms)
            if candidate.chunkserver_id not in state.draining
            and candidate.chunkserver_id not in self.strangers
        ]

    def end(self) -> None:
        """Let go whoever waits, and what would keep this in memory: connections outlive it."""
        self._over.set()
        self._server_joined.set()
        for (connection, _), ended in self._watched.items():
            connection.not_at_end(ended)
        self._watched.clear()

    def server_spoke(self) -> None:
        self._server_joined.set()

    def touch_writer(self, file_id: FileId, holder: str = "") -> None:
        self.leases.renew(file_id, self.now_ms, holder)
        self._watch(holder)

    def touch_appender(self, file_id: FileId, holder: str = "") -> None:
        self.append_leases.renew(file_id, self.now_ms, holder)
        self._watch(holder)

    def _watch(self, holder: str) -> None:
        """A process may end before its first ``HoldWriters``: the connection on which it opens a
        writer tells of its end as well."""
        connection = current_connection()
        if not holder or connection is None or self._over.is_set():
            return
        if (connection, holder) in self._watched:
            return

        def ended() -> None:
            del self._watched[connection, holder]
            self._let_go(holder, cut_off=True)

        self._watched[connection, holder] = ended
        self._hold(holder)
        connection.at_end(ended)

    def _hold(self, holder: str) -> None:
        self.leases.hold(holder)
        self.append_leases.hold(holder)

    def _let_go(self, holder: str, *, cut_off: bool) -> None:
        self.leases.let_go(holder, self.now_ms, cut_off=cut_off)
        self.append_leases.let_go(holder, self.now_ms, cut_off=cut_off)

    async def hold_writers(self, holder: str) -> None:
        """Wait, for a process with open writers. ``NotLeader`` when the tenure is over."""
        self._hold(holder)
        cut_off = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(HOLD_MS / 1000):
                    await self._over.wait()
            cut_off = False
        finally:
            self._let_go(holder, cut_off=cut_off)
        if self._over.is_set():
            raise NotLeader("this master leads no more: ask the others")

    def under_history(
        self,
        beat: Heartbeat,
        reply: HeartbeatReply,
        marks: Sequence[TenureMark],
        commit_index: int,
    ) -> HeartbeatReply:
        """The reply with what makes a chunkserver obey it; without orders, if it has seen a
        history that is not this master's."""
        if beat.seen is None or contains(marks, beat.seen, commit_index):
            self.strangers.pop(beat.chunkserver_id, None)
            batch = self.catalogue.batch(
                beat.chunkserver_id, beat.catalogue_stamp, now_ms=self.now_ms
            )
            newest = newest_position(marks, commit_index)
            return with_fields(reply, position=newest, confirms=beat.seen, catalogue=batch)
        if beat.chunkserver_id not in self.strangers:
            self.strangers[beat.chunkserver_id] = beat.address
            logger.error(
                "chunkserver %s has seen term %d, entry %d, which are not in this master's log: "
                "was this master started from an old copy of its directory? It gets no orders",
                beat.address,
                beat.seen.term,
                beat.seen.index,
            )
        return HeartbeatReply(send_full_report=reply.send_full_report, delete=())

    def published(self, chunk: Chunk) -> None:
        """A writer has the acknowledgement of every replica of a chunk."""
        self.membership.confirm(chunk, self.now_ms)
        self.repairs.published(chunk)

    def damage_reported(self, handle: ChunkHandle, chunkserver_id: ChunkserverId) -> None:
        """A reader met wrong bytes, or none; it may be waiting for right ones."""
        self.membership.mark_damaged(handle, chunkserver_id)
        self.repairs.boost(handle)

    async def wait_for_servers(self, count: int) -> None:
        """Early in a tenure, give ``count`` chunkservers the time to say that they are there."""
        while self.alive_count < count and await self.wait_for_one_more():
            pass

    async def wait_for_servers_of(
        self, state: Callable[[], FileSystemState], handles: Sequence[ChunkHandle]
    ) -> None:
        """An earlier leader may have chosen servers for these chunks that this one has yet to
        hear of: their writer is to have all of them."""
        for handle in handles:
            while (chunk := state().chunks.get(handle)) is not None:
                known = self.membership.servers(chunk.replicas)
                if len(known) == len(chunk.replicas) or not await self.wait_for_one_more():
                    break
        if self._over.is_set():
            raise NotLeader("this master leads no more: ask the others")

    def servers_to_write(self, chunk: Chunk) -> Sequence[Server]:
        """All servers of a new chunk, though none can have said that it holds it. If an earlier
        leader chose some that never called on this one: none, so that its writer asks anew."""
        known = self.membership.servers(chunk.replicas)
        return known if len(known) == len(chunk.replicas) else ()

    async def wait_for_one_more(self) -> bool:
        """Wait for some chunkserver to speak; False once that is no longer to be expected."""
        left_ms = self._began_ms + PLACEMENT_GRACE_MS - self.now_ms
        if left_ms <= 0 or self._over.is_set():
            return False
        self._server_joined.clear()
        try:
            async with asyncio.timeout(left_ms / 1000):
                await self._server_joined.wait()
        except TimeoutError:
            return False
        return not self._over.is_set()

    async def tally(self, state: Callable[[], FileSystemState]) -> HealthTally:
        """Count all chunks. Who asks while a count is under way waits for that one: where there
        are many, it takes longer than a client waits before it asks again."""
        if self._tally is None or self._tally.done():
            self._tally = asyncio.create_task(self._count(state), name="tally")
        return await asyncio.shield(self._tally)

    async def _count(self, state: Callable[[], FileSystemState]) -> HealthTally:
        """In slices, between which other calls are answered."""
        tally = HealthTally()
        counted = [state()]
        left = iter(counted[0].chunks.values())
        while part := list(islice(left, HEALTH_SLICE_CHUNKS)):
            now_ms = self.now_ms
            for chunk in part:
                tally.add(chunk, self.membership, now_ms)
            await asyncio.sleep(0)
        del left
        asyncio.get_running_loop().run_in_executor(None, let_go, counted, state)
        return tally
