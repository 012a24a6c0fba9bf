"""One figure of a benchmark beside what the machine itself could do, and tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

__all__ = ["Figure", "Limit", "figure_table"]


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes a second, and what bounds them."""

    rate: float
    name: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the table. ``of_limit``: the share of the machine's own limit, if it has one."""

    system: str
    what: str
    value: float
    unit: str
    of_limit: float | None = None
    limit: str = ""

    @classmethod
    def rate(cls, system: str, what: str, rate: float, limit: Limit) -> Self:
        """Of bytes a second."""
        return cls(
            system=system,
            what=what,
            value=rate / 1e6,
            unit="MB/s",
            of_limit=rate / limit.rate,
            limit=limit.name,
        )

    @property
    def shown(self) -> str:
        return f"{self.value:,.1f}" if self.value < 10 else f"{self.value:,.0f}"

    @property
    def share(self) -> str:
        return "" if self.of_limit is None else f"{self.of_limit:.0%}"


def figure_table(figures: Sequence[Figure]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows: a line for each thing that was measured, two columns for each system."""
    systems = list(dict.fromkeys(figure.system for figure in figures))
    heads = ["what", "unit", "limit"]
    for system in systems:
        heads += [system, "of limit"]
    rows: list[tuple[str, ...]] = []
    for what in dict.fromkeys(figure.what for figure in figures):
        cells = {figure.system: figure for figure in figures if figure.what == what}
        first = next(iter(cells.values()))
        row = [what, first.unit, first.limit]
        for system in systems:
            cell = cells.get(system)
            row += [cell.shown, cell.share] if cell is not None else ["", ""]
        rows.append(tuple(row))
    return tuple(heads), rows
