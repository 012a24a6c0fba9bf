"""State-machine safety, seen from the machines: what was executed where, and what snapshots hold.

The same index means the same command, the same reply and the same state everywhere; a client's
operation is executed at one index only; a restored snapshot is the state that was frozen.
"""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tests.sim.key_value_machine import Command
from tests.sim.violation import Violation, require

__all__ = ["Applied", "MachineWatch", "StateBook"]

_commands = msgspec.msgpack.Decoder(Command)


class StateBook:
    """Everything any machine of the group ever did."""

    def __init__(self, coverage: Counter[str]) -> None:
        self.coverage = coverage
        self._executed: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._index_of_operation: dict[int, int] = {}
        self._frozen: set[int] = {zlib.crc32(b"")}
        self._applied: dict[tuple[str, int], tuple[bytes, bytes, int | None]] = {}
        self._states_at: dict[tuple[str, int], int] = {}

    def executed(
        self, member: str, index: int, command: bytes, reply: bytes, digest: bytes
    ) -> None:
        now = (command, reply, digest)
        known = self._executed.get(index)
        if known is None:
            self._executed[index] = now
            operation = _commands.decode(command).operation
            first = self._index_of_operation.setdefault(operation, index)
            require(
                first == index,
                "executed twice",
                f"operation {operation} at entries {first} and {index} (on {member})",
            )
        elif known != now:
            raise Violation(
                "machines differ", f"{member} at entry {index}: {now}, elsewhere {known}"
            )

    def applied(self, member: str, machine: str, index: int, facts: "Applied") -> bool:
        """A production machine applied an entry; whether it is the first to do so."""
        now = (facts.command, facts.reply, facts.state)
        known = self._applied.setdefault((machine, index), now)
        if known is not now:
            require(
                known == now,
                "machines differ",
                f"{machine} of {member} at entry {index}: {now}, elsewhere {known}",
            )
            return False
        if facts.operation is not None:
            first = self._index_of_operation.setdefault(facts.operation, index)
            require(
                first == index,
                "executed twice",
                f"operation {facts.operation} at entries {first} and {index} (on {member})",
            )
        return True

    def state_at(self, member: str, machine: str, index: int, state: bytes) -> None:
        """A machine was frozen when its member had applied ``index``."""
        checksum = zlib.crc32(state)
        known = self._states_at.setdefault((machine, index), checksum)
        require(
            known == checksum,
            "machines differ",
            f"{machine} of {member} is in another state at entry {index} than elsewhere",
        )
        self._frozen.add(checksum)

    def executions_of(self, operation: int) -> int | None:
        """The index at which it was executed, if it was."""
        return self._index_of_operation.get(operation)

    def frozen(self, state: bytes) -> None:
        self._frozen.add(zlib.crc32(state))

    def restored(self, member: str, state: bytes) -> None:
        require(
            zlib.crc32(state) in self._frozen,
            "snapshot differs",
            f"{member} restored a state that no machine ever was in",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """``state``: its checksum, of one entry in some; ``operation``: a client's, executed by it."""

    command: bytes
    reply: bytes
    state: int | None
    operation: int | None


class MachineWatch:
    """The eyes of the book on one life of one member's machine."""

    def __init__(self, book: StateBook, member: str) -> None:
        self._book = book
        self._member = member
        self.before_execution: Callable[[], None] = lambda: None
        self.is_live = False
        """The member runs: what it restores from now on, a leader sent."""

    def executed(self, index: int, command: bytes, reply: bytes, digest: bytes) -> None:
        self._book.executed(self._member, index, command, reply, digest)
        self.before_execution()

    def frozen(self, state: bytes) -> None:
        self._book.frozen(state)

    def restored(self, state: bytes) -> None:
        if self.is_live:
            self._book.coverage["snapshot installs"] += 1
        self._book.restored(self._member, state)

    def applied(self, machine: str, index: int, facts: Applied) -> bool:
        return self._book.applied(self._member, machine, index, facts)

    def state_at(self, machine: str, index: int, state: bytes) -> None:
        self._book.state_at(self._member, machine, index, state)

    def machine_restored(self, state: bytes) -> None:
        self._book.restored(self._member, state)
