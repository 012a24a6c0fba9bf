"""Answers every request of ``minigfs.master.messages``: the file system as a hosted service.

Changes are proposed to the replicated log, under the origin their client gave them, and answered
when applied; reads are answered once leadership is confirmed, so that nobody is shown the past.
What is not in the log (``tenure``) belongs to the master that leads, as long as it does; the others
answer only reads that may be stale.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace as with_fields

from minigfs.config import FileSystemConfig
from minigfs.errors import (
    InvalidConfig,
    NotLeader,
    UsageError,
    error_from_wire,
)
from minigfs.ids import ChunkserverId, FileId, Origin
from minigfs.master import commands
from minigfs.master.appends import Appends
from minigfs.master.barrier import SharedBarrier
from minigfs.master.chunkserver_care import ChunkserverCare
from minigfs.master.examination import Examination
from minigfs.master.growth import orders_for_open_replicas
from minigfs.master.heartbeat_messages import Heartbeat, HeartbeatReply
from minigfs.master.housekeeping import Housekeeping
from minigfs.master.listing import find_page, list_page, status_of
from minigfs.master.locating import CHUNKS_PER_REQUEST_MAX, Locating
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.messages import (
    AllocateChunks,
    Allocated,
    Created,
    CreateFile,
    DiscardFile,
    FileStatus,
    Find,
    HoldWriters,
    ListDirectory,
    Listing,
    Locate,
    Located,
    OpenSession,
    PublishFile,
    RenewWriters,
    ReportDamage,
    SessionOpened,
    Stat,
)
from minigfs.master.metrics import file_system_metrics
from minigfs.master.namespace import find_inode, get_inode, split_path
from minigfs.master.options import MasterOptions
from minigfs.master.patch_service import PatchService
from minigfs.master.placement import ReplicaSets, choose_replica_sets
from minigfs.master.policy import replication_for
from minigfs.master.repair_work import with_repair_orders
from minigfs.master.reporting import Reporting
from minigfs.master.state import FileInode, FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.master.transition import get_temporary
from minigfs.master.tree_messages import CHUNKS_PER_STEP_MAX, SetReplication
from minigfs.master.tree_service import TreeService, publish_command, published_status
from minigfs.master.write_terms import WriteTermsService
from minigfs.ports import Clock, Rng
from minigfs.replication.commands import (
    SESSIONS_MACHINE,
    decode_session_id,
    encode_session_command,
)
from minigfs.replication.commands import OpenSession as OpenSessionCommand
from minigfs.replication.host import Machine, MemberStatus, ReplicatedHost
from minigfs.transport.address import Address
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Request
from minigfs.transport.metrics import Metric

__all__ = ["FileSystemService", "master_addresses"]

logger = logging.getLogger(__name__)

LARGE_REPORT_CHUNKS = 200  # of a heartbeat: from there on it is milliseconds of the loop

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
        self._tenure: Tenure | None = None
        self._proposals_count = 0
        self._creating: set[asyncio.Task[commands.FileCreated]] = set()
        self._locating = Locating(lambda: self.state, lambda: self._tenure)
        self._examination = Examination(
            lambda: self.readable(stale_ok=False), lambda: self.state, self._leading
        )
        self._reporting = Reporting(
            config,
            members=self._members,
            readable=lambda stale_ok: self.readable(stale_ok=stale_ok),
            state=lambda: self.state,
            tenure=lambda: self._tenure,
        )
        self._chunkserver_care = ChunkserverCare(
            config, clock, state=lambda: self.state, leading=self._leading, change=self._change
        )
        self._large_reports = asyncio.Lock()
        self._housekeeping: set[asyncio.Task[None]] = set()  # of this term; one that ends is let go
        self._appends = Appends(
            clock=clock,
            rng=rng,
            security=options.security,
            state=lambda: self.state,
            leading=self._leading,
            propose=self.propose,
        )
        self._patches = PatchService(clock, lambda: self.state, self._leading, self.propose)
        self._write_terms = WriteTermsService(
            clock,
            lambda: self.state,
            self._leading,
            choose=self._choose,
            allocated=self._locating.allocated,
            create=lambda command: self.propose(command, commands.SpareFilesCreated),
        )

    @property
    def machines(self) -> Mapping[str, Machine]:
        return {FILE_SYSTEM_MACHINE: self._machine}

    @property
    def machine(self) -> FileSystemMachine:
        """For a second machine in the same log, whose compound entries touch this one."""
        return self._machine

    def metrics(self) -> Iterator[Metric]:
        """See ``process.Measured``."""
        return file_system_metrics(self.state, self._tenure, self._proposals_count)

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {
            **TreeService(self, self._clock).handlers(),
            OpenSession: self._open_session,
            Stat: self._stat,
            ListDirectory: self._list,
            Find: self._find,
            Locate: self._locate,
            CreateFile: self._create,
            AllocateChunks: self._allocate,
            PublishFile: self._publish,
            DiscardFile: self._discard,
            RenewWriters: self._renew,
            HoldWriters: self._hold,
            ReportDamage: self._report_damage,
            Heartbeat: self._heartbeat,
            **self._examination.handlers(),
            **self._appends.handlers(),
            **self._patches.handlers(),
            **self._write_terms.handlers(),
            **self._reporting.handlers(),
            **self._chunkserver_care.handlers(),
        }

    async def attach(self, host: ReplicatedHost) -> None:
        self._host = host
        self._barrier = SharedBarrier(host.read_barrier)

    async def lead(self, term: int) -> None:
        """Configure a new file system, or check that an old one is the one we were told of."""
        known = self.state.config
        if known is None:
            configure = commands.Configure(self._clock.now_ms(), self._config)
            await self.propose(configure, commands.Done, to_lead=True)
        elif known != self._config:
            raise InvalidConfig(
                f"{self._options.directory} holds a file system with {known}, and was started "
                f"with {self._config}: give the values it was made with, or another directory"
            )
        begin = commands.BeginTenure(
            self._clock.now_ms(), term, self._host.commit_index + 1, self._rng.random_u64()
        )
        await self.propose(begin, commands.Done, to_lead=True)
        self._tenure = tenure = Tenure(self._clock, term, self._options.repair)
        work = Housekeeping(tenure, self._clock, lambda: self.state, self._change)
        housekeeping = asyncio.create_task(work.run(), name="housekeeping")
        self._housekeeping.add(housekeeping)
        housekeeping.add_done_callback(self._housekeeping.discard)
        self._appends.begin()
        logger.info("leading in term %d", term)

    def follow(self) -> None:
        self._appends.end()
        if self._tenure is not None:
            self._tenure.end()
            self._tenure = None
        for task in self._housekeeping:
            task.cancel()

    async def stop(self) -> None:
        self.follow()
        self._appends.close()
        await asyncio.gather(*self._housekeeping, return_exceptions=True)

    def _members(self) -> Sequence[MemberStatus]:
        return self._host.members()

    @property
    def state(self) -> FileSystemState:
        return self._machine.state

    def _leading(self) -> Tenure:
        """The soft state of this master's term; ``NotLeader`` if it does not lead (yet)."""
        self._host.require_leader()
        if self._tenure is None:
            raise NotLeader("this master is about to lead: try again")
        return self._tenure

    def require_leading(self) -> None:
        self._leading()

    async def readable(self, *, stale_ok: bool) -> None:
        """Return when the state may be shown."""
        if not stale_ok:
            self._leading()
            await self._barrier.wait()

    async def propose(
        self,
        command: commands.Command,
        expected: type[_ReplyT],
        origin: Origin | None = None,
        *,
        to_lead: bool = False,
    ) -> _ReplyT:
        """The reply of an applied command; a refusal is raised as the error it names."""
        self._proposals_count += 1
        encoded = commands.encode_command(command)
        reply = commands.decode_reply(
            await self._host.propose(FILE_SYSTEM_MACHINE, encoded, origin, to_lead=to_lead)
        )
        if isinstance(reply, commands.Refused):
            raise error_from_wire(reply.code, reply.message)
        assert isinstance(reply, expected)
        return reply

    async def _change(self, command: commands.Command) -> None:
        await self.propose(command, commands.Done)

    async def _open_session(self, request: OpenSession) -> SessionOpened:
        command = encode_session_command(OpenSessionCommand())
        reply = await self._host.propose(SESSIONS_MACHINE, command)
        return SessionOpened(session_id=decode_session_id(reply))

    # Reads.

    async def _stat(self, request: Stat) -> FileStatus:
        await self.readable(stale_ok=request.stale_ok)
        return status_of(request.path, get_inode(self.state, split_path(request.path)))

    async def _list(self, request: ListDirectory) -> Listing:
        await self.readable(stale_ok=request.stale_ok)
        return list_page(self.state, request.path, request.start_after, request.limit)

    async def _find(self, request: Find) -> Listing:
        await self.readable(stale_ok=request.stale_ok)
        return find_page(self.state, request.path, request.start_after, request.limit)

    async def _locate(self, request: Locate) -> Located:
        """Soon after an election, waits a moment for servers of chunks that would have none."""
        await self.readable(stale_ok=request.stale_ok)
        located = self._locating.locate(request)
        tenure = self._tenure
        while tenure is not None and not all(chunk.replicas for chunk in located.chunks):
            if not await tenure.wait_for_one_more():
                break
            located = self._locating.locate(request)
        return located

    # Writing a file.

    async def _create(self, request: CreateFile) -> Created:
        tenure = self._leading()
        replica_sets: ReplicaSets = ()
        if request.chunk_count:
            parts = split_path(request.path)
            goal = request.replication or replication_for(self.state, parts)
            replica_sets = await self._choose(tenure, request.chunk_count, goal)
        command = commands.CreateFile(
            self._clock.now_ms(),
            request.path,
            request.exclusive,
            request.replication or 0,
            replica_sets,
        )
        # Shielded: a writer whose connection ends now is gone, and its file is its all the same.
        creating = asyncio.create_task(self._create_for(tenure, request, command), name="create")
        self._creating.add(creating)
        creating.add_done_callback(self._created)
        reply = await asyncio.shield(creating)
        await tenure.wait_for_servers_of(lambda: self.state, reply.handles)
        return Created(
            file_id=reply.file_id,
            chunk_bytes=self._config.chunk_bytes,
            replication=reply.replication,
            chunks=self._locating.allocated(tenure, 0, reply.handles),
        )

    def _created(self, creating: asyncio.Task[commands.FileCreated]) -> None:
        self._creating.discard(creating)
        if not creating.cancelled():
            creating.exception()  # if its writer is gone, nobody else asks for it

    async def _create_for(
        self, tenure: Tenure, request: CreateFile, command: commands.CreateFile
    ) -> commands.FileCreated:
        reply = await self.propose(command, commands.FileCreated, request.origin)
        tenure.touch_writer(reply.file_id, request.holder)
        return reply

    async def _allocate(self, request: AllocateChunks) -> Allocated:
        tenure = self._leading()
        self._touch(tenure, request.file_id)
        goal = get_temporary(self.state, request.file_id).replication
        replica_sets = await self._choose(tenure, request.count, goal, request.excluded)
        command = commands.AllocateChunks(
            self._clock.now_ms(), request.file_id, request.first_index, replica_sets
        )
        reply = await self.propose(command, commands.ChunksAllocated, request.origin)
        await tenure.wait_for_servers_of(lambda: self.state, reply.handles)
        return Allocated(
            chunks=self._locating.allocated(tenure, request.first_index, reply.handles)
        )

    async def _choose(
        self, tenure: Tenure, count: int, goal: int, excluded: tuple[ChunkserverId, ...] = ()
    ) -> ReplicaSets:
        """Servers for so many new chunks."""
        if not 1 <= count <= CHUNKS_PER_REQUEST_MAX:
            raise UsageError(f"1 to {CHUNKS_PER_REQUEST_MAX} chunks at once, not {count}")
        await tenure.wait_for_servers(goal)
        self._leading()
        replica_sets = choose_replica_sets(
            tenure.candidates(self.state),
            count=count,
            replication=goal,
            draw_u64=self._rng.random_u64,
            excluded=excluded,
        )
        tenure.membership.note_creations(replica_sets)
        return replica_sets

    async def _publish(self, request: PublishFile) -> FileStatus:
        tenure = self._leading()
        self._touch(tenure, request.file_id)
        command = publish_command(request, self._clock.now_ms())
        reply = await self.propose(command, commands.FilePublished, request.origin)
        self.note_published(request)
        return published_status(request.file_id, reply)

    async def seal_below(self, path: str) -> None:
        """See ``TreeHost``."""
        await self._appends.seal_below(path)

    def note_published(self, request: PublishFile) -> None:
        tenure = self._tenure
        if tenure is not None:
            tenure.catalogue.published(self.state, request.file_id)
        for seal in request.chunks:
            chunk = self.state.chunks.get(seal.handle)
            if chunk and tenure:  # else the file was removed in the same batch of the log
                tenure.published(chunk)

    def note_moved(self, path: str) -> None:
        if self._tenure is not None:
            self._tenure.catalogue.moved(self.state, path)

    def note_replication_set(self, request: SetReplication) -> None:
        first = request.first_index
        for path in request.paths:
            inode = find_inode(self.state, split_path(path))
            if isinstance(inode, FileInode) and self._tenure is not None:
                self._tenure.repairs.look_at(inode.chunks[first : first + CHUNKS_PER_STEP_MAX])

    async def _discard(self, request: DiscardFile) -> Empty:
        self._leading()
        if request.file_id in self.state.temporary:
            command = commands.DiscardFiles(self._clock.now_ms(), (request.file_id,))
            await self.propose(command, commands.Done, request.origin)
        return Empty()

    async def _renew(self, request: RenewWriters) -> Empty:
        tenure = self._leading()
        for file_id in request.file_ids:
            self._touch(tenure, file_id, request.holder)
        return Empty()

    async def _hold(self, request: HoldWriters) -> Empty:
        await self._leading().hold_writers(request.holder)
        return Empty()

    def _touch(self, tenure: Tenure, file_id: FileId, holder: str = "") -> None:
        """A writer was heard of."""
        if file_id in self.state.temporary:
            tenure.touch_writer(file_id, holder)
        elif file_id in self.state.open_files:
            self._appends.touch(file_id, holder)

    # Chunkservers, and the state of the whole.

    async def _heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        if request.cluster_id != self._config.cluster_id:
            raise InvalidConfig(
                f"chunkserver {request.chunkserver_id} belongs to cluster {request.cluster_id!r}, "
                f"this is {self._config.cluster_id!r}: give it this cluster's master, "
                "or an empty directory"
            )
        if len(request.chunks) > LARGE_REPORT_CHUNKS:
            async with self._large_reports:  # one a turn of the loop, however many servers report
                await asyncio.sleep(0)
                tenure, reply = self._hear(request)
        else:
            tenure, reply = self._hear(request)
        reply = await with_repair_orders(
            reply, request, tenure, lambda: self.state, self._barrier.wait
        )
        seal, delete = orders_for_open_replicas(self.state, request.open_chunks)
        reply = with_fields(
            reply,
            masters=master_addresses(self._host),
            seal=seal,
            delete=(*reply.delete, *delete),
        )
        return tenure.under_history(request, reply, self.state.tenures, self._host.commit_index)

    def _hear(self, beat: Heartbeat) -> tuple[Tenure, HeartbeatReply]:
        tenure = self._leading()
        reply = tenure.membership.heartbeat(beat, self.state, tenure.now_ms)
        tenure.server_spoke()
        return tenure, reply

    async def _report_damage(self, request: ReportDamage) -> Empty:
        tenure = self._leading()
        logger.warning(
            "chunk %d on chunkserver %s is damaged: %s",
            request.handle,
            request.chunkserver_id,
            request.reason,
        )
        tenure.damage_reported(request.handle, request.chunkserver_id)
        return Empty()


def master_addresses(host: ReplicatedHost) -> tuple[Address, ...]:
    """Where the masters listen, as far as this one knows."""
    return tuple(member.address for member in host.members() if member.address)
