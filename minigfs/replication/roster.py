"""What the members of a group tell each other about themselves, once a second, for people.

Nothing is decided by it but to whom leadership is handed, which is safe whatever it says. (What a
leader says of others' logs is for ``old_copies``.)
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from minigfs.ports import Clock
from minigfs.raft import NodeId, Role
from minigfs.replication.addresses import MemberAddresses
from minigfs.replication.member import MemberView
from minigfs.replication.peers import MemberReport
from minigfs.transport.address import Address

__all__ = ["MemberLocation", "MemberStatus", "Roster"]

SILENT_AFTER_MS = 3_500
_NOTHING: Mapping[NodeId, int] = MappingProxyType({})


class MemberLocation(msgspec.Struct, frozen=True, kw_only=True):
    member_id: NodeId
    address: Address


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the group, for reports. ``role``: leader, follower, candidate, learner, or
    silent if it has not been heard of for some seconds; the rest is then what it said last."""

    member_id: NodeId
    role: str
    term: int
    pid: int
    address: Address
    directory: str
    commit_index: int


class Roster:
    """All members as one of them, ``member_id``, knows them."""

    def __init__(
        self, member_id: NodeId, directory: Path, addresses: MemberAddresses, clock: Clock
    ) -> None:
        self._member_id = member_id
        self._directory = str(directory)
        self._addresses = addresses
        self._clock = clock
        self._reports: dict[NodeId, tuple[MemberReport, int]] = {}

    def heard(self, member: NodeId, report: MemberReport) -> None:
        self._reports[member] = (report, self._clock.monotonic_ms())

    def is_heard(self, member: NodeId) -> bool:
        """Whether the member has said something lately."""
        known = self._reports.get(member)
        return known is not None and self._clock.monotonic_ms() - known[1] < SILENT_AFTER_MS

    def has_room(self, member: NodeId) -> bool:
        """Whether another member has said lately that its log can grow."""
        return self.is_heard(member) and self._reports[member][0].has_room

    def own_report(
        self, view: MemberView, acknowledged: Mapping[NodeId, int] = _NOTHING
    ) -> MemberReport:
        role = "candidate" if view.role is Role.PRE_CANDIDATE else view.role.value
        if self._member_id not in view.configuration.voters:
            role = "learner"
        return MemberReport(
            role=role,
            term=view.term,
            pid=os.getpid(),
            address=self._addresses.get(self._member_id) or "",
            directory=self._directory,
            commit_index=view.commit_index,
            has_room=not view.disk_is_full,
            acknowledged=dict(acknowledged),
        )

    def statuses(self, view: MemberView) -> tuple[MemberStatus, ...]:
        """Of every member, by id; this one is in it even while the group does not know it."""
        members = {*view.configuration.members, self._member_id}
        return tuple(self._status(member, view) for member in sorted(members))

    def _status(self, member: NodeId, view: MemberView) -> MemberStatus:
        if member == self._member_id:
            report: MemberReport | None = self.own_report(view)
        else:
            report, _ = self._reports.get(member, (None, 0))
        is_here = member == self._member_id or self.is_heard(member)
        return MemberStatus(
            member_id=member,
            role=report.role if report is not None and is_here else "silent",
            term=report.term if report is not None else 0,
            pid=report.pid if report is not None else 0,
            address=self._addresses.get(member) or "",
            directory=report.directory if report is not None else "",
            commit_index=report.commit_index if report is not None else 0,
        )
