"""The file system as a replicated machine: commands in as bytes, replies out as bytes."""

from collections.abc import Callable, Iterator
from typing import Any

from immutables import Map

from minigfs.master.commands import (
    Command,
    CommandReply,
    decode_command,
    encode_reply,
)
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.state import FileSystemState, initial_state
from minigfs.master.transition import transition

__all__ = ["FILE_SYSTEM_MACHINE", "FileSystemMachine"]

FREED_MAX = 500  # at once, since it takes a millisecond
MANY = 10_000
FILE_SYSTEM_MACHINE = "fs"  # its name in the log


class FileSystemMachine:
    """Holds the state that the log's commands have led to; see ``replication.machines.Machine``."""

    def __init__(self) -> None:
        self._state = initial_state()

    @property
    def state(self) -> FileSystemState:
        """The state now: immutable, so whoever holds it may take their time."""
        return self._state

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one entry of the log; a refusal is a reply like any other."""
        self._state, reply = transition(self._state, decode_command(command))
        return encode_reply(reply)

    def freeze(self) -> Iterator[bytes]:
        """The state as it is now, as records that are made as they are drawn."""
        return self._frozen([self._state])

    def _frozen(self, frozen: list[FileSystemState]) -> Iterator[bytes]:
        yield from freeze_state(frozen[0])
        _let_go(frozen, lambda: self._state)

    def restore(self, records: Iterator[bytes]) -> None:
        """Replace the state with a frozen one; no records: the state before the first entry."""
        restored = restore_state(records)
        replaced, self._state = [self._state], restored
        _let_go(replaced, initial_state)  # the two share nothing

    def preview(self, command: Command) -> tuple[FileSystemState, CommandReply]:
        """What a command would lead to, for another machine's compound entry to ``adopt``."""
        return transition(self._state, command)

    def adopt(self, state: FileSystemState) -> None:
        """Take on a state that ``preview`` gave since the last entry was applied.

        To be called while an entry is being applied, and nowhere else: the state is a function of
        the log.
        """
        self._state = state


def _let_go(last_holder: list[FileSystemState], kept: Callable[[], FileSystemState]) -> None:
    """Free a state that was held until now, except for what the one kept shares with it.

    What is large is freed in small parts: a million files in one stroke take more than a second in
    which no thread of the process runs. Meanwhile the state that is kept moves on.
    """
    state = last_holder.pop()
    maps: list[tuple[Map[Any, Any], Callable[[FileSystemState], Map[Any, Any]]]] = [
        (state.inodes, lambda state: state.inodes),
        (state.chunks, lambda state: state.chunks),
        (state.garbage, lambda state: state.garbage),
    ]
    del state
    while maps:
        going, same_of = maps.pop()
        while keys := _only_in(going, same_of(kept())):
            while keys:
                smaller = going.mutate()
                for key in keys[-FREED_MAX:]:
                    del smaller[key]
                del keys[-FREED_MAX:]
                going = smaller.finish()


def _only_in(going: Map[Any, Any], staying: Map[Any, Any]) -> list[Any]:
    """The keys of values that are freed with a map, if they may be many."""
    if len(going) - len(staying) < MANY:  # else as many must have come as have gone
        return []
    return [key for key, value in going.items() if staying.get(key) is not value]
