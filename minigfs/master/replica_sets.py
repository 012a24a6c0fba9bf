"""Changes of which servers have a chunk, after it was published (GFS section 4.3).

Repair adds a server once its replica is durable there, and takes servers out that are to have none
any more; only then may these delete what they have. A server that is in no chunk's set has nothing
that anybody counts on.
"""

from collections.abc import Sequence

from msgspec.structs import replace as with_fields

from minigfs.ids import ChunkserverId
from minigfs.master.chunks import shared_ids
from minigfs.master.commands import ReplicaChange, SetDraining
from minigfs.master.server_place import ServerPlace
from minigfs.master.state import Chunk, FileSystemState

__all__ = ["adjust_replicas", "place_servers", "set_draining"]


def adjust_replicas(state: FileSystemState, changes: Sequence[ReplicaChange]) -> FileSystemState:
    """The state after those of the changes that still make sense."""
    chunks = state.chunks.mutate()
    for change in changes:
        chunk = chunks.get(change.handle)
        if chunk is None or chunk.version != change.version or chunk.length_bytes == 0:
            continue
        replicas = _changed(chunk, change)
        if replicas and replicas != chunk.replicas:
            chunks[chunk.handle] = with_fields(chunk, replicas=shared_ids(replicas))
    return with_fields(state, chunks=chunks.finish())


def set_draining(state: FileSystemState, command: SetDraining) -> FileSystemState:
    draining = dict.fromkeys(state.draining)
    if command.is_draining:
        draining[command.chunkserver_id] = None
    else:
        draining.pop(command.chunkserver_id, None)
    return with_fields(state, draining=tuple(sorted(draining)))


def place_servers(state: FileSystemState, places: Sequence[ServerPlace]) -> FileSystemState:
    known = state.places.update({place.chunkserver_id: place for place in places})
    return with_fields(state, places=known)


def _changed(chunk: Chunk, change: ReplicaChange) -> tuple[ChunkserverId, ...]:
    added = [server for server in change.add if server not in chunk.replicas]
    return tuple(s for s in (*chunk.replicas, *added) if s not in change.remove)
