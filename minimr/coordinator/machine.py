"""The coordinator's hard state as a replicated machine: bytes of commands in, states out."""

from collections.abc import Iterator

from minimr.coordinator.commands import Command, decode_command
from minimr.coordinator.snapshot import freeze_state, restore_state
from minimr.coordinator.state import CoordinatorState
from minimr.coordinator.transitions import transition

__all__ = ["CoordinatorMachine"]

_CHANGED, _UNCHANGED = b"1", b"0"


class CoordinatorMachine:
    """Applies commands in log order; the same log gives the same state on every master."""

    def __init__(self, state: CoordinatorState | None = None) -> None:
        self._state = state if state is not None else CoordinatorState()

    @property
    def state(self) -> CoordinatorState:
        return self._state

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the command at ``index`` of the log; ``b"1"`` if it changed the state.

        ``index`` is not needed: a command carries all that its effect depends on.
        """
        del index
        before = self._state
        self._state = self.preview(decode_command(command))
        return _UNCHANGED if self._state is before else _CHANGED

    def freeze(self) -> Iterator[bytes]:
        """The state as it is now, as records that are made as they are drawn."""
        return freeze_state(self._state)

    def restore(self, records: Iterator[bytes]) -> None:
        """Replace the state with a frozen one; no records: the state before the first entry."""
        self._state = restore_state(records)

    def preview(self, command: Command) -> CoordinatorState:
        """The state ``command`` would give; the same object if it would change nothing."""
        return transition(self._state, command)

    def adopt(self, state: CoordinatorState) -> None:
        """Take over a previewed state: one half of an entry that changes two machines."""
        self._state = state
