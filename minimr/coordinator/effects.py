"""What the coordinator wants done, in order; whoever drives it holds the only ``match`` on it."""

from dataclasses import dataclass

from minigfs.errors import MinigfsError
from minigfs.transport.messages import Message
from minimr.coordinator.commands import Command
from minimr.messages import JobSpec

__all__ = ["DiscardStaging", "Effect", "Propose", "PublishOutput", "Refuse", "Reply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    token: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    token: int
    error: MinigfsError

    def __eq__(self, other: object) -> bool:
        """Exceptions compare by identity; effects are values."""
        if not isinstance(other, Refuse):
            return NotImplemented
        mine = (self.token, type(self.error), self.error.message)
        return mine == (other.token, type(other.error), other.error.message)

    def __hash__(self) -> int:
        return hash((self.token, self.error.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Make ``command`` durable, apply it to the machine, then hand in ``Applied`` with both fields.

    Commands go into the log in the order of these effects. If the log refuses one with a
    ``token``, answer that caller with the error and hand in ``Refused``; one without is proposed
    again until the log takes it.
    """

    command: Command
    token: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOutput:
    """Let ``spec.staging`` take the place of ``spec.output`` and apply ``PublishJob``, all in one
    log entry; then hand in ``Applied(PublishJob)``, or ``PublishRefused``."""

    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardStaging:
    """The job ended without output and none of its attempts runs: remove its staging directory and
    that of its attempts."""

    spec: JobSpec


Effect = Reply | Refuse | Propose | PublishOutput | DiscardStaging
