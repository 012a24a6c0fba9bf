"""Who waits on the loop for a member's outcomes."""

import asyncio
from collections.abc import Callable

from minigfs.errors import NotLeader, OutcomeUnknown
from minigfs.replication.tickets import Outcome, Ticket

__all__ = ["OpenRequests"]


class OpenRequests:
    """One future a ticket. ``not_leader`` makes the error that names the leader of this moment."""

    def __init__(self, not_leader: Callable[[], NotLeader]) -> None:
        self._not_leader = not_leader
        self._last_ticket = 0
        self._waiting: dict[Ticket, asyncio.Future[bytes]] = {}

    def new_ticket(self) -> Ticket:
        self._last_ticket += 1
        return Ticket(self._last_ticket)

    def tickets(self) -> list[Ticket]:
        """Those whose outcome is waited for."""
        return list(self._waiting)

    async def outcome(self, ticket: Ticket) -> bytes:
        """The reply, or the error raised. Whoever is cancelled waits no more."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            return await future
        finally:
            self._waiting.pop(ticket, None)

    def settle(self, outcome: Outcome) -> None:
        future = self._waiting.get(outcome.ticket)
        if future is None or future.done():
            return
        if outcome.error is None:
            assert outcome.reply is not None
            future.set_result(outcome.reply)
        elif isinstance(outcome.error, NotLeader):
            future.set_exception(self._not_leader())
        else:
            future.set_exception(outcome.error)

    def give_up(self, tickets: list[Ticket]) -> None:
        """These could not be decided here; their callers know how to ask the next leader."""
        for ticket in tickets:
            future = self._waiting.get(ticket)
            if future is not None and not future.done():
                future.set_exception(
                    OutcomeUnknown("this master stopped leading before the change was committed")
                )
