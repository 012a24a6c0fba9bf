"""The replicated machine of the simulated group: registers and lists by key.

Its state carries a digest of every command and reply in order, so two machines that did not do the
same are told apart by eight bytes. Everything it does is shown to an observer, which belongs to the
world and survives crashes.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

__all__ = ["Command", "KeyValueMachine", "MachineObserver", "decode_result", "encode_command"]

RECORD_BYTES = 300

Action = Literal["write", "read", "cas", "append", "get"]
Value = bool | int | tuple[int, ...] | None


class Command(msgspec.Struct, frozen=True, array_like=True):
    """``operation`` is unique in a run: a machine that executes it twice is wrong."""

    operation: int
    action: Action
    key: str
    value: int = 0
    expected: int | None = None
    padding: bytes = b""


class State(msgspec.Struct, array_like=True):
    registers: dict[str, int]
    lists: dict[str, list[int]]
    digest: bytes
    padding: bytes


class MachineObserver(Protocol):
    def executed(self, index: int, command: bytes, reply: bytes, digest: bytes) -> None: ...

    def frozen(self, state: bytes) -> None: ...

    def restored(self, state: bytes) -> None: ...


_commands = msgspec.msgpack.Decoder(Command)
_states = msgspec.msgpack.Decoder(State)
_results: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(
    bool | int | tuple[int, ...] | None
)
_encoder = msgspec.msgpack.Encoder()
_state_encoder = msgspec.msgpack.Encoder(order="deterministic")


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def decode_result(reply: bytes) -> Value:
    return _results.decode(reply)


class KeyValueMachine:
    """A ``Machine``. One life of one member has one."""

    def __init__(self, observer: MachineObserver) -> None:
        self._observer = observer
        self._state = State({}, {}, b"", b"")

    def apply(self, index: int, command: bytes) -> bytes:
        decoded = _commands.decode(command)
        reply = _encoder.encode(self._execute(decoded))
        state = self._state
        hashed = hashlib.blake2b(state.digest, digest_size=8)
        hashed.update(b"%d %d " % (index, len(command)) + command + reply)
        state.digest = hashed.digest()
        self._observer.executed(index, command, reply, state.digest)
        return reply

    def _execute(self, command: Command) -> Value:
        state = self._state
        if command.padding:
            state.padding = command.padding
        match command.action:
            case "write":
                state.registers[command.key] = command.value
                return None
            case "read" | "get":
                return self.read(command.key)
            case "cas":
                if state.registers.get(command.key) != command.expected:
                    return False
                state.registers[command.key] = command.value
                return True
            case "append":
                # A new list: an older one may be under way to a snapshot.
                state.lists[command.key] = [*state.lists.get(command.key, ()), command.value]
                return None

    def read(self, key: str) -> Value:
        """A register or a list, by the key's first letter; None if it was never written."""
        if key.startswith("r"):
            return self._state.registers.get(key)
        values = self._state.lists.get(key)
        return None if values is None else tuple(values)

    def freeze(self) -> Iterator[bytes]:
        state = self._state
        frozen = State(dict(state.registers), dict(state.lists), state.digest, state.padding)
        self._observer.frozen(_state_encoder.encode(frozen))

        def records() -> Iterator[bytes]:
            encoded = _state_encoder.encode(frozen)
            for start in range(0, len(encoded), RECORD_BYTES):
                yield encoded[start : start + RECORD_BYTES]

        return records()

    def restore(self, records: Iterator[bytes]) -> None:
        encoded = b"".join(records)
        self._state = _states.decode(encoded) if encoded else State({}, {}, b"", b"")
        self._observer.restored(encoded)

    def content(self) -> bytes:
        return _state_encoder.encode(self._state)

    @property
    def digest(self) -> bytes:
        return self._state.digest
