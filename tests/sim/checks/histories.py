"""What clients were told, held against one sequential copy and against the final state."""

from collections.abc import Iterable
from typing import Any

from tests.linearizability.checker import Answer, Budget, Model, check
from tests.linearizability.history import History
from tests.linearizability.models import KeyValueModel, NamespaceModel, RegisterModel
from tests.sim.checks.states import StateBook
from tests.sim.coverage import Coverage
from tests.sim.violation import require

__all__ = ["check_acknowledged", "check_histories", "check_namespace"]

STEPS_MAX = 200_000
TREE_STEPS_MAX = 30_000  # each copies a small tree


def check_histories(registers: History, lists: History, coverage: Coverage) -> None:
    """Linearizable, or not decided within the budget (which is counted)."""
    _check(registers, RegisterModel(), STEPS_MAX, coverage)
    _check(lists, KeyValueModel(), STEPS_MAX, coverage)


def check_namespace(files: History, coverage: Coverage) -> None:
    """As above, of the tree of files."""
    _check(files, NamespaceModel(), TREE_STEPS_MAX, coverage)


def _check(history: History, model: Model[Any], steps_max: int, coverage: Coverage) -> None:
    verdict = check(history.operations(), model, Budget(steps=steps_max))
    if verdict.answer is Answer.UNKNOWN:
        coverage["undecided histories"] += 1
    require(verdict.answer is not Answer.ILLEGAL, "not linearizable", str(verdict))


def check_acknowledged(operations: Iterable[int], book: StateBook, last_index: int) -> None:
    """Every acknowledged write is in the state all members agree on (once: see ``StateBook``)."""
    for operation in operations:
        index = book.executions_of(operation)
        require(
            index is not None and index <= last_index,
            "acknowledged write lost",
            f"operation {operation} was acknowledged; it was executed at {index}, and the final "
            f"state is that of entry {last_index}",
        )
