"""What the log says of the chunks of a tree, a page at a time; see ``Examine``."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from minigfs.errors import FileSystemError
from minigfs.ids import ChunkserverId
from minigfs.master.examine_messages import (
    Examine,
    Examined,
    ExaminedAside,
    ExaminedChunk,
    ExaminedFile,
    ExaminedServer,
)
from minigfs.master.listing import find_page, status_of
from minigfs.master.membership import Membership
from minigfs.master.messages import EntryKind, FileStatus
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.state import FileInode, FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request

__all__ = ["CHUNKS_PER_PAGE_MAX", "Examination", "examine_page"]

CHUNKS_PER_PAGE_MAX = 2_000  # about ten milliseconds of the master
_ENTRIES_PER_PAGE_MAX = 1_000


class Examination:
    """Answers ``Examine`` for a service that leads."""

    def __init__(
        self,
        readable: Callable[[], Awaitable[object]],
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
    ) -> None:
        """``readable`` returns when the state may be shown."""
        self._readable = readable
        self._state = state
        self._leading = leading

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {Examine: self._examine}

    async def _examine(self, request: Examine) -> Examined:
        await self._readable()
        tenure = self._leading()
        return examine_page(self._state(), tenure.membership, request, tenure.now_ms)


def examine_page(
    state: FileSystemState, membership: Membership, request: Examine, now_ms: int
) -> Examined:
    page = find_page(state, request.path, request.start_after, _ENTRIES_PER_PAGE_MAX)
    begun = _begun(state, request)
    files: list[ExaminedFile] = []
    left = CHUNKS_PER_PAGE_MAX
    reached, next_index, more = request.start_after, 0, page.more
    for status in (*begun, *page.entries):
        if left <= 0:
            more = True
            break
        reached = status.path
        if status.kind is not EntryKind.FILE:
            continue
        first = request.first_index if begun and status is begun[0] else 0
        examined = _examined_file(state, status, first, left)
        files.append(examined)
        left -= max(len(examined.chunks), 1)
        if first + len(examined.chunks) < status.chunk_count:
            next_index, more = first + len(examined.chunks), True
            break
    return Examined(
        files=tuple(files),
        servers=_servers(files, membership, now_ms),
        more=more,
        start_after=reached,
        first_index=next_index,
        set_aside=tuple(_set_aside(files, membership)),
    )


def _begun(state: FileSystemState, request: Examine) -> list[FileStatus]:
    """The file that the page before ended in, if it is still there."""
    if request.first_index == 0:
        return []
    try:
        inode = get_inode(state, split_path(request.start_after))
    except FileSystemError:
        return []
    status = status_of(request.start_after, inode)
    return [status] if status.chunk_count > request.first_index else []


def _examined_file(
    state: FileSystemState, status: FileStatus, first: int, count: int
) -> ExaminedFile:
    inode = get_inode(state, split_path(status.path))
    assert isinstance(inode, FileInode)
    chunks = [state.chunks[handle] for handle in inode.chunks[first : first + count]]
    return ExaminedFile(
        status,
        tuple(
            ExaminedChunk(
                first + i,
                chunk.handle,
                chunk.version,
                chunk.replication,
                chunk.length_bytes,
                chunk.digest,
                chunk.replicas,
                chunk.is_open,
            )
            for i, chunk in enumerate(chunks)
        ),
    )


def _set_aside(files: list[ExaminedFile], membership: Membership) -> Iterator[ExaminedAside]:
    handles = {chunk.handle for file in files for chunk in file.chunks}
    for server in membership.all_servers():
        beat = server.last_heartbeat
        for handle, version in ((one.handle, one.version) for one in beat.set_aside):
            if handle in handles:
                yield ExaminedAside(handle, version, server.chunkserver_id, beat.address, beat.host)


def _servers(
    files: list[ExaminedFile], membership: Membership, now_ms: int
) -> tuple[ExaminedServer, ...]:
    named: dict[ChunkserverId, ExaminedServer] = {}
    for file in files:
        for chunk in file.chunks:
            for chunkserver_id in chunk.replicas:
                if chunkserver_id not in named:
                    named[chunkserver_id] = _server(membership, chunkserver_id, now_ms)
    return tuple(named.values())


def _server(membership: Membership, chunkserver_id: ChunkserverId, now_ms: int) -> ExaminedServer:
    for server in membership.servers((chunkserver_id,)):
        beat = server.last_heartbeat
        return ExaminedServer(chunkserver_id, beat.address, beat.host, server.is_alive(now_ms))
    return ExaminedServer(chunkserver_id, "", "", False)
