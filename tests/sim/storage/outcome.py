"""What must be true when a storage world has come to rest, and of every deletion on the way."""

from collections.abc import Sequence

from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle
from minigfs.master.state import Chunk, FileSystemState
from tests.sim.storage.servers import ServerMachine
from tests.sim.violation import Violation

__all__ = ["check_deletion", "check_replicas", "unsettled"]


def check_deletion(
    state: FileSystemState, servers: Sequence[ServerMachine], name: str, handle: ChunkHandle
) -> None:
    """No chunk is deleted that lives: one that is in the log, on a server that the log says has
    it, as far as it is committed."""
    chunk = state.chunks.get(handle)
    (server,) = [one for one in servers if one.name == name]
    if chunk is not None and server.id in chunk.replicas:
        raise Violation("live replica deleted", f"{name} deletes {chunk}")


def check_replicas(state: FileSystemState, servers: Sequence[ServerMachine]) -> None:
    """Replicas of one version are the same bytes, which are those the log knows."""
    for server in servers:
        assert server.chunkserver is not None
        store = server.chunkserver._store
        for known in store.known_chunks():
            chunk = state.chunks.get(known.handle)
            if chunk is None or chunk.version != known.version or not chunk.length_bytes:
                continue
            try:
                with store.open_chunk(known.handle, known.version) as opened:
                    opened.read(0, known.length_bytes)
                    seen = (opened.header.length_bytes, opened.header.digest)
            except CorruptChunk as error:
                raise Violation("damage was not healed", f"{server.name}: {error}") from error
            if seen != (chunk.length_bytes, chunk.digest):
                raise Violation(
                    "replicas differ", f"{server.name} holds {seen} as {chunk}, one version"
                )


def unsettled(
    state: FileSystemState, servers: Sequence[ServerMachine], scrubbed_since_ms: int
) -> str:
    """What is still to be done until the cluster is whole; "" for nothing."""
    if state.temporary or state.open_files or state.garbage or state.condemned:
        return (
            f"temporary {list(state.temporary)}, open {dict(state.open_files)}, "
            f"garbage {dict(state.garbage)}"
        )
    for chunk in state.chunks.values():
        if len(chunk.replicas) != min(chunk.replication, len(servers)):
            return f"{chunk} is to have {chunk.replication} replicas"
    for server in servers:
        if wrong := _unsettled_server(state, server, scrubbed_since_ms):
            return f"{server.name}: {wrong}"
    return ""


def _unsettled_server(state: FileSystemState, server: ServerMachine, scrubbed_since_ms: int) -> str:
    if server.chunkserver is None:
        return "does not run"
    store = server.chunkserver._store
    # Looked at, not asked for: a thread of the server may hold the lock, and answers are in turns.
    if replicas := list(server.chunkserver._open_chunks._replicas):
        return f"still has open chunks {replicas}"
    if server.chunkserver._scrubber.last_scrubbed_ms < scrubbed_since_ms:
        return "has not read all of its chunks since the storm"
    if store.damaged_count:
        return f"{store.damaged_count} damaged chunks"
    for known in store.known_chunks():
        chunk = state.chunks.get(known.handle)
        if chunk is None or server.id not in chunk.replicas:
            return f"holds {known}, which nobody wants"
    for chunk in state.chunks.values():
        if server.id in chunk.replicas and not _holds(store.find(chunk.handle), chunk):
            return f"lacks {chunk}"
    return ""


def _holds(found: object, chunk: Chunk) -> bool:
    return found is not None and getattr(found, "version", None) == chunk.version
