"""Who waits for what: proposals for their place in the log, reads for the index they need.

A proposal is decided when the entry at its index is applied here. If that is the entry proposed,
the machine's answer is the outcome. If it is another leader's, the proposal will never be applied,
and ``NotLeader`` says that a retry is safe. Leadership lost decides nothing: the next leader may
commit the entry or replace it, and the ticket stays open until it does (callers have deadlines of
their own). Only a received snapshot that covers the index leaves the question open for ever:
``OutcomeUnknown``.

A ticket gets one outcome at most, and exactly one unless the process ends before its index is
applied.
"""

from collections.abc import Sequence
from typing import NewType

import msgspec

from minigfs.errors import MinigfsError, NotLeader, OutcomeUnknown
from minigfs.raft import LogPosition, ReadState

__all__ = ["OpenProposals", "OpenReads", "Outcome", "Ticket"]

Ticket = NewType("Ticket", int)
"""The caller's name for one request; the member gives it back and looks at nothing in it."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a request ended: ``reply``, or ``error``. Reads and membership changes reply ``b""``."""

    ticket: Ticket
    reply: bytes | None
    error: MinigfsError | None = None


class OpenProposals:
    """Proposals not decided yet, by index."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, Ticket]] = {}  # index -> (term, ticket)
        self._older: dict[int, list[tuple[int, Ticket]]] = {}

    def __bool__(self) -> bool:
        return bool(self._newest)

    def __len__(self) -> int:
        return len(self._newest) + sum(map(len, self._older.values()))

    def add(self, position: LogPosition, ticket: Ticket) -> None:
        """A later proposal at the same index, of a later term of this leader's, does not decide
        the earlier one: another member may still hold that entry. Both wait."""
        known = self._newest.get(position.index)
        if known is not None:
            self._older.setdefault(position.index, []).append(known)
        self._newest[position.index] = (position.term, ticket)

    def applied(
        self, index: int, term: int, answer: bytes | MinigfsError, outcomes: list[Outcome]
    ) -> None:
        """The entry at ``index`` was applied; what that decides is added to ``outcomes``."""
        newest = self._newest.pop(index, None)
        if newest is None:
            return
        if self._older:
            outcomes.extend(_outcome(old, term, answer) for old in self._older.pop(index, ()))
        outcomes.append(_outcome(newest, term, answer))

    def covered(self, snapshot_index: int) -> list[Outcome]:
        """A received snapshot took the place of the entries up to ``snapshot_index``."""
        lost = [index for index in self._newest if index <= snapshot_index]
        outcomes: list[Outcome] = []
        for index in lost:
            for _, ticket in (*self._older.pop(index, ()), self._newest.pop(index)):
                outcomes.append(Outcome(ticket, None, _covered()))
        return outcomes


class OpenReads:
    """Reads asked for between two ``due`` share one round of the group."""

    def __init__(self) -> None:
        self._asked: list[Ticket] = []
        self._rounds: dict[bytes, list[Ticket]] = {}  # context -> its reads
        self._confirmed: list[tuple[int, list[Ticket]]] = []  # (index to be applied, reads)
        self._last_round = 0

    def add(self, ticket: Ticket) -> None:
        self._asked.append(ticket)

    def begin_round(self) -> bytes | None:
        """A context for all reads asked for since the last round; None if there are none."""
        if not self._asked:
            return None
        self._last_round += 1
        context = self._last_round.to_bytes(8, "big")
        self._rounds[context], self._asked = self._asked, []
        return context

    def confirmed(self, states: Sequence[ReadState]) -> None:
        for state in states:
            tickets = self._rounds.pop(state.context, None)
            if tickets is not None:  # else they were given up, and told so
                self._confirmed.append((state.read_index, tickets))

    def applied(self, applied_index: int) -> list[Outcome]:
        """The reads that may look at the machines now."""
        if not self._confirmed:
            return []
        ready = [tickets for index, tickets in self._confirmed if index <= applied_index]
        self._confirmed = [item for item in self._confirmed if item[0] > applied_index]
        return [Outcome(ticket, b"") for tickets in ready for ticket in tickets]

    def dropped(self, contexts: Sequence[bytes], error: MinigfsError) -> list[Outcome]:
        """These rounds will never be confirmed."""
        return [
            Outcome(ticket, None, error)
            for context in contexts
            for ticket in self._rounds.pop(context, ())
        ]

    def drop_unconfirmed(self, error: MinigfsError) -> list[Outcome]:
        """No round will be confirmed any more."""
        asked, self._asked = self._asked, []
        outcomes = [Outcome(ticket, None, error) for ticket in asked]
        return outcomes + self.dropped(list(self._rounds), error)


def _outcome(
    proposed: tuple[int, Ticket], applied_term: int, answer: bytes | MinigfsError
) -> Outcome:
    proposed_term, ticket = proposed
    if proposed_term != applied_term:
        return Outcome(ticket, None, _replaced())
    if isinstance(answer, MinigfsError):
        return Outcome(ticket, None, answer)
    return Outcome(ticket, answer)


def _replaced() -> NotLeader:
    return NotLeader(
        "leadership changed and the change was discarded for good: it was not made, try again"
    )


def _covered() -> OutcomeUnknown:
    return OutcomeUnknown(
        "leadership changed, and this master got the state without the history: the change may or "
        "may not be in it; look before trying again"
    )
