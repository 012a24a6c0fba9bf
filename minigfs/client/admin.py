"""What an administrator asks of the masters as a group: who they are, who leads, who leaves.

A master that joins asks by itself (``minigfs serve master --join``), so adding one is starting it.
"""

from minigfs.client.config import ClientConfig
from minigfs.errors import UsageError
from minigfs.raft import NodeId
from minigfs.replication.admin import ListMasters, MasterList, RemoveMaster, TransferLeadership
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller
from minigfs.transport.security import Security

__all__ = ["MasterAdmin"]


class MasterAdmin:
    """Thread-safe; ``close`` ends its connections. Errors are those of ``GroupCaller.call``."""

    def __init__(self, config: ClientConfig) -> None:
        self._pool = ConnectionPool(Security(token=config.token, cluster_id=config.cluster_id))
        self._group = GroupCaller(self._pool, config.masters)
        self._timeout_ms = config.timeout_ms

    def list(self) -> MasterList:
        """All masters, as the first that answers knows them; works without a leader, too."""
        return self._group.call(ListMasters(), timeout_ms=self._timeout_ms)

    def remove(self, member_id: str) -> None:
        """Take a master out of the group for ever. Removing it again is no error."""
        self._group.call(
            RemoveMaster(member_id=self._known(member_id)), timeout_ms=self._timeout_ms
        )

    def transfer(self, member_id: str = "") -> MasterList:
        """Hand leadership to a master, or to the one with most of the log; who leads then."""
        before = self.list()
        target = self._known(member_id) if member_id else NodeId("")
        if not target or target != before.leader:
            self._group.call(TransferLeadership(member_id=target), timeout_ms=self._timeout_ms)
        return self.list()

    def close(self) -> None:
        self._pool.close()

    def _known(self, member_id: str) -> NodeId:
        members = [member.member_id for member in self.list().members]
        found = [member for member in members if member.startswith(member_id)]
        if len(found) != 1:
            raise UsageError(
                f"{member_id} names {len(found)} of the masters {', '.join(members)}: give the id "
                "of one, or how it begins"
            )
        return found[0]
