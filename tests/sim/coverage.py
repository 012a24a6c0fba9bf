"""How much of what can happen did happen in a run."""

from collections import Counter
from typing import ClassVar

__all__ = ["Coverage", "StorageCoverage"]


class Coverage(Counter[str]):
    """Counts by name. ``REQUIRED`` is what every run must have had at least so often."""

    REQUIRED: ClassVar[tuple[str, ...]] = (
        "elections",
        "crash-restarts",
        "snapshot installs",
        "changes and transfers",
    )
    COUNTED: ClassVar[tuple[str, ...]] = ("delivered", *REQUIRED)
    """Of these a campaign shows the least of any run."""

    def missing(self) -> list[str]:
        self["changes and transfers"] = self["membership changes"] + self["transfers"]
        return [name for name in self.REQUIRED if not self[name]]

    def summary(self) -> str:
        """The main figures in a fixed order, then everything else by name."""
        self.missing()
        rest = sorted(name for name, count in self.items() if count and name not in self.COUNTED)
        return ", ".join(f"{name} {self[name]}" for name in (*self.COUNTED, *rest))


class StorageCoverage(Coverage):
    """Of a storage world, where clients do something in every run."""

    REQUIRED = ("changes of files", "records appended", "reads")
    COUNTED = (*REQUIRED, "chunkserver restarts", "elections")

    def missing(self) -> list[str]:
        return [name for name in self.REQUIRED if not self[name]]
