"""Who shall lead next, when a leader stops, is gone, or has no room on its disk.

Safe whatever it answers: Raft's votes decide, this only saves the time until they are asked for.
"""

from collections.abc import Callable

from minigfs.raft import NodeId
from minigfs.replication.member import Member
from minigfs.replication.roster import Roster

__all__ = ["Succession"]


class Succession:
    """As one member sees it; ``is_connected`` knows who has a connection to it."""

    def __init__(
        self, member: Member, roster: Roster, is_connected: Callable[[NodeId], bool]
    ) -> None:
        self._member = member
        self._roster = roster
        self._is_connected = is_connected

    def candidates(self) -> list[NodeId]:
        """The voters to hand over to, best first: those with room, with most of the log."""
        view = self._member.status()
        return sorted(
            (voter for voter in view.configuration.voters if self._is_connected(voter)),
            key=lambda voter: (self._roster.has_room(voter), view.match_indexes.get(voter, 0)),
            reverse=True,
        )

    def with_room(self) -> NodeId | None:
        """A voter whose log can grow, and that has all of what is committed."""
        match_indexes = self._member.status().match_indexes
        for voter in self.candidates():
            is_near = match_indexes.get(voter, 0) >= self._member.commit_index
            if is_near and self._roster.has_room(voter):
                return voter
        return None

    def turn_after(self, leader: NodeId) -> int | None:
        """When this member stands, after ``leader`` is gone: first (1), second, ...; None if never.

        One after the other, because two who stand at once split the votes.
        """
        voters = self._member.status().configuration.voters
        if self._member.member_id not in voters:
            return None
        return [voter for voter in voters if voter != leader].index(self._member.member_id) + 1
