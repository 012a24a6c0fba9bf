"""Answers ``PrepareWrite``, and keeps temporary files ready for the writers that ask (see
``spare_files``)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from minigfs.errors import MinigfsError
from minigfs.ids import ChunkHandle
from minigfs.master import commands
from minigfs.master.membership import as_candidate
from minigfs.master.messages import Created, LocatedChunk, PrepareWrite, WriteTerms
from minigfs.master.namespace import check_can_publish, split_writable
from minigfs.master.placement import ReplicaSets
from minigfs.master.policy import replication_for
from minigfs.master.spare_files import SpareFile
from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request

__all__ = ["WriteTermsService"]

logger = logging.getLogger(__name__)

_Choose = Callable[[Tenure, int, int], Awaitable[ReplicaSets]]
_Allocated = Callable[[Tenure, int, Sequence[ChunkHandle]], tuple[LocatedChunk, ...]]
_Create = Callable[[commands.CreateSpareFiles], Awaitable[commands.SpareFilesCreated]]


class WriteTermsService:
    """Belongs to the event loop."""

    def __init__(
        self,
        clock: Clock,
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
        *,
        choose: _Choose,
        allocated: _Allocated,
        create: _Create,
    ) -> None:
        self._clock = clock
        self._state = state
        self._leading = leading
        self._choose = choose
        self._allocated = allocated
        self._create = create
        self._making: set[asyncio.Task[None]] = set()

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {PrepareWrite: self._prepare_write}

    async def _prepare_write(self, request: PrepareWrite) -> WriteTerms:
        tenure, state = self._leading(), self._state()
        parts = split_writable(request.path)
        check_can_publish(state, parts, exclusive=request.exclusive)
        goal = request.replication or replication_for(state, parts)
        spare = self._spare(tenure, goal, request.holder) if request.holder else None
        return WriteTerms(chunk_bytes=state.chunk_bytes, replication=goal, spare=spare)

    def _spare(self, tenure: Tenure, goal: int, holder: str) -> Created | None:
        """A temporary file, if there is one; others are made while its writer writes."""

        def is_usable(file: SpareFile) -> bool:
            return self._is_usable(tenure, file, goal)

        file = tenure.spares.take(goal, tenure.now_ms, is_usable)
        count = tenure.spares.to_make(goal, tenure.now_ms)
        if count:
            task = asyncio.create_task(self._make(tenure, goal, count), name="spares")
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        if file is None:
            return None
        tenure.touch_writer(file.file_id, holder)
        return Created(
            file_id=file.file_id,
            chunk_bytes=self._state().chunk_bytes,
            replication=goal,
            chunks=self._allocated(tenure, 0, (file.handle,)),
        )

    def _is_usable(self, tenure: Tenure, file: SpareFile, goal: int) -> bool:
        """Whether its chunk would be given the same servers now, or as good ones."""
        chunk = self._state().chunks.get(file.handle)
        if chunk is None or file.file_id not in self._state().temporary:
            return False
        barred = {*tenure.strangers, *self._state().draining}
        servers = tenure.membership.servers(chunk.replicas)
        return len(servers) == goal and not any(
            server.chunkserver_id in barred
            or not server.is_alive(tenure.now_ms)
            or as_candidate(server).is_full
            for server in servers
        )

    async def _make(self, tenure: Tenure, goal: int, count: int) -> None:
        files: list[SpareFile] = []
        try:
            replica_sets = await self._choose(tenure, count, goal)
            if all(len(replicas) == goal for replicas in replica_sets):
                command = commands.CreateSpareFiles(self._clock.now_ms(), goal, replica_sets)
                created = (await self._create(command)).files
                files = [SpareFile(file_id, handle, tenure.now_ms) for file_id, handle in created]
        except MinigfsError as error:  # whoever needs a file asks for one, and is told why not
            logger.debug("no files made ahead: %s", error)
        finally:
            tenure.spares.made(goal, files)
