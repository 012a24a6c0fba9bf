"""Reads logs of Jepsen's etcd test: one register, five workers, the oldest known answers there are.

The lines look like ``INFO  jepsen.util - 3  :invoke  :cas  [3 0]`` (tabs). A hundred of them, with
the verdict for each, come with Porcupine (``test_data/jepsen`` of anishathalye/porcupine); they
are not ours and not kept here, ``python -m tests.linearizability FILE --jepsen`` judges one.
"""

import re
from collections.abc import Iterable

from tests.linearizability.history import Call, History, InvalidHistory, Operation, OperationId

__all__ = ["parse_jepsen_log"]

_EVENT = re.compile(r"^INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(\w+)\s+:(read|write|cas)\s+(.+)$")
_KEY = "register"


def parse_jepsen_log(lines: Iterable[str]) -> tuple[Operation, ...]:
    """The history for ``RegisterModel``; times are the places of the events in the log.

    ``:fail :cas`` is an answer (the register held another value); ``:info`` and a failed read mean
    that the outcome is unknown. Raises ``InvalidHistory`` for an end without a beginning.
    """
    history = History(clock=lambda: 0)
    running: dict[str, OperationId] = {}
    for line in lines:
        event = _EVENT.match(line.strip())
        if event is None:
            continue
        process, kind, function, argument = event.groups()
        if kind == "invoke":
            running[process] = history.invoke(process, _call(function, argument))
            continue
        if process not in running:
            raise InvalidHistory(f"process {process} ends what it never began: {line.strip()!r}")
        number = running.pop(process)
        if kind == "info" or (kind, function) == ("fail", "read"):
            history.unknown(number)
        elif function == "cas":
            history.ok(number, kind == "ok")
        else:
            history.ok(number, _value(argument) if function == "read" else None)
    return history.operations()


def _call(function: str, argument: str) -> Call:
    if function == "read":
        return ("read", _KEY)
    values = argument.strip("[]").split()
    return (function, _KEY, *(int(value) for value in values))


def _value(argument: str) -> int | None:
    return None if argument == "nil" else int(argument)
