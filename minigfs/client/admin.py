"""What an administrator asks of the masters as a group: who they are, who leads, who leaves.

A master that joins asks by itself (``minigfs serve master --join``), so adding one is starting it.
"""

from minigfs.client.config import ClientConfig
from minigfs.errors import UsageError
from minigfs.raft import NodeId
from minigfs.replication.admin import ListMasters, MasterList, RemoveMaster, TransferLeadership
from minigfs.replication.host import MemberStatus
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller

__all__ = ["MasterAdmin"]


class MasterAdmin:
    """Thread-safe; ``close`` ends its connections. Errors are those of ``GroupCaller.call``."""

    def __init__(self, config: ClientConfig) -> None:
        self._pool = ConnectionPool(config.security())
        self._group = GroupCaller(self._pool, config.masters)
        self._timeout_ms = config.timeout_ms

    def list(self) -> MasterList:
        """All masters, as the first that answers knows them; works without a leader, too."""
        return self._group.call(ListMasters(), timeout_ms=self._timeout_ms)

    def remove(self, member_id: str) -> MemberStatus:
        """Take a master out of the group for ever; what was known of it."""
        member = self._known(member_id)
        try:
            self._group.call(RemoveMaster(member_id=member.member_id), timeout_ms=self._timeout_ms)
        except UsageError:  # no such member: it may be an earlier try that removed it
            if any(left.member_id == member.member_id for left in self.list().members):
                raise
        return member

    def transfer(self, member_id: str = "") -> MasterList:
        """Hand leadership to a master, or to the one with most of the log; who leads then."""
        before = self.list()
        target = self._known(member_id).member_id if member_id else NodeId("")
        if not target or target != before.leader:
            self._group.call(TransferLeadership(member_id=target), timeout_ms=self._timeout_ms)
        return self.list()

    def close(self) -> None:
        self._pool.close()

    def _known(self, member_id: str) -> MemberStatus:
        members = self.list().members
        found = [member for member in members if member.member_id.startswith(member_id)]
        if len(found) != 1:
            ids = ", ".join(member.member_id for member in members)
            raise UsageError(
                f"{member_id} names {len(found)} of the masters {ids}: give the id of one, or how "
                "it begins"
            )
        return found[0]
