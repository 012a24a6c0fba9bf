"""Where the members of a group listen, from the three places that know.

1. What a member said itself when it connected. It dials all others at every start, so whoever it
   can reach at all has heard it, later than anything else.
2. What the log says (``MemberAddress``): for those it has not connected to yet.
3. What the directory was made with: founding members before the log names them.
"""

from collections.abc import Callable, Iterable, Mapping

from minigfs.raft import NodeId
from minigfs.transport.address import Address

__all__ = ["MemberAddresses"]


class MemberAddresses:
    """Looked up by member; ``logged`` gives the log's view as it is now."""

    def __init__(
        self, founding: Mapping[NodeId, Address], logged: Callable[[], Mapping[NodeId, Address]]
    ) -> None:
        self._founding = dict(founding)
        self._logged = logged
        self._said: dict[NodeId, Address] = {}

    def get(self, member: NodeId) -> Address | None:
        return self._said.get(member) or self._logged().get(member) or self._founding.get(member)

    def says(self, member: NodeId, address: Address) -> None:
        """A member, proved to be one, named its own address."""
        self._said[member] = address

    def unlogged(self, members: Iterable[NodeId]) -> dict[NodeId, Address]:
        """Addresses of these members that the log does not have, or has another for."""
        logged = self._logged()
        known = {member: self.get(member) for member in members}
        return {m: a for m, a in known.items() if a is not None and a != logged.get(m)}
