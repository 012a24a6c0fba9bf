"""What each member has promised the others by messages that left it, and whether its disk knows.

Raft's safety rests on three promises that outlive a process: a term seen is never forgotten, the
vote in a term is never changed, and an acknowledged entry is still there unless a later leader had
it overwritten. A promise counts from the moment its message is handed to the network.
"""

from dataclasses import dataclass

from minigfs.raft import LogStorage, NodeId
from minigfs.raft.errors import LogUnavailable
from minigfs.raft.messages import (
    AppendEntriesReply,
    InstallSnapshotReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from minigfs.replication.peer_messages import (
    PeerMessage,
    RemovedNotice,
    SnapshotPiece,
    SnapshotPieceReply,
)
from tests.sim.checks.shadow import Shadow
from tests.sim.violation import require

__all__ = ["Promises"]

_NO_PROMISE = (PreVote, RemovedNotice, SnapshotPiece, SnapshotPieceReply)
"""Their term is another's, or none that the sender has reached."""


@dataclass(slots=True)
class Promised:
    """``acked_index``: everything up to here was acknowledged and is still owed."""

    term: int = 0
    vote_term: int = 0
    vote: NodeId | None = None
    acked_index: int = 0
    acked_term: int = 0  # of the entry at acked_index; 0: not known


class Promises:
    """All members', across their lives."""

    def __init__(self) -> None:
        self._of: dict[NodeId, Promised] = {}

    def acked_index(self, member: NodeId) -> int:
        return self._of[member].acked_index if member in self._of else 0

    def sent(self, message: PeerMessage, log: LogStorage, shadow: Shadow) -> None:
        """A message leaves: what it promises must be durable by now, and not contradict itself."""
        promised = self._of.setdefault(message.source, Promised())
        if isinstance(message, _NO_PROMISE):
            return
        if isinstance(message, PreVoteReply) and message.vote_granted:
            return
        name = message.source
        if message.term > promised.term:
            promised.term = message.term
        require(
            log.hard_state().current_term >= message.term,
            "promise before durable",
            f"{name} spoke in term {message.term}; its disk holds {log.hard_state()}",
        )
        if isinstance(message, RequestVote):
            self._vote(promised, name, message.term, name, log)
        elif isinstance(message, RequestVoteReply):
            if message.vote_granted:
                self._vote(promised, name, message.term, message.target, log)
        elif isinstance(message, AppendEntriesReply):
            if message.success:
                self._acknowledge(promised, name, message.match_index, log, shadow)
        elif isinstance(message, InstallSnapshotReply):
            self._acknowledge(promised, name, message.match_index, log, shadow)

    def _vote(
        self, promised: Promised, name: NodeId, term: int, vote: NodeId, log: LogStorage
    ) -> None:
        require(
            term != promised.vote_term or vote == promised.vote,
            "two votes in a term",
            f"{name} voted for {promised.vote} and for {vote} in term {term}",
        )
        if term > promised.vote_term:
            promised.vote_term, promised.vote = term, vote
        durable = log.hard_state()
        require(
            durable.current_term > term or durable.voted_for == vote,
            "promise before durable",
            f"{name} votes for {vote} in term {term}; its disk holds {durable}",
        )

    def _acknowledge(
        self, promised: Promised, name: NodeId, index: int, log: LogStorage, shadow: Shadow
    ) -> None:
        require(
            log.last_index() >= index,
            "promise before durable",
            f"{name} acknowledges entry {index}; its disk ends at {log.last_index()}",
        )
        if index > promised.acked_index:
            promised.acked_index = index
            promised.acked_term = shadow.term_at(index) or 0

    def overwritten(self, member: NodeId, first: int, shadow: Shadow) -> None:
        """A leader had the entries from ``first`` on replaced: they are owed no more."""
        promised = self._of.get(member)
        if promised is not None and promised.acked_index >= first:
            promised.acked_index = first - 1
            promised.acked_term = shadow.term_at(first - 1) or 0

    def restarted(self, member: NodeId, log: LogStorage) -> None:
        """Hold what the member finds on its disk against what it promised."""
        promised = self._of.get(member)
        if promised is None:
            return
        durable = log.hard_state()
        require(
            durable.current_term >= promised.term,
            "term forgotten",
            f"{member} spoke in term {promised.term} and restarts with {durable}",
        )
        require(
            durable.current_term > promised.vote_term or durable.voted_for == promised.vote,
            "vote forgotten",
            f"{member} voted for {promised.vote} in {promised.vote_term}, restarts with {durable}",
        )
        require(
            log.last_index() >= promised.acked_index,
            "acknowledged entry lost",
            f"{member} acknowledged entry {promised.acked_index}; after its restart its log ends "
            f"at {log.last_index()}",
        )
        if not promised.acked_term:
            return
        try:
            term = log.term(promised.acked_index)
        except LogUnavailable:
            return
        require(
            term == promised.acked_term,
            "acknowledged entry lost",
            f"{member} acknowledged entry {promised.acked_index} of term {promised.acked_term}; "
            f"after its restart it is of term {term}",
        )
