"""What people and new masters ask of the group itself: who is in it, who leads, who comes or goes.

A master that joins asks by itself (``join_group``): it has made its id and its empty log, and asks
whoever leads, again and again, until it is a voter. The leader adds it as a learner, which changes
nothing for anybody, and promotes it once it has the log: so a group never waits for an empty disk.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from minigfs.errors import ClusterError, MemberRemoved, MinigfsError, UsageError
from minigfs.raft import ChangeKind, MembershipChange, NodeId
from minigfs.replication.commands import MEMBERS_MACHINE, MemberAddress, encode_member_command
from minigfs.replication.host import ReplicatedHost
from minigfs.replication.roster import MemberStatus
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Message, Request

__all__ = [
    "GroupAdmin",
    "JoinMaster",
    "Joined",
    "ListMasters",
    "MasterList",
    "RemoveMaster",
    "TransferLeadership",
    "join_group",
]

logger = logging.getLogger(__name__)

CATCH_UP_MS = 3_000  # in one request; the newcomer asks again
JOIN_TIMEOUT_MS = 6_000
JOIN_PAUSE_MS = 500
JOIN_FIRST_ANSWER_MS = 30_000  # then the addresses are taken to be wrong


class MasterList(Message, frozen=True):
    leader: NodeId  # "" while there is none
    members: tuple[MemberStatus, ...]


class ListMasters(Request[MasterList], frozen=True, tag="masters.list"):
    """Any master answers, from what it knows."""


class Joined(Message, frozen=True):
    """How far it came: "learner" means ask again. ``members``: where all others listen."""

    role: str
    members: dict[NodeId, Address]


class JoinMaster(Request[Joined], frozen=True, kw_only=True, tag="masters.join"):
    """Take this member in, or go on doing so. Repeating it changes nothing more."""

    member_id: NodeId
    address: Address


class RemoveMaster(Request[Empty], frozen=True, kw_only=True, tag="masters.remove"):
    """For ever: the id never comes back."""

    member_id: NodeId


class TransferLeadership(Request[Empty], frozen=True, kw_only=True, tag="masters.transfer"):
    """To the named member, or to the one with most of the log."""

    member_id: NodeId = NodeId("")


class GroupAdmin:
    """Answers these requests on one member."""

    def __init__(self, host: ReplicatedHost) -> None:
        self._host = host

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {
            ListMasters: self._list,
            JoinMaster: self._join,
            RemoveMaster: self._remove,
            TransferLeadership: self._transfer,
        }

    async def _list(self, _request: ListMasters) -> MasterList:
        leader = self._host.leader
        return MasterList(
            leader=leader.member_id if leader is not None else NodeId(""),
            members=self._host.members(),
        )

    async def _join(self, request: JoinMaster) -> Joined:
        host, member = self._host, request.member_id
        host.require_leader()
        configuration = host.view().configuration
        if member in configuration.retired:
            raise MemberRemoved(
                f"master {member} was removed from this group: start it with an empty directory"
            )
        host.addresses.says(member, request.address)
        if host.machines.member_addresses.get(member) != request.address:
            command = encode_member_command(MemberAddress(member, request.address))
            await host.propose(MEMBERS_MACHINE, command)
        if member not in configuration.members:
            await host.change_membership(MembershipChange(ChangeKind.ADD_LEARNER, member))
            logger.info("master %s at %s is a learner now", member, request.address)
        if member not in configuration.voters and await self._until_caught_up(member):
            await host.change_membership(MembershipChange(ChangeKind.PROMOTE_LEARNER, member))
            logger.info("master %s has the log and votes from now on", member)
        return self._joined(member)

    async def _until_caught_up(self, member: NodeId) -> bool:
        host = self._host

        def is_near() -> bool:
            view = host.view()
            return view.match_indexes.get(member, 0) >= view.commit_index or not host.is_leader

        return await host.until(is_near, timeout_ms=CATCH_UP_MS) and host.is_leader

    def _joined(self, member: NodeId) -> Joined:
        configuration = self._host.view().configuration
        known = {other: self._host.addresses.get(other) for other in configuration.members}
        return Joined(
            role="voter" if member in configuration.voters else "learner",
            members={other: address for other, address in known.items() if address is not None},
        )

    async def _remove(self, request: RemoveMaster) -> Empty:
        self._host.require_leader()
        if request.member_id not in self._host.view().configuration.members:
            raise UsageError(
                f"{request.member_id} is no master of this group: see `admin masters list`"
            )
        await self._host.change_membership(MembershipChange(ChangeKind.REMOVE, request.member_id))
        logger.info("master %s is removed", request.member_id)
        return Empty()

    async def _transfer(self, request: TransferLeadership) -> Empty:
        await self._host.transfer(request.member_id or None)
        return Empty()


async def join_group(
    host: ReplicatedHost, address: Address, masters: Sequence[Address], pool: ConnectionPool
) -> None:
    """Return when this member is a voter of the group that ``masters`` belong to.

    Raises the last error if none of them answers in half a minute, ``MemberRemoved`` if this member
    was removed.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + JOIN_FIRST_ANSWER_MS / 1000
    request = JoinMaster(member_id=host.member_id, address=address)
    candidates = list(masters)
    while host.member_id not in host.view().configuration.voters:
        candidate = candidates.pop(0)
        try:
            joined = await asyncio.to_thread(
                pool.call, candidate, request, timeout_ms=JOIN_TIMEOUT_MS
            )
        except MemberRemoved:
            raise
        except MinigfsError as error:
            if not isinstance(error, ClusterError) or loop.time() >= give_up_s:
                raise
            logger.info("%s did not take this master in: %s", candidate, error)
            candidates = [error.hint] if error.hint else candidates or list(masters)
            if not error.hint:
                await host.until(lambda: False, timeout_ms=JOIN_PAUSE_MS)
        else:
            give_up_s = float("inf")
            for member, where in joined.members.items():
                host.addresses.says(member, where)
            candidates = [candidate, *masters]
            await host.until(
                lambda: host.member_id in host.view().configuration.voters,
                timeout_ms=JOIN_PAUSE_MS,
            )
