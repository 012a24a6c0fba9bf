"""The ``--set`` options of a job, checked: one clear error for what a job does not know."""

from collections.abc import Mapping
from dataclasses import dataclass

from minimr.errors import JobUsageError

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What was set for the job ``job_name``, which knows the settings ``known``."""

    job_name: str
    settings: Mapping[str, str]
    known: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in sorted(set(self.settings) - set(self.known)):
            known = ", ".join(self.known)
            raise JobUsageError(f"{self.job_name} has no setting {name!r}: it knows {known}")

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of ``allowed``; the first one by default."""
        value = self.settings.get(name, allowed[0])
        if value not in allowed:
            raise self.wrong(name, f"is none of {', '.join(allowed)}")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false by default."""
        return self.choice(name, ("false", "true")) == "true"

    def number(self, name: str, default: int) -> int:
        """A whole number from 1."""
        text = self.settings.get(name, str(default))
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            raise self.wrong(name, "must be a whole number from 1")
        return int(text)

    def wrong(self, name: str, why: str) -> JobUsageError:
        return JobUsageError(f"{self.job_name}: {name}={self.settings.get(name)!r} {why}")
