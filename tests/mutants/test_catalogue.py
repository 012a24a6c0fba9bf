"""The mutants fit the source of today, and the table says what was found about them."""

from pathlib import Path

import pytest

from tests.mutants.campaign import Outcome, Tree
from tests.mutants.mutant import (
    ROOT,
    Change,
    Misplanted,
    Mutant,
    load_catalogue,
    missing_tests,
    planted,
)
from tests.mutants.results import TABLE, load_results, render_table, stale_results

CATALOGUE = load_catalogue()
EVERY_MUTANT = pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)


@EVERY_MUTANT
def test_the_mutant_can_be_planted(mutant: Mutant) -> None:
    texts = planted(mutant, ROOT)
    assert all(text != (ROOT / file).read_text() for file, text in texts.items())


@EVERY_MUTANT
def test_its_killers_exist(mutant: Mutant) -> None:
    assert mutant.killed_by
    assert missing_tests(mutant, ROOT) == []


def test_every_mutant_was_run_as_it_is_and_is_dead() -> None:
    """Run ``python -m tests.mutants --record NAME`` for those named here."""
    results = load_results()
    assert stale_results(CATALOGUE, results) == []
    assert [name for name, result in results.items() if not result.killed] == []


def test_the_table_is_made_of_the_results() -> None:
    """Run ``python -m tests.mutants --table`` if it is not."""
    assert TABLE.read_text() == render_table(CATALOGUE, load_results())


def test_a_mutant_whose_text_moved_is_refused_loudly(tmp_path: Path) -> None:
    (tmp_path / "planted_code.py").write_text("a = 1\na = 1\n")
    for old, count in (("a = 1\n", 2), ("b = 1\n", 0)):
        with pytest.raises(Misplanted, match=f"is {count} times in planted_code.py"):
            planted(_mutant(Change(file="planted_code.py", old=old, new="a = 2\n")), tmp_path)
    with pytest.raises(Misplanted, match="no Python any more"):
        planted(_mutant(Change(file="planted_code.py", old="a = 1\na", new="a a")), tmp_path)


def test_only_a_mutant_that_fails_every_named_test_is_dead(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "planted_code.py").write_text("a = 1\nb = 1\n")
    (tmp_path / "clean" / "test_planted_code.py").write_text(
        "import planted_code as code\n"
        "def test_a():\n    assert code.a == 1\n"
        "def test_b():\n    assert code.b == 1\n"
    )
    clean = Tree(tmp_path / "clean")
    both = ["test_planted_code.py::test_a", "test_planted_code.py::test_b"]
    assert clean.run_tests(both).outcome is Outcome.SURVIVED
    tree = clean.with_mutant(
        _mutant(Change(file="planted_code.py", old="a = 1", new="a = 2")), tmp_path / "mutant"
    )
    assert tree.run_tests(both).outcome is Outcome.SURVIVED
    assert tree.run_tests(both[:1]).outcome is Outcome.KILLED
    assert tree.run_tests(["test_planted_code.py::test_gone"]).outcome is Outcome.BROKEN
    assert (tmp_path / "clean" / "planted_code.py").read_text() == "a = 1\nb = 1\n"


def _mutant(change: Change) -> Mutant:
    return Mutant(
        name="m",
        mistake="",
        rows=(),
        seen="",
        killed_by=(),
        changes=(change,),
        simulator=False,
        why="",
        fingerprint="",
    )
