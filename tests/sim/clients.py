"""Clients of the group: sessions, retries of the same request at other members, and what they saw.

A client has one session and a few requests out at the same time. A request that gets no answer is
asked again under the same number, until it is answered or given up; then nobody knows whether it
took place. Everything is recorded for the linearizability checker. Answers may be lost, requests
may wait in a paused member and be found there much later.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from tests.linearizability.history import Call, History, OperationId, Value
from tests.sim.checks.ledger import Ledger
from tests.sim.coverage import Coverage
from tests.sim.key_value_machine import Command, decode_result, encode_command
from tests.sim.options import Options
from tests.sim.process import KV_MACHINE, Process
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.trace import Trace
from tests.sim.violation import Violation, require

__all__ = ["Client", "Group", "Request"]

TRIES_MAX = 25
REGISTERS = ("r0", "r1", "r2")
LISTS = ("l0", "l1")
ACTIONS = ("append",) * 5 + ("get",) * 2 + ("write",) * 3 + ("read",) * 3 + ("cas",) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What clients know of the world."""

    scheduler: Scheduler
    options: Options
    trace: Trace
    coverage: Coverage
    ledger: Ledger
    registers: History
    lists: History
    processes: Callable[[], Sequence[Process]]


@dataclass(slots=True)
class Request:
    """One operation on its way. ``barrier``: a read that goes beside the log."""

    number: int
    call: Call
    barrier: bool
    command: bytes
    history: History
    recorded: OperationId
    then: Callable[[], None]
    origin: Origin | None = None
    tries: int = 0
    answered: bool = False


class Client:
    """Works until ``stop``. ``first_number`` sets its operations apart from all others'."""

    def __init__(self, group: Group, name: str, first_number: int, seed: str) -> None:
        self._group = group
        self.name = name
        self._chance = random.Random(seed)
        self._next_number = first_number
        self._session: SessionId | None = None
        self._opening = False
        self._sequence = 0
        self._open_sequences: set[int] = set()
        self._target: NodeId | None = None
        self.stopped = False
        self.open_requests = 0
        self.acknowledged: list[int] = []
        """Numbers of operations whose success was reported."""
        for _ in range(group.options.window):
            self._rest(self._begin)

    def stop(self) -> None:
        """Begin nothing new; what is out is still answered or given up."""
        self.stopped = True

    # Operations

    def _rest(self, then: Callable[[], None]) -> None:
        self._group.scheduler.after(self._chance.randrange(2 * self._group.options.think_us), then)

    def _begin(self) -> None:
        if self.stopped:
            return
        if self._session is None:
            self._open_session()
            self._group.scheduler.after(20 * MS, self._begin)
            return
        self.submit(self._draw_call(), lambda: self._rest(self._begin))

    def _draw_call(self) -> Call:
        chance, action = self._chance, self._chance.choice(ACTIONS)
        value = self._next_number
        match action:
            case "append":
                return (action, chance.choice(LISTS), value)
            case "get":
                return (action, chance.choice(LISTS))
            case "read":
                return (action, chance.choice(REGISTERS))
            case "write":
                return (action, chance.choice(REGISTERS), value)
            case _:
                expected = max(0, value - chance.randrange(1, 4))
                return (action, chance.choice(REGISTERS), expected, value)

    def submit(self, call: Call, then: Callable[[], None]) -> Request:
        """Ask for one operation; ``then`` when it was answered or given up."""
        action, key, *values = call
        command = Command(
            operation=self._next_number,
            action=action,  # type: ignore[arg-type]
            key=str(key),
            value=values[-1] if values else 0,  # type: ignore[arg-type]
            expected=values[0] if action == "cas" else None,  # type: ignore[arg-type]
            padding=bytes(self._chance.randrange(self._group.options.value_bytes + 1)),
        )
        history = self._group.lists if str(key).startswith("l") else self._group.registers
        request = Request(
            number=self._next_number,
            call=call,
            barrier=not values and self._chance.random() < 0.8,
            command=encode_command(command),
            history=history,
            recorded=history.invoke(f"{self.name}.{self._next_number}", call),
            then=then,
        )
        self._next_number += 1
        self.open_requests += 1
        if not request.barrier:
            self._sequence += 1
            self._open_sequences.add(self._sequence)
            assert self._session is not None
            request.origin = Origin(self._session, self._sequence, min(self._open_sequences))
        self._try(request)
        return request

    def _try(self, request: Request) -> None:
        if request.answered:
            return
        request.tries += 1
        if request.tries > TRIES_MAX:
            self._finish(request, known=False)
            return
        group, chance = self._group, self._chance
        process = self._pick()
        group.trace.note(f"{self.name} asks {process.id} {request.call} try {request.tries}")
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
        origin, command = request.origin, request.command
        if request.barrier:

            def ask(member: Member, ticket: Ticket) -> None:
                member.read(ticket)
        else:

            def ask(member: Member, ticket: Ticket) -> None:
                member.propose(KV_MACHINE, command, origin, ticket)

        def answer(outcome: Outcome) -> None:
            reply: Value = None
            if outcome.error is None and request.barrier:
                require(
                    process.machines.applied_index >= committed_then,
                    "stale read",
                    f"{process.id} answers a read at {process.machines.applied_index}; entry "
                    f"{committed_then} was committed when it was asked for",
                )
                reply = process.kv.read(str(request.call[1]))
            elif outcome.reply is not None:
                reply = decode_result(outcome.reply)
            self._reply_later(request, request.tries, process, outcome, reply)

        if not process.ask(ask, answer):
            self._group.scheduler.after(MS, self._try_again_elsewhere, request, request.tries)

    def _try_again_elsewhere(self, request: Request, tries: int) -> None:
        if request.tries == tries and not request.answered:
            self._target = None
            self._try_again(request)

    def _reply_later(
        self, request: Request, tries: int, process: Process, outcome: Outcome, reply: Value
    ) -> None:
        group, chance = self._group, self._chance
        if chance.randrange(1000) < group.options.request_loss_permille:
            group.coverage["replies lost"] += 1
            return
        group.scheduler.after(
            chance.randrange(2 * MS), self._replied, request, tries, process, outcome, reply
        )

    def _replied(
        self, request: Request, tries: int, process: Process, outcome: Outcome, reply: Value
    ) -> None:
        if request.answered:
            return
        error = outcome.error
        shown = reply if error is None else type(error).__name__
        self._group.trace.note(f"{self.name} hears {process.id} {request.call}: {shown}")
        if error is None:
            self._target = process.id
            if not request.barrier:
                self.acknowledged.append(request.number)
            self._finish(request, known=True, reply=reply)
        elif isinstance(error, SessionUnknown):
            self._group.coverage["sessions lost"] += 1
            if request.origin is not None and request.origin.session_id == self._session:
                self._session = None
            self._finish(request, known=False)
        elif isinstance(error, StaleRequest):
            raise Violation("stale request", f"{self.name} never heard of {request}: {error}")
        else:
            self._target = process.node.state.leader_id if process.is_up else None
            if tries == request.tries:
                self._try_again(request)

    def _finish(self, request: Request, *, known: bool, reply: Value = None) -> None:
        request.answered = True
        self.open_requests -= 1
        if request.origin is not None and request.origin.session_id == self._session:
            self._open_sequences.discard(request.origin.sequence)
        if known:
            request.history.ok(request.recorded, reply)
            self._group.coverage["operations"] += 1
        else:
            request.history.unknown(request.recorded)
            self._group.coverage["unknown outcomes"] += 1
        request.then()

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
