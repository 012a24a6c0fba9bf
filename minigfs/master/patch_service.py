"""Answers the requests that put chunks into the places of others (see ``patches``)."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from minigfs.ids import ChunkHandle, Origin
from minigfs.master import commands
from minigfs.master.append_messages import PatchedChunk, PatchFile
from minigfs.master.growth import get_file
from minigfs.master.listing import status_of
from minigfs.master.messages import FileStatus
from minigfs.master.namespace import path_of
from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request

__all__ = ["PatchService"]

_ReplyT = TypeVar("_ReplyT", bound=commands.CommandReply)


class _Propose(Protocol):
    async def __call__(
        self, command: commands.Command, expected: type[_ReplyT], origin: Origin | None = None
    ) -> _ReplyT: ...


class PatchService:
    """Belongs to the event loop."""

    def __init__(
        self,
        clock: Clock,
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
        propose: _Propose,
    ) -> None:
        self._clock = clock
        self._state = state
        self._leading = leading
        self._propose = propose

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {PatchFile: self._patch}

    async def _patch(self, request: PatchFile) -> FileStatus:
        tenure = self._leading()
        command = commands.PatchFile(
            self._clock.now_ms(),
            request.file_id,
            request.temporary_id,
            request.chunk_count,
            request.kept_count,
            tuple(_patched(one) for one in request.replaced),
        )
        await self._propose(command, commands.Done, request.origin)
        state = self._state()
        for one in request.replaced:
            chunk = state.chunks.get(one.chunk.handle)
            if chunk is not None:  # else the file was removed in the same batch of the log
                tenure.published(chunk)
        tenure.catalogue.published(state, request.file_id)
        inode = get_file(state, request.file_id)
        return status_of(path_of(state, inode) or "", inode)


def _patched(one: PatchedChunk) -> tuple[int, ChunkHandle, commands.SealedReplicas]:
    chunk = one.chunk
    sealed = commands.SealedReplicas(chunk.handle, chunk.length_bytes, chunk.digest, chunk.replicas)
    return one.index, one.expected, sealed
