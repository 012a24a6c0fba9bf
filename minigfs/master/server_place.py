"""Where a chunkserver is found: a value of the log, the state and its snapshots alike."""

import msgspec

from minigfs.ids import ChunkserverId

__all__ = ["ServerPlace"]


class ServerPlace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Its addresses; fields are added at the end, with a default."""

    chunkserver_id: ChunkserverId
    address: str
    host: str
    lending_address: str = ""  # Unix socket where it lends files to its machine's processes
