"""How a group notices that a member's directory was put back to an older state.

A member that acknowledged an entry in some term has both on its disk for ever. So one that comes
with less has lost promises: it might vote a second time, or elect a leader that misses what was
acknowledged. Nobody can see that from its directory alone, but the others remember: the leader
knows what each member acknowledged to it, and tells all of them once a second. Whoever a member
connects to compares, and turns an old copy away before it hears a word of it.

What is remembered is in memory only: a majority that starts anew knows nothing of it, and a copy
younger than a second may be missed. Both would need a second fault to do harm.
"""

from collections.abc import Mapping

from minigfs.errors import MemberRolledBack
from minigfs.raft import NodeId

__all__ = ["Acknowledgements"]


class Acknowledgements:
    """The most that each member is known to have on its disk: (term, index)."""

    def __init__(self) -> None:
        self._known: dict[NodeId, tuple[int, int]] = {}

    def note(self, term: int, match_indexes: Mapping[NodeId, int]) -> None:
        """In ``term`` its leader had these acknowledgements."""
        for member, index in match_indexes.items():
            if index > 0:
                self._known[member] = max(self._known.get(member, (0, 0)), (term, index))

    def check(self, member: NodeId, term: int, last_index: int) -> None:
        """Raise ``MemberRolledBack`` if what the member's disk holds now is less.

        In a later term than that of the acknowledgement it may end earlier: a leader that was
        elected without an entry which was not committed yet has it overridden.
        """
        known_term, known_index = self._known.get(member, (0, 0))
        if term < known_term or (term == known_term and last_index < known_index):
            raise MemberRolledBack(
                f"master {member} had entry {known_index} of term {known_term} on its disk and now "
                f"ends at entry {last_index} of term {term}: its directory is an old copy. Put the "
                "newest one back; if it is lost, move the directory away and run `up` again, or "
                "remove this master from the group (admin masters remove) and start one with an "
                "empty directory and --join"
            )
