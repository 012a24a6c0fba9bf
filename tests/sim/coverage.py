"""How much of what can happen did happen in a run."""

from collections import Counter

__all__ = ["Coverage"]


class Coverage(Counter[str]):
    """Counts by name. ``REQUIRED`` is what every run must have had at least so often."""

    REQUIRED = ("elections", "crash-restarts", "snapshot installs", "changes and transfers")

    def missing(self) -> list[str]:
        self["changes and transfers"] = self["membership changes"] + self["transfers"]
        return [name for name in self.REQUIRED if not self[name]]

    def summary(self) -> str:
        """The main figures in a fixed order, then everything else by name."""
        self.missing()
        main = ("delivered", *self.REQUIRED, "membership changes", "transfers")
        rest = sorted(name for name, count in self.items() if count and name not in main)
        return ", ".join(f"{name} {self[name]}" for name in (*main, *rest))
