"""The file system as a replicated machine: commands in as bytes, replies out as bytes."""

from collections.abc import Iterator

from minigfs.master.commands import (
    Command,
    CommandReply,
    decode_command,
    encode_reply,
)
from minigfs.master.release import let_go
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.state import FileSystemState, initial_state
from minigfs.master.transition import transition

__all__ = ["FILE_SYSTEM_MACHINE", "FileSystemMachine"]

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
        let_go(frozen, lambda: self._state)

    def restore(self, records: Iterator[bytes]) -> None:
        """Replace the state with a frozen one; no records: the state before the first entry."""
        restored = restore_state(records)
        replaced, self._state = [self._state], restored
        let_go(replaced, initial_state)  # the two share nothing

    def preview(self, command: Command) -> tuple[FileSystemState, CommandReply]:
        """What a command would lead to, for another machine's compound entry to ``adopt``."""
        return transition(self._state, command)

    def adopt(self, state: FileSystemState) -> None:
        """Take on a state that ``preview`` gave since the last entry was applied.

        To be called while an entry is being applied, and nowhere else: the state is a function of
        the log.
        """
        self._state = state
