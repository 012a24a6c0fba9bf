"""The end of an open chunk: what is left of it is chosen, logged, and told to its members.

::

    freeze the members --> choose what to keep (``leases``) --> SealChunk in the log
                       --> tell those who have it what they keep; the others hear of it by heartbeat

Sealing is safe at any time, and whoever seals: a frozen member takes no more, and the log takes one
end of a chunk and no second.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from minigfs.errors import Busy, NotEnoughChunkservers, WriterFenced
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master import commands
from minigfs.master.append_messages import FinalizeChunk, FreezeChunk, FrozenReplica
from minigfs.master.chunkserver_calls import ChunkserverCalls
from minigfs.master.leases import agreeing, deciding, enough_answers, length_to_keep
from minigfs.master.membership import Server
from minigfs.master.state import Chunk, FileSystemState
from minigfs.master.suspects import Suspects
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock
from minigfs.transport.address import Address

__all__ = ["Propose", "Sealing", "addresses_of", "propose_soon"]

logger = logging.getLogger(__name__)

FREEZE_MS = 700  # a member that hangs costs a writer this much, and its own try before
DRAIN_MS = 300  # for the mutation that is under way at the primary
FINALIZE_MS = 5_000  # syncs, perhaps of much; who misses it hears of it by a heartbeat
FINALIZE_WAIT_MS = 700  # how much of that an appender waits
RECENT_MS = 2_000  # four heartbeats: who is silent for longer is not waited for
SEAL_MS_MAX = 8_000  # then whoever asked hears that it cannot be done now
GIVEN_UP_MAX = 10_000  # whoever tried to append to one asks within seconds
_RETRY_S = 0.1

_ReplyT = TypeVar("_ReplyT", bound=commands.CommandReply)


class Propose(Protocol):
    async def __call__(self, command: commands.Command, expected: type[_ReplyT]) -> _ReplyT: ...


async def propose_soon(
    propose: Propose, clock: Clock, command: commands.Command, expected: type[_ReplyT]
) -> _ReplyT:
    """Propose, once the file is not being cloned."""
    until_ms = clock.monotonic_ms() + SEAL_MS_MAX
    while True:
        try:
            return await propose(command, expected)
        except Busy:
            if clock.monotonic_ms() > until_ms:
                raise
            await asyncio.sleep(_RETRY_S)


def addresses_of(servers: list[Server]) -> dict[ChunkserverId, Address]:
    return {server.chunkserver_id: server.last_heartbeat.address for server in servers}


class Sealing:
    """Belongs to the event loop of a master, and to one term of leadership."""

    def __init__(
        self,
        *,
        clock: Clock,
        calls: ChunkserverCalls,
        suspects: Suspects,
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
        propose: Propose,
    ) -> None:
        self._clock = clock
        self._calls = calls
        self._suspects = suspects
        self._state = state
        self._leading = leading
        self._propose = propose
        self._telling: set[asyncio.Task[None]] = set()
        self._given_up: dict[ChunkHandle, None] = {}  # sealed with nothing in them, latest last

    def end(self) -> None:
        for task in self._telling:
            task.cancel()

    def is_given_up(self, handle: ChunkHandle) -> bool:
        """Whether it is known to have been sealed with nothing in it."""
        return handle in self._given_up

    async def seal(self, file_id: FileId, handle: ChunkHandle) -> None:
        """Return when the log says what is left of an open chunk, and its members were told."""
        until_ms = self._clock.monotonic_ms() + SEAL_MS_MAX
        while True:
            chunk = self._state().chunks.get(handle)
            if self._state().open_files.get(file_id) != handle:
                return
            if chunk is None:  # its file was removed
                await self._propose_seal(file_id, handle, None, 0, 0, ())
                return
            if await self._try_to_seal(file_id, chunk):
                return
            if self._clock.monotonic_ms() > until_ms:
                raise NotEnoughChunkservers(
                    f"chunk {handle:x} cannot be sealed: too few of the chunkservers that have it "
                    "answer; see `status`, and start those that are missing"
                )
            await asyncio.sleep(_RETRY_S)

    async def _try_to_seal(self, file_id: FileId, chunk: Chunk) -> bool:
        tenure = self._leading()
        while len(self._members(chunk)) < len(chunk.replicas):
            if not await tenure.wait_for_one_more():  # this master may have led for a moment only
                break
        members = addresses_of(self._members(chunk))
        primary = chunk.replicas[0]
        if primary in members and not any(self._suspects.includes(tenure, i) for i in members):
            # The primary first: then no mutation is under way, and all members have the same.
            await self._freeze(chunk, {primary: members[primary]}, 0)
        answers = await self._freeze(chunk, members, 0)
        if not enough_answers(len(chunk.replicas), answers, self._live_count(chunk)):
            return False
        length_bytes, digest = length_to_keep(answers), 0
        replicas: tuple[ChunkserverId, ...] = ()
        if length_bytes:
            sure = deciding(answers).items()
            able = {i: members[i] for i, a in sure if a.length_bytes >= length_bytes}
            sized = await self._freeze(chunk, able, length_bytes)
            digests = {i: answer.digest for i, answer in sized.items() if answer.is_here}
            if len(digests) < len(able) and len(digests) < 2:
                return False
            replicas, digest = agreeing(chunk.replicas, digests)
            if len(replicas) < len(digests):
                logger.error("chunk %x: replicas differ: %s", chunk.handle, digests)
        await self._propose_seal(file_id, chunk.handle, chunk, length_bytes, digest, replicas)
        if length_bytes:
            await self._finalize(chunk.handle, members)
        else:
            self._note_given_up(chunk.handle)
        return True

    def _note_given_up(self, handle: ChunkHandle) -> None:
        self._given_up[handle] = None
        while len(self._given_up) > GIVEN_UP_MAX:
            del self._given_up[next(iter(self._given_up))]

    def _members(self, chunk: Chunk) -> list[Server]:
        return self._leading().membership.servers(chunk.replicas)

    def _live_count(self, chunk: Chunk) -> int:
        """How many members were heard of a moment ago."""
        now_ms = self._clock.monotonic_ms()
        return sum(now_ms - s.last_heard_ms <= RECENT_MS for s in self._members(chunk))

    async def _freeze(
        self, chunk: Chunk, members: Mapping[ChunkserverId, Address], length_bytes: int
    ) -> dict[ChunkserverId, FrozenReplica]:
        freeze = FreezeChunk(
            handle=chunk.handle,
            version=chunk.version,
            length_bytes=length_bytes,
            drain_ms=DRAIN_MS,
        )
        answers, errors = await self._calls.ask_all(members, freeze, timeout_ms=FREEZE_MS)
        for chunkserver_id, error in errors.items():
            logger.warning("chunk %x: %s does not answer: %s", chunk.handle, chunkserver_id, error)
            self._suspects.add(chunkserver_id)
        return answers

    async def _propose_seal(
        self,
        file_id: FileId,
        handle: ChunkHandle,
        chunk: Chunk | None,
        length_bytes: int,
        digest: int,
        replicas: tuple[ChunkserverId, ...],
    ) -> None:
        version = ChunkVersion(0) if chunk is None else chunk.version
        command = commands.SealChunk(
            self._clock.now_ms(), file_id, handle, version, length_bytes, digest, replicas
        )
        with suppress(WriterFenced):  # sealed already, by the leader before us
            await propose_soon(self._propose, self._clock, command, commands.Done)

    async def _finalize(
        self, handle: ChunkHandle, members: Mapping[ChunkserverId, Address]
    ) -> None:
        """Tell the replicas what the log says. Those that do not hear it ask by heartbeat."""
        chunk = self._state().chunks.get(handle)
        if chunk is None or chunk.is_open:
            return
        order = FinalizeChunk(
            handle=handle,
            version=chunk.version,
            length_bytes=chunk.length_bytes,
            digest=chunk.digest,
        )
        tenure = self._leading()
        tenure.published(chunk)
        kept = {i: members[i] for i in chunk.replicas if i in members}
        telling = asyncio.create_task(self._tell(kept, order))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.wait([telling], timeout=FINALIZE_WAIT_MS / 1000)

    async def _tell(self, members: Mapping[ChunkserverId, Address], order: FinalizeChunk) -> None:
        _, errors = await self._calls.ask_all(members, order, timeout_ms=FINALIZE_MS)
        for i, error in errors.items():
            logger.warning("chunk %x: not sealed on %s yet: %s", order.handle, i, error)
