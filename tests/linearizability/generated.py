"""Random histories for its tests: executed ones, damaged ones, and a slow second opinion.

An executed history is right by construction: every operation really takes place on the model at
one moment inside its interval. A damaged one had an answer or an interval changed and may be right
or wrong; ``has_order`` knows, by trying every order.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.linearizability.checker import Model
from tests.linearizability.history import Call, Operation, Value

__all__ = ["CALLS", "damaged", "executed", "has_order"]


def executed(
    model: Model[Any],
    rng: Random,
    draw_call: Callable[[Random, int], Call],
    *,
    clients: int,
    operations: int,
    unknown_share: float = 0.0,
) -> list[Operation]:
    """A history of ``clients`` that each run one operation after the other.

    An unknown operation takes place inside the interval it would have had, or after it, or never.
    """
    busy_until = [0] * clients
    planned: list[tuple[int, Operation]] = []  # when it takes place, -1 for never
    for number in range(operations):
        client = min(range(clients), key=lambda each: (busy_until[each], each))
        begin = busy_until[client] + rng.randint(1, 5)
        end = begin + rng.randint(1, 40)
        busy_until[client] = end
        unknown = rng.random() < unknown_share
        moment = rng.randint(begin, end)
        if unknown:
            moment = rng.choice([moment, end + rng.randint(1, 100), -1])
        operation = Operation(
            client=f"c{client}",
            call=draw_call(rng, number),
            invoked_at=begin * 2,
            returned_at=None if unknown else end * 2 + 1,
        )
        planned.append((moment, operation))
    return _with_answers(model, planned, rng)


def _with_answers(
    model: Model[Any], planned: Sequence[tuple[int, Operation]], rng: Random
) -> list[Operation]:
    answers: dict[int, Value] = {}
    states: dict[Value, Any] = {}
    for place in sorted(range(len(planned)), key=lambda n: (planned[n][0], rng.random())):
        moment, operation = planned[place]
        if moment < 0:
            continue
        key = model.keys(operation.call)[0]
        before = states.get(key, model.initial())
        states[key], answers[place] = model.apply(before, operation.call)
    return [
        operation if operation.unknown else replace(operation, result=answers[place])
        for place, (_, operation) in enumerate(planned)
    ]


def damaged(history: Sequence[Operation], rng: Random) -> list[Operation]:
    """The history with one or two lies in it, which may be harmless."""
    told = list(history)
    for _ in range(rng.randint(1, 2)):
        place, other = rng.randrange(len(told)), rng.randrange(len(told))
        operation = told[place]
        match rng.randrange(4):
            case 0 if not operation.unknown:  # another's answer
                told[place] = replace(operation, result=told[other].result)
            case 1 if operation.returned_at is not None:  # the answer comes too early
                told[place] = replace(
                    operation, returned_at=rng.randint(operation.invoked_at, operation.returned_at)
                )
            case 2 if operation.returned_at is not None:  # asked later than it was
                told[place] = replace(
                    operation, invoked_at=rng.randint(operation.invoked_at, operation.returned_at)
                )
            case _:  # the question is another's
                told[place] = replace(operation, call=told[other].call)
    return told


def has_order(model: Model[Any], history: Sequence[Operation]) -> bool:
    """Whether any order of the operations explains them, found without any cleverness."""

    def goes_on(waiting: tuple[int, ...], states: dict[Value, Any]) -> bool:
        if all(history[place].unknown for place in waiting):
            return True
        for place in waiting:
            operation = history[place]
            if any(_precedes(history[other], operation) for other in waiting):
                continue
            key = model.keys(operation.call)[0]
            before = states.get(key, model.initial())
            after, expected = model.apply(before, operation.call)
            if operation.unknown or model.accepts(operation.call, expected, operation.result):
                rest = tuple(other for other in waiting if other != place)
                if goes_on(rest, {**states, key: after}):
                    return True
        return False

    return goes_on(tuple(range(len(history))), {})


def _precedes(first: Operation, second: Operation) -> bool:
    return first.returned_at is not None and first.returned_at < second.invoked_at


def _register_call(rng: Random, number: int) -> Call:
    key = rng.choice("xy")
    match rng.randrange(3):
        case 0:
            return ("read", key)
        case 1:
            return ("write", key, rng.randint(1, 3))
    return ("cas", key, rng.randint(1, 3), rng.randint(1, 3))


def _kv_call(rng: Random, number: int) -> Call:
    match rng.randrange(8):
        case 0 | 1 | 2:
            return ("get", "k")
        case 3:
            return ("put", "k", number)
        case 4:
            return ("delete", "k")
    return ("append", "k", number)


def _counter_call(rng: Random, number: int) -> Call:
    return ("get", "n") if rng.random() < 0.4 else ("add", "n", rng.randint(1, 2))


def _namespace_call(rng: Random, number: int) -> Call:
    paths = ["/t", "/t/a", "/t/b", "/t/d", "/t/d/a", "/t/d/b"]
    path, other = rng.choice(paths), rng.choice(paths)
    match rng.randrange(9):
        case 7:
            return ("clone", path, other, number, rng.random() < 0.5)
        case 8:
            return ("both", ("remove", path, True), ("rename", other, path, False))
        case 0 | 1:
            return ("create", path, number, rng.random() < 0.5)
        case 2:
            return ("mkdir", path)
        case 3:
            return ("rename", path, other, rng.random() < 0.5)
        case 4:
            return ("remove", path, rng.random() < 0.5)
        case 5:
            return ("stat", path)
    return ("list", path)


CALLS: dict[str, Callable[[Random, int], Call]] = {
    "register": _register_call,
    "kv": _kv_call,
    "counter": _counter_call,
    "namespace": _namespace_call,
}
"""What a random client asks, by model; the number is unique in the history."""
