"""What every client does: a session, and retries of the same request at other members.

A request that gets no answer is asked again under the same number, until it is answered or given
up; then nobody knows whether it took place. Answers may be lost, requests may wait in a paused
member and be found there much later.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigfs.errors import SessionUnknown, StaleRequest
from minigfs.ids import Origin, SessionId
from minigfs.raft import NodeId
from minigfs.replication.commands import (
    SESSIONS_MACHINE,
    OpenSession,
    decode_session_id,
    encode_session_command,
)
from minigfs.replication.member import Member, Outcome, Ticket
from tests.sim.checks.ledger import Ledger
from tests.sim.coverage import Coverage
from tests.sim.options import Options
from tests.sim.process import Process
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.trace import Trace
from tests.sim.violation import Violation, require

__all__ = ["Answer", "Group", "Request", "Requester"]

TRIES_MAX = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What clients know of the world."""

    scheduler: Scheduler
    options: Options
    trace: Trace
    coverage: Coverage
    ledger: Ledger
    processes: Callable[[], Sequence[Process]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a request ended. ``known`` False: nobody knows whether it took place."""

    known: bool
    value: Any = None


@dataclass(slots=True, kw_only=True)
class Request:
    """One request on its way: a change of ``machine``, or with ``read`` a read beside the log."""

    number: int
    label: str
    then: Callable[[Answer], None]
    machine: str = ""
    command: Callable[[int], bytes] = lambda tries: b""
    """The bytes of each try: in production the time in them is that of the master asked."""
    decode: Callable[[bytes], Any] = bytes
    read: Callable[[Process], Any] | None = None
    origin: Origin | None = None
    tries: int = 0
    answered: bool = False


class Requester:
    """Has one session at a time. ``stop`` it, and what is out is still answered or given up."""

    def __init__(self, group: Group, name: str, seed: str) -> None:
        self._group = group
        self.name = name
        self._chance = random.Random(seed)
        self._session: SessionId | None = None
        self._opening = False
        self._sequence = 0
        self._open_sequences: set[int] = set()
        self._target: NodeId | None = None
        self.stopped = False
        self.open_requests = 0
        self.acknowledged: list[int] = []
        """Numbers of changes whose success was reported."""

    def stop(self) -> None:
        """Begin nothing new; what is out is still answered or given up."""
        self.stopped = True

    def has_session(self) -> bool:
        """Whether changes can be asked for; if not, a session is being opened."""
        if self._session is None:
            self._open_session()
        return self._session is not None

    def ask(self, request: Request) -> None:
        """``request.then`` is told when it was answered or given up."""
        self.open_requests += 1
        if request.read is None:
            self._sequence += 1
            self._open_sequences.add(self._sequence)
            assert self._session is not None
            request.origin = Origin(self._session, self._sequence, min(self._open_sequences))
        self._try(request)

    def _try(self, request: Request) -> None:
        if request.answered:
            return
        request.tries += 1
        if request.tries > TRIES_MAX:
            self._finish(request, Answer(known=False))
            return
        group, chance = self._group, self._chance
        process = self._pick()
        group.trace.note(f"{self.name} asks {process.id} {request.label} try {request.tries}")
        if chance.randrange(1000) >= group.options.request_loss_permille:
            group.scheduler.after(chance.randrange(2 * MS), self._arrive, request, process)
        if chance.randrange(1000) < group.options.request_late_permille:
            group.coverage["late requests"] += 1
            again = chance.choice(group.processes())
            group.scheduler.after(chance.randrange(2 * SECOND), self._arrive, request, again)
        patience_us = group.options.patience_us
        wait_us = patience_us + chance.randrange(patience_us)
        group.scheduler.after(wait_us, self._run_out, request, request.tries)

    def _pick(self) -> Process:
        """The member that last led or was said to lead; now and then any other, or one that
        believes to lead though its time is over, for there stale answers come from."""
        processes, drawn = self._group.processes(), self._chance.random()
        if drawn < 0.2:
            leading = [process for process in processes if process.leads]
            if leading:
                return min(leading, key=lambda process: process.node.state.current_term)
        if self._target is not None and drawn < 0.9:
            for process in processes:
                if process.id == self._target:
                    return process
        return self._chance.choice(processes)

    def _run_out(self, request: Request, tries: int) -> None:
        if not request.answered and request.tries == tries:
            self._target = None
            self._group.coverage["client retries"] += 1
            self._try(request)

    def _try_again(self, request: Request) -> None:
        tries = request.tries
        delay_us = self._chance.randrange(5 * MS, 60 * MS)
        self._group.scheduler.after(delay_us, self._try_if_still, request, tries)

    def _try_if_still(self, request: Request, tries: int) -> None:
        if request.tries == tries:
            self._try(request)

    # At the member

    def _arrive(self, request: Request, process: Process) -> None:
        committed_then = self._group.ledger.commit_index
        origin, command, read = request.origin, request.command(request.tries), request.read
        if read is not None:

            def ask(member: Member, ticket: Ticket) -> None:
                member.read(ticket)
        else:

            def ask(member: Member, ticket: Ticket) -> None:
                member.propose(request.machine, command, origin, ticket)

        def answer(outcome: Outcome) -> None:
            value: Any = None
            if outcome.error is None and read is not None:
                require(
                    process.machines.applied_index >= committed_then,
                    "stale read",
                    f"{process.id} answers a read at {process.machines.applied_index}; entry "
                    f"{committed_then} was committed when it was asked for",
                )
                value = read(process)
            elif outcome.reply is not None:
                value = request.decode(outcome.reply)
            self._reply_later(request, request.tries, process, outcome, value)

        if not process.ask(ask, answer):
            self._group.scheduler.after(MS, self._try_again_elsewhere, request, request.tries)

    def _try_again_elsewhere(self, request: Request, tries: int) -> None:
        if request.tries == tries and not request.answered:
            self._target = None
            self._try_again(request)

    def _reply_later(
        self, request: Request, tries: int, process: Process, outcome: Outcome, value: Any
    ) -> None:
        group, chance = self._group, self._chance
        if chance.randrange(1000) < group.options.request_loss_permille:
            group.coverage["replies lost"] += 1
            return
        group.scheduler.after(
            chance.randrange(2 * MS), self._replied, request, tries, process, outcome, value
        )

    def _replied(
        self, request: Request, tries: int, process: Process, outcome: Outcome, value: Any
    ) -> None:
        if request.answered:
            return
        error = outcome.error
        shown = value if error is None else type(error).__name__
        self._group.trace.note(f"{self.name} hears {process.id} {request.label}: {shown}")
        if error is None:
            self._target = process.id
            if request.read is None:
                self.acknowledged.append(request.number)
            self._finish(request, Answer(known=True, value=value))
        elif isinstance(error, SessionUnknown):
            self._group.coverage["sessions lost"] += 1
            if request.origin is not None and request.origin.session_id == self._session:
                self._session = None
            self._finish(request, Answer(known=False))
        elif isinstance(error, StaleRequest):
            raise Violation("stale request", f"{self.name} never heard of {request}: {error}")
        else:
            self._target = process.node.state.leader_id if process.is_up else None
            if tries == request.tries:
                self._try_again(request)

    def _finish(self, request: Request, answer: Answer) -> None:
        request.answered = True
        self.open_requests -= 1
        if request.origin is not None and request.origin.session_id == self._session:
            self._open_sequences.discard(request.origin.sequence)
        self._group.coverage["operations" if answer.known else "unknown outcomes"] += 1
        request.then(answer)

    # Sessions

    def _open_session(self) -> None:
        if self._opening:
            return
        self._opening = True
        process = self._pick()

        def ask(member: Member, ticket: Ticket) -> None:
            command = encode_session_command(OpenSession())
            member.propose(SESSIONS_MACHINE, command, None, ticket)

        def answer(outcome: Outcome) -> None:
            self._opening = False
            if outcome.reply is not None and self._session is None:
                self._session = decode_session_id(outcome.reply)
                self._sequence = 0
                self._open_sequences.clear()
                self._target = process.id
            elif outcome.error is not None:
                self._target = process.node.state.leader_id

        def give_up() -> None:
            self._opening = False

        if not process.ask(ask, answer):
            self._target = None
        self._group.scheduler.after(self._group.options.patience_us, give_up)
