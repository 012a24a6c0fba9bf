"""Files that are appended to: where to append, and the end of every open chunk.

::

    client: where?      no chunk open: AppendChunk in the log, replicas installed, target told
    client: not there!  freeze the members, choose what to keep, SealChunk in the log, tell the
                        members what to keep, then a fresh chunk as above
    client: done        the last appender of a file: seal
    appender vanished, or a member died: seal, by this master itself

Each file changes in one task at a time, which ends its work whoever asked for it and whether they
still wait. What is not in the log (who appends, who did not answer) is lost with the leader; then
the next request that fails finds out anew. Sealing is safe at any time: appenders go on.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from minigfs.errors import (
    IsDirectory,
    MinigfsError,
    NotEnoughChunkservers,
    NotLeader,
)
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master import commands
from minigfs.master.append_messages import (
    AppendTarget,
    ChunkMember,
    EndAppend,
    GetAppendTarget,
    InstallChunk,
    SealFile,
    SettledChunk,
)
from minigfs.master.chunkserver_calls import ChunkserverCalls
from minigfs.master.growth import NO_CHUNK, chunk_starts, get_file
from minigfs.master.listing import status_of
from minigfs.master.membership import Server
from minigfs.master.messages import FileStatus, Replica
from minigfs.master.namespace import get_inode, path_of, split_path
from minigfs.master.placement import choose_replica_sets
from minigfs.master.sealing import Propose, Sealing, addresses_of, propose_soon
from minigfs.master.state import Chunk, FileInode, FileSystemState
from minigfs.master.suspects import Suspects
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock, Rng
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request
from minigfs.transport.security import Security

__all__ = ["Appends"]

logger = logging.getLogger(__name__)

INSTALL_MS = 1_000  # two syncs on a slow disk
OPEN_TRIES_MAX = 4
TICK_S = 1.0
CLOSES_MAX = 16  # at once; each may wait for a server that hangs


class Appends:
    """Belongs to the event loop of a master; works between ``begin`` and ``end``."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Rng,
        security: Security,
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
        propose: Propose,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._state = state
        self._leading = leading
        self._propose = propose
        self._calls = ChunkserverCalls(security)
        self._ticking: asyncio.Task[None] | None = None
        self._changing: dict[FileId, asyncio.Task[None]] = {}
        self._begin_anew()

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {
            GetAppendTarget: self._get_target,
            EndAppend: self._end_append,
            SealFile: self._seal_file,
        }

    def begin(self) -> None:
        self._begin_anew()
        self._ticking = asyncio.create_task(self._tick_for_ever(), name="appends")

    def end(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for task in self._changing.values():
            task.cancel()
        self._sealing.end()

    def close(self) -> None:
        self.end()
        self._calls.close()

    def touch(self, file_id: FileId, holder: str) -> None:
        """An appender of the file was heard of, in the process ``holder``."""
        self._leading().touch_appender(file_id, holder)

    async def seal_below(self, path: str) -> None:
        """Seal what is open at and below a path; appenders go on in fresh chunks."""
        for file_id in sorted(self._state().open_files):
            inode = self._state().inodes.get(file_id)
            where = path_of(self._state(), inode) if inode is not None else None
            if where is not None and (where == path or where.startswith(path.rstrip("/") + "/")):
                await self._close_file(file_id)

    def _begin_anew(self) -> None:
        """With what only a term of leadership knows."""
        self._appenders: dict[FileId, set[int]] = {}
        self._tried_ms: dict[FileId, int] = {}  # when a file that is due was last seen to
        self._suspects = Suspects(self._clock)
        self._sealing = Sealing(
            clock=self._clock,
            calls=self._calls,
            suspects=self._suspects,
            state=self._state,
            leading=self._leading,
            propose=self._propose,
        )

    # What is asked.

    async def _get_target(self, request: GetAppendTarget) -> AppendTarget:
        tenure = self._leading()
        file_id = request.file_id or self._published(request.path).file_id
        get_file(self._state(), file_id)  # refused now, if it is there no more
        self._appenders.setdefault(file_id, set()).add(request.appender_id)
        self.touch(file_id, request.holder)
        self._suspects.add_addresses(tenure, request.suspects)
        while True:
            await self._unchanging(file_id)
            inode = get_file(self._state(), file_id)
            handle = inode.chunks[-1] if inode.is_open else NO_CHUNK
            if handle not in (NO_CHUNK, request.after):
                return self._target(inode, request.after)
            await self._change(file_id, self._move_on(file_id, handle))

    async def _end_append(self, request: EndAppend) -> FileStatus:
        self._leading()
        appenders = self._appenders.get(request.file_id, set())
        appenders.discard(request.appender_id)
        if not appenders:
            self._appenders.pop(request.file_id, None)
            await self._close_file(request.file_id)
        inode = get_file(self._state(), request.file_id)
        return status_of(path_of(self._state(), inode) or "", inode)

    async def _seal_file(self, request: SealFile) -> FileStatus:
        self._leading()
        inode = self._published(request.path)
        await self._close_file(inode.file_id)
        return status_of(request.path, get_file(self._state(), inode.file_id))

    def _published(self, path: str) -> FileInode:
        inode = get_inode(self._state(), split_path(path))
        if not isinstance(inode, FileInode):
            raise IsDirectory(f"{path} is a directory: name a file to append to")
        return inode

    def _target(self, inode: FileInode, named: ChunkHandle) -> AppendTarget:
        state = self._state()
        chunk = state.chunks[inode.chunks[-1]]
        return AppendTarget(
            file_id=inode.file_id,
            path=path_of(state, inode) or "",
            chunk_bytes=state.chunk_bytes,
            handle=chunk.handle,
            version=chunk.version,
            start_bytes=inode.size_bytes,
            replicas=self._replicas(chunk),
            before=self._settled(inode, named) if named else None,
        )

    def _settled(self, inode: FileInode, handle: ChunkHandle) -> SettledChunk:
        state = self._state()
        if handle not in inode.chunks:
            return SettledChunk(
                handle=handle,
                version=ChunkVersion(0),
                start_bytes=0,
                length_bytes=0,
                replicas=(),
                is_known=self._sealing.is_given_up(handle),
            )
        chunk = state.chunks[handle]
        return SettledChunk(
            handle=handle,
            version=chunk.version,
            start_bytes=chunk_starts(state, inode)[inode.chunks.index(handle)],
            length_bytes=chunk.length_bytes,
            replicas=self._replicas(chunk),
        )

    def _replicas(self, chunk: Chunk) -> tuple[Replica, ...]:
        return tuple(
            Replica(
                chunkserver_id=server.chunkserver_id,
                address=server.last_heartbeat.address,
                host=server.last_heartbeat.host,
            )
            for server in self._members(chunk)
        )

    def _members(self, chunk: Chunk) -> list[Server]:
        return self._leading().membership.servers(chunk.replicas)

    # One change of a file at a time.

    async def _unchanging(self, file_id: FileId) -> None:
        while (task := self._changing.get(file_id)) is not None:
            await asyncio.wait([task])

    async def _change(self, file_id: FileId, work: Coroutine[Any, Any, None]) -> None:
        """Run a change of a file, which goes on if we are cancelled."""
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"append-{file_id}")
        self._changing[file_id] = task
        task.add_done_callback(lambda _: self._changed(file_id, task))
        await asyncio.wait([task])
        if task.cancelled():
            self._leading()
            raise NotLeader("this master stopped leading for a moment: try again")
        task.result()

    def _changed(self, file_id: FileId, task: "asyncio.Task[None]") -> None:
        if self._changing.get(file_id) is task:
            del self._changing[file_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("file %d: %s", file_id, error)

    async def _close_file(self, file_id: FileId) -> None:
        while True:
            await self._unchanging(file_id)
            handle = self._state().open_files.get(file_id)
            if handle is None:
                self._leading().catalogue.published(self._state(), file_id)
                return
            await self._change(file_id, self._sealing.seal(file_id, handle))

    async def _move_on(self, file_id: FileId, open_handle: ChunkHandle) -> None:
        if open_handle != NO_CHUNK:
            await self._sealing.seal(file_id, open_handle)
        for _ in range(OPEN_TRIES_MAX):
            if await self._open_chunk(file_id):
                return
        raise NotEnoughChunkservers(
            f"no chunk can be opened for file {file_id}: chunkservers did not answer; see `status`"
        )

    # Opening a chunk.

    async def _open_chunk(self, file_id: FileId) -> bool:
        """Whether a fresh chunk is open on all servers chosen for it; if not, it is sealed."""
        tenure = self._leading()
        inode = get_file(self._state(), file_id)
        await tenure.wait_for_servers(inode.replication)
        replicas = self._choose(tenure, inode.replication)
        after = inode.chunks[-1] if inode.chunks else NO_CHUNK
        command = commands.AppendChunk(self._clock.now_ms(), file_id, after, replicas)
        handle = (
            await propose_soon(self._propose, self._clock, command, commands.ChunkAppended)
        ).handle
        chunk = self._state().chunks.get(handle)
        if chunk is None:
            return False  # its file was removed in the same batch of the log
        servers = self._members(chunk)
        addresses = addresses_of(servers)
        install = InstallChunk(
            handle=handle,
            version=chunk.version,
            file_id=file_id,
            index=len(inode.chunks),
            path_hint=path_of(self._state(), inode) or "",
            chunk_bytes=self._state().chunk_bytes,
            members=tuple(ChunkMember(chunkserver_id=i, address=a) for i, a in addresses.items()),
        )
        _, errors = await self._calls.ask_all(addresses, install, timeout_ms=INSTALL_MS)
        if not errors and len(servers) == len(chunk.replicas):
            return True
        for chunkserver_id, error in errors.items():
            logger.warning("chunk %x cannot be opened on %s: %s", handle, chunkserver_id, error)
            self._suspects.add(chunkserver_id)
        await self._sealing.seal(file_id, handle)
        return False

    def _choose(self, tenure: Tenure, replication: int) -> tuple[ChunkserverId, ...]:
        left = self._suspects.left_out_of(tenure, tenure.candidates(self._state()))
        (replicas,) = choose_replica_sets(
            left, count=1, replication=replication, draw_u64=self._rng.random_u64
        )
        tenure.membership.note_creations([replicas])
        return replicas

    # What is done unasked.

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                due = self._to_close()[:CLOSES_MAX]
                await asyncio.gather(*map(self._close_unasked, due))
            except NotLeader:  # for a moment, or until we are told that it is over
                continue
            except Exception:  # a mistake of ours with one file must not leave all others open
                logger.exception("looking after open files failed")

    async def _close_unasked(self, file_id: FileId) -> None:
        self._appenders.pop(file_id, None)
        self._tried_ms[file_id] = self._clock.monotonic_ms()
        with suppress(MinigfsError):  # said in the log; due again at the next tick
            await self._close_file(file_id)

    def _to_close(self) -> list[FileId]:
        """Open files whose appenders are gone, or which a member of their chunk has left; those
        that could not be closed lately come last."""
        state, now_ms = self._state(), self._clock.monotonic_ms()
        due = set(self._leading().append_leases.expired(state.open_files, now_ms))
        due.update(
            file_id
            for file_id, handle in state.open_files.items()
            if file_id not in self._changing and self._is_orphaned(state, file_id, handle, now_ms)
        )
        self._tried_ms = {i: at_ms for i, at_ms in self._tried_ms.items() if i in due}
        return sorted(due, key=lambda file_id: (self._tried_ms.get(file_id, -1), file_id))

    def _is_orphaned(
        self, state: FileSystemState, file_id: FileId, handle: ChunkHandle, now_ms: int
    ) -> bool:
        chunk = state.chunks.get(handle)
        if chunk is None or file_id not in state.inodes:
            return True
        if self._leading().may_still_report:
            return False
        living = [server for server in self._members(chunk) if server.is_alive(now_ms)]
        return len(living) < len(chunk.replicas)
