"""What a campaign found, kept beside the catalogue, and the table made of it.

``results.json`` holds a line for each mutant with the fingerprint of the text it was found for;
``docs/mutants.md`` is written from it and from nothing else. A test holds the three together, so
the table stays true.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.mutants.mutant import ROOT, Mutant

__all__ = [
    "RESULTS",
    "TABLE",
    "Result",
    "SimulatorResult",
    "load_results",
    "render_table",
    "save_results",
    "stale_results",
]

RESULTS = Path(__file__).parent / "results.json"
TABLE = ROOT / "docs" / "mutants.md"

_HEAD = """\
# Mutants: planted mistakes, and who finds them

Each line is one mistake, planted in a copy of the source; no test knows of it. "Row" counts in the
list of mistakes known from other implementations; a dash is one that we thought of ourselves. A
mutant is killed only if *every* test named fails. "Seeds" is how many seeds of the simulator ran,
from seed 0, until one failed (`python -m tests.sim`).

`make mutants` repeats it, `make mutants MUTANTS="r01 'r3*'"` for some. This file is written by
`python -m tests.mutants --record`.

"""


class SimulatorResult(msgspec.Struct, frozen=True, kw_only=True):
    """``killed_in`` seeds run until one failed; None if none of ``seeds`` did."""

    seeds: int
    killed_in: int | None
    reason: str = ""

    def answers(self, seeds: int) -> bool:
        """Whether it says already what so many seeds would find."""
        return self.killed_in is not None or self.seeds >= seeds


class Result(msgspec.Struct, frozen=True, kw_only=True):
    fingerprint: str
    killed: bool
    simulator: SimulatorResult | None = None


def load_results(path: Path = RESULTS) -> dict[str, Result]:
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Result])


def save_results(results: Mapping[str, Result], path: Path = RESULTS) -> None:
    ordered = {name: results[name] for name in sorted(results)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")


def stale_results(catalogue: Sequence[Mutant], results: Mapping[str, Result]) -> list[str]:
    """Mutants without a result of their present text, and results without a mutant."""
    names = {mutant.name for mutant in catalogue}
    without = [
        mutant.name
        for mutant in catalogue
        if mutant.name not in results or results[mutant.name].fingerprint != mutant.fingerprint
    ]
    return without + sorted(set(results) - names)


def render_table(catalogue: Sequence[Mutant], results: Mapping[str, Result]) -> str:
    lines = [
        "| mutant | row | mistake | seen in | in | killed by | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for mutant in catalogue:
        cells = (
            mutant.name.partition("-")[0],
            ", ".join(map(str, mutant.rows)) or "-",
            mutant.mistake,
            mutant.seen or "-",
            _files(mutant),
            _killers(mutant, results.get(mutant.name)),
            _seeds(mutant, results.get(mutant.name)),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    killed = sum(1 for mutant in catalogue if _is_killed(mutant, results))
    by_simulator = sum(1 for result in results.values() if _in_simulator(result))
    asked = sum(1 for result in results.values() if result.simulator is not None)
    summary = (
        f"{killed} of {len(catalogue)} are killed by tests. The simulator was asked about "
        f"{asked} of them and finds {by_simulator}.\n\n"
    )
    reasons = [f"- `{mutant.name}`: {mutant.why}" for mutant in catalogue if mutant.why]
    tail = "\n\nNot for the simulator (`-`), and why:\n\n" + "\n".join(reasons) if reasons else ""
    return _HEAD + summary + "\n".join(lines) + tail + "\n"


def _is_killed(mutant: Mutant, results: Mapping[str, Result]) -> bool:
    return mutant.name in results and results[mutant.name].killed


def _in_simulator(result: Result) -> bool:
    return result.simulator is not None and result.simulator.killed_in is not None


def _files(mutant: Mutant) -> str:
    files = dict.fromkeys(change.file.removeprefix("minigfs/") for change in mutant.changes)
    return ", ".join(f"`{file}`" for file in files)


def _killers(mutant: Mutant, result: Result | None) -> str:
    if result is None:
        return "not run"
    if not result.killed:
        return "**survived**"
    return "<br>".join(f"`{node.partition('::')[2]}`" for node in mutant.killed_by)


def _seeds(mutant: Mutant, result: Result | None) -> str:
    if not mutant.simulator:
        return "-"
    if result is None or result.simulator is None:
        return "not run"
    found = result.simulator.killed_in
    return str(found) if found is not None else f"not in {result.simulator.seeds}"
