"""A mutant: one known mistake, planted in the product's text.

The catalogue is a folder of TOML files, one a mutant. Each names the mistake, where it was seen,
the exact text it changes and the tests that must fail once it is there::

    mistake = "an entry of an earlier term is committed by counting its replicas"
    rows = [1]                      # of the list of known mistakes; empty: planted beyond the list
    seen = "paper 5.4.2; nats-server PR 7955"
    killed_by = ["tests/minigfs/raft/test_paper.py::test_5_4_2_..."]
    simulator = true                # false: no run of whole members can show it; "why" says so

    [[change]]
    file = "minigfs/raft/replication.py"
    old = '''exact text, found once in the file'''
    new = '''what stands there instead'''

A change whose old text is not found exactly once is an error: the product moved, the mutant must
follow. So a mutant cannot quietly stop being planted.
"""

import ast
import functools
import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CATALOGUE",
    "ROOT",
    "Change",
    "Misplanted",
    "Mutant",
    "load_catalogue",
    "missing_tests",
    "planted",
]

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = Path(__file__).parent / "catalogue"


class Misplanted(Exception):
    """The mutant does not fit the source it is meant for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One replacement in one file, named by its path from the root of the source tree."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    mistake: str
    rows: tuple[int, ...]
    seen: str
    killed_by: tuple[str, ...]
    changes: tuple[Change, ...]
    simulator: bool
    why: str
    fingerprint: str
    """Of what is planted and who must kill it: a result of another text is no result of this."""


def load_catalogue(folder: Path = CATALOGUE) -> tuple[Mutant, ...]:
    """All mutants by name."""
    return tuple(_load(path) for path in sorted(folder.glob("*.toml")))


def _load(path: Path) -> Mutant:
    text = path.read_bytes()
    record = tomllib.loads(text.decode())
    unknown = set(record) - {"mistake", "rows", "seen", "killed_by", "change", "simulator", "why"}
    if unknown:
        raise Misplanted(f"{path.name}: unknown keys {sorted(unknown)}")
    return Mutant(
        name=path.stem,
        mistake=record["mistake"],
        rows=tuple(record["rows"]),
        seen=record["seen"],
        killed_by=tuple(record["killed_by"]),
        changes=tuple(Change(**change) for change in record["change"]),
        simulator=record.get("simulator", True),
        why=record.get("why", ""),
        fingerprint=hashlib.sha256(text).hexdigest()[:16],
    )


def planted(mutant: Mutant, root: Path) -> dict[str, str]:
    """The changed files, path to whole new text; raises ``Misplanted`` if one does not fit."""
    texts: dict[str, str] = {}
    for change in mutant.changes:
        path = root / change.file
        if change.file not in texts:
            if not path.is_file():
                raise Misplanted(f"{mutant.name}: there is no {change.file}")
            texts[change.file] = path.read_text()
        count = texts[change.file].count(change.old)
        if count != 1:
            raise Misplanted(
                f"{mutant.name}: its old text is {count} times in {change.file}, not once; "
                f"the source moved, follow it:\n{change.old}"
            )
        texts[change.file] = texts[change.file].replace(change.old, change.new)
    for file, text in texts.items():
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise Misplanted(f"{mutant.name}: {file} is no Python any more: {error}") from error
    return texts


def missing_tests(mutant: Mutant, root: Path) -> list[str]:
    """Those of its killers that are no test functions of the tree."""
    return [node for node in mutant.killed_by if not _is_test(node, root)]


def _is_test(node: str, root: Path) -> bool:
    file, _, name = node.partition("::")
    return name.startswith("test") and name in _functions_in(root / file)


@functools.cache
def _functions_in(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    functions = {
        found.name
        for found in ast.walk(tree)
        if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    machines = {
        target.id
        for found in tree.body
        if isinstance(found, ast.Assign)
        for target in found.targets
        if isinstance(target, ast.Name)
    }  # hypothesis: ``test_it = Machine.TestCase``
    return frozenset(functions | machines)
