"""What a member tells its group by itself, once a second and soon after something changed.

How it does, over the links; and, if it leads, where members listen, by the log, so that all find
each other by that alone. What is lost is said again.
"""

import logging
from collections.abc import Callable, Mapping

from minigfs.errors import MemberRemoved, NoSpace, NotLeader
from minigfs.ports import Clock
from minigfs.raft import NodeId, ProposalDropped
from minigfs.replication.addresses import MemberAddresses
from minigfs.replication.commands import MEMBERS_MACHINE, MemberAddress, encode_member_command
from minigfs.replication.member import Member, MemberView
from minigfs.replication.peers import PeerLinks
from minigfs.replication.roster import Roster
from minigfs.replication.tickets import Ticket

__all__ = ["Bulletin"]

logger = logging.getLogger(__name__)

INTERVAL_MS = 1_000


class Bulletin:
    """``tell`` is called at every tick, and tells when it is time."""

    def __init__(
        self,
        *,
        member: Member,
        links: PeerLinks,
        roster: Roster,
        addresses: MemberAddresses,
        clock: Clock,
        new_ticket: Callable[[], Ticket],
        acknowledged: Callable[[MemberView], Mapping[NodeId, int]],
    ) -> None:
        self._member = member
        self._links = links
        self._roster = roster
        self._addresses = addresses
        self._clock = clock
        self._new_ticket = new_ticket
        self._acknowledged = acknowledged
        self._told_ms: int | None = None
        self._told_full = False

    def hasten(self) -> None:
        """There is news."""
        self._told_ms = None

    def tell(self, *, leads: bool) -> None:
        """Raises ``MemberRemoved`` when there is no group any more to tell anything."""
        now_ms, is_full = self._clock.monotonic_ms(), self._member.disk_is_full
        if is_full != self._told_full:
            self.hasten()  # a leader without room looks for one who has
        if self._told_ms is not None and now_ms - self._told_ms < INTERVAL_MS:
            return
        self._told_ms, self._told_full = now_ms, is_full
        view = self._member.status()
        if view.is_removed:
            raise MemberRemoved(
                f"master {view.member_id} was removed from its group: to use this machine again, "
                "start a master with an empty directory and --join"
            )
        self._links.connect(view.configuration.members)
        self._links.forget(view.configuration.retired)
        self._links.send_report(self._roster.own_report(view, self._acknowledged(view)))
        if leads:
            self._log_addresses(view)

    def _log_addresses(self, view: MemberView) -> None:
        for member, address in self._addresses.unlogged(view.configuration.members).items():
            command = encode_member_command(MemberAddress(member, address))
            try:
                self._member.propose(MEMBERS_MACHINE, command, None, self._new_ticket())
            except (NotLeader, NoSpace, ProposalDropped) as error:
                logger.info("the address of master %s is not logged yet: %s", member, error)
