"""Where the chunks of a file are, as far as a master knows.

The one that leads hears of the chunkservers twice a second: it names live servers that have what
the log says. The others know the log (GFS section 5.1.3, shadow masters): which servers a chunk was
put on, and where each of them was last found. So what they name may be away.
"""

from collections.abc import Callable, Iterator, Sequence

from minigfs.errors import IsDirectory
from minigfs.ids import ChunkHandle
from minigfs.master.growth import chunk_starts
from minigfs.master.listing import inode_to_read, status_of
from minigfs.master.membership import Server
from minigfs.master.messages import Locate, Located, LocatedChunk, Replica
from minigfs.master.server_place import ServerPlace
from minigfs.master.state import Chunk, FileInode, FileSystemState
from minigfs.master.tenure import Tenure

__all__ = ["CHUNKS_PER_REQUEST_MAX", "Locating", "new_places"]

CHUNKS_PER_REQUEST_MAX = 1_024  # placed or located in about ten milliseconds


class Locating:
    """``tenure`` gives None where another master leads."""

    def __init__(
        self, state: Callable[[], FileSystemState], tenure: Callable[[], Tenure | None]
    ) -> None:
        self._state = state
        self._tenure = tenure

    def locate(self, request: Locate) -> Located:
        state = self._state()
        inode = inode_to_read(state, request)
        if not isinstance(inode, FileInode):
            raise IsDirectory(f"{request.path} is a directory: it has no chunks")
        first = max(request.first_index, 0)
        end = first + max(0, min(request.count, CHUNKS_PER_REQUEST_MAX))
        chunks = [state.chunks[handle] for handle in inode.chunks[first:end]]
        return Located(
            status=status_of(request.path, inode),
            chunk_bytes=state.chunk_bytes,
            chunks=tuple(self._to_read(chunk, first + i) for i, chunk in enumerate(chunks)),
            starts=chunk_starts(state, inode) if inode.is_ragged else (),
        )

    def allocated(
        self, tenure: Tenure, first_index: int, handles: Sequence[ChunkHandle]
    ) -> tuple[LocatedChunk, ...]:
        """Chunks to be written."""
        chunks = self._state().chunks
        return tuple(
            _located(chunk, first_index + i, _replicas(tenure.servers_to_write(chunk)))
            for i, handle in enumerate(handles)
            if (chunk := chunks.get(handle))  # else its writer has abandoned it
        )

    def _to_read(self, chunk: Chunk, index: int) -> LocatedChunk:
        tenure = self._tenure()
        if tenure is None:
            return _located(chunk, index, tuple(_last_known(self._state(), chunk)))
        if chunk.is_open:  # those who append to it know best who has it
            servers = tenure.membership.servers(chunk.replicas)
        else:
            servers = tenure.membership.replicas_to_read(chunk, tenure.now_ms)
        gone_from = () if servers else tenure.membership.gone_from(chunk, tenure.now_ms)
        return _located(chunk, index, _replicas(servers), gone_from)


def new_places(state: FileSystemState, servers: Sequence[Server]) -> tuple[ServerPlace, ...]:
    """Of servers that are to be found elsewhere than the log says, or that it does not know."""
    said = (
        ServerPlace(
            server.chunkserver_id,
            server.last_heartbeat.address,
            server.last_heartbeat.host,
            server.last_heartbeat.lending_address,
        )
        for server in servers
    )
    return tuple(place for place in said if state.places.get(place.chunkserver_id) != place)


def _last_known(state: FileSystemState, chunk: Chunk) -> Iterator[Replica]:
    for chunkserver_id in chunk.replicas:
        place = state.places.get(chunkserver_id)
        if place is not None:
            yield Replica(
                chunkserver_id=chunkserver_id,
                address=place.address,
                host=place.host,
                lending_address=place.lending_address,
            )


def _replicas(servers: Sequence[Server]) -> tuple[Replica, ...]:
    return tuple(
        Replica(
            chunkserver_id=server.chunkserver_id,
            address=server.last_heartbeat.address,
            host=server.last_heartbeat.host,
            lending_address=server.last_heartbeat.lending_address,
        )
        for server in servers
    )


def _located(
    chunk: Chunk, index: int, replicas: tuple[Replica, ...], gone_from: tuple[str, ...] = ()
) -> LocatedChunk:
    return LocatedChunk(
        handle=chunk.handle,
        version=chunk.version,
        index=index,
        length_bytes=chunk.length_bytes,
        digest=chunk.digest,
        is_open=chunk.is_open,
        gone_from=gone_from,
        replicas=replicas,
    )
