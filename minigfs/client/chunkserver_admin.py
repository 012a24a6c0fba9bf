"""What an administrator asks for the chunkservers: to empty one, to even out their disks."""

from minigfs.client.config import ClientConfig
from minigfs.errors import UsageError
from minigfs.ids import ChunkserverId
from minigfs.master.messages import (
    ChunkserverReport,
    ClusterReport,
    GetClusterReport,
    SetDecommission,
    StartRebalance,
)
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller

__all__ = ["ChunkserverAdmin"]


class ChunkserverAdmin:
    """Thread-safe; ``close`` ends its connections. Errors are those of ``GroupCaller.call``."""

    def __init__(self, config: ClientConfig) -> None:
        self._pool = ConnectionPool(config.security())
        self._group = GroupCaller(self._pool, config.masters)
        self._timeout_ms = config.timeout_ms

    def report(self) -> ClusterReport:
        return self._group.call(GetClusterReport(), timeout_ms=self._timeout_ms)

    def known(self, name: str) -> ChunkserverReport:
        """The chunkserver whose id begins so, or that listens there."""
        servers = self.report().chunkservers
        found = [s for s in servers if s.id.startswith(name) or s.address == name]
        if len(found) != 1:
            ids = ", ".join(server.id for server in servers)
            raise UsageError(
                f"{name} names {len(found)} of the chunkservers {ids}: give the id of one, or how "
                "it begins, or its address"
            )
        return found[0]

    def set_decommission(
        self, chunkserver_id: ChunkserverId, decommission: bool, *, force: bool = False
    ) -> ChunkserverReport:
        """See ``SetDecommission``."""
        request = SetDecommission(
            chunkserver_id=chunkserver_id, decommission=decommission, force=force
        )
        return self._group.call(request, timeout_ms=self._timeout_ms)

    def start_rebalance(self) -> None:
        self._group.call(StartRebalance(), timeout_ms=self._timeout_ms)

    def close(self) -> None:
        self._pool.close()
