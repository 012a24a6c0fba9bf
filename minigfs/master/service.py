"""Answers every request of ``minigfs.master.messages``: the file system as a hosted service.

Changes are proposed to the replicated log and answered when applied; reads are answered from the
state as it is. Liveness of chunkservers and writers is soft: it is learnt again after a start, when
every open writer gets a full lease and every chunkserver is asked what it holds.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from minigfs.config import FileSystemConfig
from minigfs.errors import (
    InvalidConfig,
    IsDirectory,
    MinigfsError,
    UsageError,
    error_from_wire,
)
from minigfs.ids import FileId
from minigfs.master import commands
from minigfs.master.health import HealthTally
from minigfs.master.listing import find_page, list_page, status_of
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.membership import Membership, Server
from minigfs.master.messages import (
    AllocateChunks,
    Allocated,
    ClusterReport,
    Created,
    CreateFile,
    DiscardFile,
    EntryKind,
    FileStatus,
    Find,
    GetClusterReport,
    Heartbeat,
    HeartbeatReply,
    ListDirectory,
    Listing,
    Locate,
    Located,
    LocatedChunk,
    MakeDirectory,
    MasterReport,
    OpenSession,
    PublishFile,
    Remove,
    Removed,
    Rename,
    RenewWriters,
    Replica,
    ReportDamage,
    SessionOpened,
    Stat,
)
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.options import MasterOptions
from minigfs.master.placement import choose_replica_sets
from minigfs.master.state import Chunk, FileInode, FileSystemState
from minigfs.master.transition import get_temporary
from minigfs.master.writers import WriterLeases
from minigfs.ports import Clock, Rng
from minigfs.replication.commands import (
    SESSIONS_MACHINE,
    decode_session_id,
    encode_session_command,
)
from minigfs.replication.commands import OpenSession as OpenSessionCommand
from minigfs.replication.host import Machine, ReplicatedHost
from minigfs.replication.sessions import SessionTable
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Request

__all__ = ["FileSystemService"]

logger = logging.getLogger(__name__)

TICK_MS = 1_000
CREATIONS_HALVED_TICKS = 10
REPORT_GRACE_MS = 10_000  # after a start: a chunkserver heartbeats every second, and may be slow
PLACEMENT_GRACE_MS = 3_000  # after a start: better wait than write everything to one server
CHUNKS_PER_REQUEST_MAX = 4_096
HEALTH_SLICE_CHUNKS = 2_000  # a few milliseconds of the event loop

_ReplyT = TypeVar("_ReplyT", bound=commands.CommandReply)


class FileSystemService:
    """See ``process.HostedService``. ``start`` wants the log replayed."""

    def __init__(
        self, config: FileSystemConfig, options: MasterOptions, clock: Clock, rng: Rng
    ) -> None:
        self._config = config
        self._options = options
        self._clock = clock
        self._rng = rng
        self._machine = FileSystemMachine()
        self._sessions = SessionTable()
        self._membership = Membership()
        self._server_joined = asyncio.Event()
        self._leases = WriterLeases()
        self._host: ReplicatedHost | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._started_ms = 0

    @property
    def machines(self) -> Mapping[str, Machine]:
        return {FILE_SYSTEM_MACHINE: self._machine, SESSIONS_MACHINE: self._sessions}

    @property
    def machine(self) -> FileSystemMachine:
        """For a second machine in the same log, whose compound entries touch this one."""
        return self._machine

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {
            OpenSession: self._open_session,
            Stat: self._stat,
            ListDirectory: self._list,
            Find: self._find,
            Locate: self._locate,
            MakeDirectory: self._make_directory,
            CreateFile: self._create,
            AllocateChunks: self._allocate,
            PublishFile: self._publish,
            DiscardFile: self._discard,
            RenewWriters: self._renew,
            Rename: self._rename,
            Remove: self._remove,
            ReportDamage: self._report_damage,
            Heartbeat: self._heartbeat,
            GetClusterReport: self._report,
        }

    async def start(self, host: ReplicatedHost) -> None:
        """Configure a new file system, or check that an old one is the one we were told of."""
        self._host = host
        self._started_ms = self._clock.monotonic_ms()
        known = self._state.config
        if known is None:
            configure = commands.Configure(self._clock.now_ms(), self._config)
            await self._propose(configure, commands.Done)
        elif known != self._config:
            raise InvalidConfig(
                f"{self._options.directory} holds a file system with {known}, and was started "
                f"with {self._config}: give the values it was made with, or another directory"
            )
        self._ticker = asyncio.create_task(self._tick_for_ever(), name="file-system-tick")

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])

    @property
    def _state(self) -> FileSystemState:
        return self._machine.state

    async def _propose(self, command: commands.Command, expected: type[_ReplyT]) -> _ReplyT:
        """The reply of an applied command; a refusal is raised as the error it names."""
        assert self._host is not None
        encoded = commands.encode_command(command)
        reply = commands.decode_reply(await self._host.propose(FILE_SYSTEM_MACHINE, encoded))
        if isinstance(reply, commands.Refused):
            raise error_from_wire(reply.code, reply.message)
        assert isinstance(reply, expected)
        return reply

    async def _open_session(self, request: OpenSession) -> SessionOpened:
        assert self._host is not None
        command = encode_session_command(OpenSessionCommand())
        reply = await self._host.propose(SESSIONS_MACHINE, command)
        return SessionOpened(session_id=decode_session_id(reply))

    # Reads.

    async def _stat(self, request: Stat) -> FileStatus:
        return status_of(request.path, get_inode(self._state, split_path(request.path)))

    async def _list(self, request: ListDirectory) -> Listing:
        return list_page(self._state, request.path, request.start_after, request.limit)

    async def _find(self, request: Find) -> Listing:
        return find_page(self._state, request.path, request.start_after, request.limit)

    async def _locate(self, request: Locate) -> Located:
        state = self._state
        inode = get_inode(state, split_path(request.path))
        if not isinstance(inode, FileInode):
            raise IsDirectory(f"{request.path} is a directory: it has no chunks")
        first = max(request.first_index, 0)
        end = first + max(0, min(request.count, CHUNKS_PER_REQUEST_MAX))
        now_ms = self._clock.monotonic_ms()
        return Located(
            status=status_of(request.path, inode),
            chunk_bytes=state.chunk_bytes,
            chunks=tuple(
                self._located(
                    state.chunks[handle],
                    first + i,
                    self._membership.replicas_to_read(state.chunks[handle], now_ms),
                )
                for i, handle in enumerate(inode.chunks[first:end])
            ),
        )

    def _located(self, chunk: Chunk, index: int, servers: Sequence[Server]) -> LocatedChunk:
        return LocatedChunk(
            handle=chunk.handle,
            version=chunk.version,
            index=index,
            length_bytes=chunk.length_bytes,
            digest=chunk.digest,
            replicas=tuple(
                Replica(
                    chunkserver_id=server.chunkserver_id,
                    address=server.last_heartbeat.address,
                    host=server.last_heartbeat.host,
                )
                for server in servers
            ),
        )

    # Changes of the tree.

    async def _make_directory(self, request: MakeDirectory) -> Empty:
        command = commands.MakeDirectory(
            self._clock.now_ms(), request.path, request.parents, request.exist_ok
        )
        await self._propose(command, commands.Done)
        return Empty()

    async def _rename(self, request: Rename) -> Empty:
        command = commands.Rename(
            self._clock.now_ms(), request.source, request.target, request.replace
        )
        await self._propose(command, commands.Done)
        return Empty()

    async def _remove(self, request: Remove) -> Removed:
        command = commands.Remove(self._clock.now_ms(), request.path, request.recursive)
        reply = await self._propose(command, commands.EntriesRemoved)
        return Removed(file_count=reply.file_count, directory_count=reply.directory_count)

    # Writing a file.

    async def _create(self, request: CreateFile) -> Created:
        goal = self._config.replication if request.replication is None else request.replication
        command = commands.CreateFile(self._clock.now_ms(), request.path, request.exclusive, goal)
        reply = await self._propose(command, commands.FileCreated)
        self._touch(reply.file_id)
        return Created(
            file_id=reply.file_id, chunk_bytes=self._config.chunk_bytes, replication=goal
        )

    async def _allocate(self, request: AllocateChunks) -> Allocated:
        if not 1 <= request.count <= CHUNKS_PER_REQUEST_MAX:
            raise UsageError(f"1 to {CHUNKS_PER_REQUEST_MAX} chunks at once, not {request.count}")
        self._touch(request.file_id)
        goal = get_temporary(self._state, request.file_id).replication
        await self._wait_for_servers(goal)
        replica_sets = choose_replica_sets(
            self._membership.candidates(self._clock.monotonic_ms()),
            count=request.count,
            replication=goal,
            draw_u64=self._rng.random_u64,
            excluded=request.excluded,
        )
        self._membership.note_creations(replica_sets)
        command = commands.AllocateChunks(
            self._clock.now_ms(), request.file_id, request.first_index, replica_sets
        )
        reply = await self._propose(command, commands.ChunksAllocated)
        state = self._state
        chunks = [state.chunks.get(handle) for handle in reply.handles]
        return Allocated(
            chunks=tuple(
                # All of its servers, though none of them can have said that it holds the chunk.
                self._located(
                    chunk, request.first_index + i, self._membership.servers(chunk.replicas)
                )
                for i, chunk in enumerate(chunks)
                if chunk is not None  # another request of the same writer abandoned it already
            )
        )

    async def _wait_for_servers(self, goal: int) -> None:
        """Right after a start, give chunkservers the time to say that they are there."""
        while True:
            now_ms = self._clock.monotonic_ms()
            left_ms = self._started_ms + PLACEMENT_GRACE_MS - now_ms
            if left_ms <= 0 or self._membership.alive_count(now_ms) >= goal:
                return
            self._server_joined.clear()
            try:
                await asyncio.wait_for(self._server_joined.wait(), left_ms / 1000)
            except TimeoutError:
                return

    async def _publish(self, request: PublishFile) -> FileStatus:
        self._touch(request.file_id)
        sealed = tuple(
            commands.SealedReplicas(c.handle, c.length_bytes, c.digest, c.replicas)
            for c in request.chunks
        )
        command = commands.PublishFile(
            self._clock.now_ms(), request.file_id, request.path, sealed, request.exclusive
        )
        reply = await self._propose(command, commands.FilePublished)
        now_ms = self._clock.monotonic_ms()
        for seal in sealed:
            chunk = self._state.chunks.get(seal.handle)
            if chunk is not None:  # else the file was removed in the same batch of the log
                self._membership.confirm(chunk, now_ms)
        return FileStatus(
            path=reply.path,
            file_id=request.file_id,
            kind=EntryKind.FILE,
            size_bytes=reply.size_bytes,
            created_ms=reply.created_ms,
            modified_ms=reply.modified_ms,
            replication=reply.replication,
            chunk_count=reply.chunk_count,
            digest=reply.digest,
        )

    async def _discard(self, request: DiscardFile) -> Empty:
        if request.file_id in self._state.temporary:
            command = commands.DiscardFiles(self._clock.now_ms(), (request.file_id,))
            await self._propose(command, commands.Done)
        return Empty()

    async def _renew(self, request: RenewWriters) -> Empty:
        for file_id in request.file_ids:
            self._touch(file_id)
        return Empty()

    def _touch(self, file_id: FileId) -> None:
        """A writer was heard of."""
        if file_id in self._state.temporary:
            self._leases.renew(file_id, self._clock.monotonic_ms())

    # Chunkservers, and the state of the whole.

    async def _heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        if request.cluster_id != self._config.cluster_id:
            raise InvalidConfig(
                f"chunkserver {request.chunkserver_id} belongs to cluster {request.cluster_id!r}, "
                f"this is {self._config.cluster_id!r}: give it this cluster's master, "
                "or an empty directory"
            )
        reply = self._membership.heartbeat(request, self._state, self._clock.monotonic_ms())
        self._server_joined.set()
        return reply

    async def _report_damage(self, request: ReportDamage) -> Empty:
        logger.warning(
            "chunk %d on chunkserver %s is damaged: %s",
            request.handle,
            request.chunkserver_id,
            request.reason,
        )
        self._membership.mark_damaged(request.handle, request.chunkserver_id)
        return Empty()

    async def _report(self, request: GetClusterReport) -> ClusterReport:
        tally = await self._tally()
        state, now_ms = self._state, self._clock.monotonic_ms()
        word, reasons = tally.verdict(
            alive_count=self._membership.alive_count(now_ms),
            replication=self._config.replication,
            may_still_report=now_ms - self._started_ms < REPORT_GRACE_MS,
        )
        return ClusterReport(
            cluster_id=self._config.cluster_id,
            chunk_bytes=self._config.chunk_bytes,
            replication=self._config.replication,
            health=word,
            reasons=reasons,
            masters=self._masters(),
            elections=0,
            chunkservers=self._membership.report(now_ms),
            file_count=state.file_count,
            directory_count=state.directory_count,
            chunk_count=len(state.chunks),
        )

    async def _tally(self) -> HealthTally:
        """Count in slices between which other calls are answered; the state counted is one."""
        tally = HealthTally()
        chunks = iter(self._state.chunks.values())
        while part := list(islice(chunks, HEALTH_SLICE_CHUNKS)):
            now_ms = self._clock.monotonic_ms()
            for chunk in part:
                tally.add(chunk, self._membership, now_ms)
            await asyncio.sleep(0)
        return tally

    def _masters(self) -> tuple[MasterReport, ...]:
        assert self._host is not None
        return tuple(
            MasterReport(
                id=member.member_id,
                role=member.role,
                term=member.term,
                pid=os.getpid(),
                address=member.address,
                dir=str(self._options.directory),
                commit_index=member.commit_index,
            )
            for member in self._host.members()
        )

    # What happens by itself.

    async def _tick_for_ever(self) -> None:
        tick_count = 0
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            tick_count += 1
            if tick_count % CREATIONS_HALVED_TICKS == 0:
                self._membership.halve_creations()
            try:
                await self._tick()
            except MinigfsError as error:
                # A full disk refuses changes; what is due now is due again at the next tick.
                logger.warning("housekeeping is put off: %s", error)

    async def _tick(self) -> None:
        """Discard files whose writers are gone, and see to garbage."""
        now_ms = self._clock.monotonic_ms()
        expired = self._leases.expired(self._state.temporary, now_ms)
        if expired:
            logger.info("discarding %d files whose writers are gone", len(expired))
            discard = commands.DiscardFiles(self._clock.now_ms(), expired)
            await self._propose(discard, commands.Done)
        forgotten = self._membership.sweep_garbage(self._state, now_ms)
        if forgotten:
            forget = commands.ForgetGarbage(self._clock.now_ms(), forgotten)
            await self._propose(forget, commands.Done)
