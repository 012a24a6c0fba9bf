"""Who waits for what: proposals by their place in the log, reads by the index they need.

A proposal is decided when an entry is committed and applied at its index. If that is the entry
proposed, the machine's reply is the outcome. If it is another leader's, the proposal will never be
applied, and ``NotLeader`` says that a retry is safe. Leadership lost decides nothing: the entry may
still be committed by the next leader, and the ticket stays open until its index is applied here
(callers have deadlines of their own). Only a snapshot that covers the index leaves the question
open for ever: ``OutcomeUnknown``.

Each ticket gets one outcome at most, and exactly one if its index is ever applied here.
"""

from collections import deque
from typing import NewType

import msgspec

from minigfs.errors import MinigfsError, NotLeader, OutcomeUnknown
from minigfs.raft import LogPosition

__all__ = ["Outcome", "OpenProposals", "OpenReads", "Ticket"]

Ticket = NewType("Ticket", int)
"""The caller's name for one request; the member gives it back and looks at nothing in it."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a request ended: ``reply``, or ``error``. Reads and membership changes reply ``b""``."""

    ticket: Ticket
    reply: bytes | None
    error: MinigfsError | None = None


class OpenProposals:
    """Proposals not decided yet. Indexes grow, but for those replaced by another leader's."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, Ticket]] = {}
        self._replaced: list[Outcome] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, position: LogPosition, ticket: Ticket) -> None:
        """A second proposal at one index proves that the first one's entry is gone for good only
        once that index is committed; both wait for it."""
        raise NotImplementedError


class OpenReads:
    """Reads asked for in one turn share one round of the group."""

    def __init__(self) -> None:
        self._due: deque[tuple[int, tuple[Ticket, ...]]] = deque()


_ = (NotLeader, OutcomeUnknown)
