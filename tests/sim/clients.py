"""Clients of the key-value machine: registers and lists, and a history of what they saw.

A client has a few requests out at the same time. Everything is recorded for the linearizability
checker.
"""

from collections.abc import Callable

from tests.linearizability.history import Call, History
from tests.sim.key_value_machine import Command, decode_result, encode_command
from tests.sim.process import KV_MACHINE
from tests.sim.requests import Answer, Group, Request, Requester
from tests.sim.scheduler import MS

__all__ = ["Client"]

REGISTERS = ("r0", "r1", "r2")
LISTS = ("l0", "l1")
ACTIONS = ("append",) * 5 + ("get",) * 2 + ("write",) * 3 + ("read",) * 3 + ("cas",) * 2


class Client(Requester):
    """Works until ``stop``. ``first_number`` sets its operations apart from all others'."""

    def __init__(
        self, group: Group, registers: History, lists: History, name: str, first: int, seed: str
    ) -> None:
        super().__init__(group, name, seed)
        self._registers = registers
        self._lists = lists
        self._next_number = first
        for _ in range(group.options.window):
            self._rest(self._begin)

    def _rest(self, then: Callable[[], None]) -> None:
        self._group.scheduler.after(self._chance.randrange(2 * self._group.options.think_us), then)

    def _begin(self) -> None:
        if self.stopped:
            return
        if not self.has_session():
            self._group.scheduler.after(20 * MS, self._begin)
            return
        self._submit(self._draw_call())

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

    def _submit(self, call: Call) -> None:
        action, key, *values = call
        command = encode_command(
            Command(
                operation=self._next_number,
                action=action,  # type: ignore[arg-type]
                key=str(key),
                value=values[-1] if values else 0,  # type: ignore[arg-type]
                expected=values[0] if action == "cas" else None,  # type: ignore[arg-type]
                padding=bytes(self._chance.randrange(self._group.options.value_bytes + 1)),
            )
        )
        history = self._lists if str(key).startswith("l") else self._registers
        is_barrier = not values and self._chance.random() < 0.8
        recorded = history.invoke(f"{self.name}.{self._next_number}", call)

        def ended(answer: Answer) -> None:
            if answer.known:
                history.ok(recorded, answer.value)
            else:
                history.unknown(recorded)
            self._rest(self._begin)

        request = Request(
            number=self._next_number,
            label=str(call),
            then=ended,
            machine=KV_MACHINE,
            command=lambda tries: command,
            decode=decode_result,
            read=(lambda process: process.kv.read(str(key))) if is_barrier else None,
        )
        self._next_number += 1
        self.ask(request)
