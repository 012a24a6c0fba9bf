"""Is there an order of these operations that a single, sequential copy could have produced?

The search is Wing and Gong's with Lowe's memoisation. Calls and returns stand in one doubly linked
list, ordered by time. The search walks the calls before the first return (only those may come
next), asks the model whether one fits the state, lifts it with its return out of the list and
starts over; at a return it is stuck and takes back its last choice. A set of (operations placed,
state) remembers what was tried. Loops and arrays, no recursion: histories may be long.

What keeps the search small:

- *P-compositionality*: a history over independent keys is linearizable if each key's is. Keys that
  one call touches together are not independent and stay together.
- A read (or a refusal) that fits goes next in some order if it goes anywhere in one, so that
  nothing else is tried in its place. This does not hold for a write that happens to change
  nothing: later it may.
- An operation with unknown outcome has no return and need not be placed; placing it where it
  changes nothing is pointless; of two that ask the same, the earlier goes first. If it would only
  have read, it is no evidence and left out.
- A model may look at the whole history first (``informed``): a list that was read tells where each
  element was appended.

A search that uses up its budget answers UNKNOWN, never OK.

References: Wing and Gong, "Testing and verifying concurrent objects", 1993; Lowe, "Testing for
linearizability", 2017; Horn and Kroening, "Faster linearizability checking via
P-compositionality", 2015.
"""

import enum
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tests.linearizability.history import Call, Operation, Value

__all__ = ["Answer", "Budget", "Failure", "Model", "Verdict", "check"]

StateT = TypeVar("StateT", bound=Hashable)

_LIMIT_CHECK_STEPS = 1024
_EXPLAIN_STEPS = 200_000
_SHOWN_MAX = 30


class Model(Protocol[StateT]):
    """A sequential specification: what one copy, asked one thing at a time, would answer."""

    @property
    def name(self) -> str: ...

    def initial(self) -> StateT: ...

    def keys(self, call: Call) -> tuple[Value, ...]:
        """The independent parts of the state that a call can read or change."""
        ...

    def changes_nothing(self, call: Call, seen: Value) -> bool:
        """Whether the call changes no state in which it can be answered with ``seen``: a read, or
        what was refused. ``seen`` is None where nobody knows the answer."""
        ...

    def apply(self, state: StateT, call: Call) -> tuple[StateT, Value]:
        """The state after the call, and its answer. The states are immutable."""
        ...

    def accepts(self, call: Call, expected: Value, seen: Value) -> bool:
        """Whether a client that was told ``seen`` was told the right thing."""
        ...

    def informed(self, operations: Sequence[Operation]) -> "Model[StateT]":
        """A model that also rejects early what these operations, one part's all, rule out later:
        no other verdict, found sooner. ``self`` if there is nothing to know."""
        ...


class Answer(enum.Enum):
    OK = "linearizable"
    ILLEGAL = "not linearizable"
    UNKNOWN = "unknown: the search used up its budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bounds of one check. ``steps`` holds for each independent part and bounds memory too, the
    clock behind ``expired`` (never, unless given) for the whole."""

    steps: int = 2_000_000
    expired: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How far the best attempt came in the part that has no order."""

    placed: tuple[Operation, ...]
    """The longest order that the model allows."""
    state: Hashable
    """The model's state behind it."""
    stuck: Operation
    """Returned before any operation that is left was invoked, yet cannot come next."""
    expected: Value
    """What the model would have told ``stuck``."""
    overlapping: tuple[Operation, ...]
    """What else might have come next, and would not have helped."""

    def __str__(self) -> str:
        hidden = max(0, len(self.placed) - _SHOWN_MAX)
        lines = [f"longest order the model allows ({len(self.placed)} operations):"]
        lines += [f"  ... {hidden} more"] * (hidden > 0)
        lines += [f"  {operation}" for operation in self.placed[hidden:]]
        lines += [
            f"state then: {_shown(self.state)}",
            f"cannot come next: {self.stuck}",
            f"  the model answers {_shown(self.expected)}",
        ]
        lines += [f"  nor does it help to try first: {other}" for other in self.overlapping]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found; ``failure`` belongs to ILLEGAL."""

    answer: Answer
    model: str
    operation_count: int
    part_count: int
    steps: int
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.answer is Answer.OK

    def __str__(self) -> str:
        head = (
            f"{self.answer.value}: {self.operation_count} operations in {self.part_count} "
            f"independent parts, model {self.model}, {self.steps} steps"
        )
        return head if self.failure is None else f"{head}\n{self.failure}"


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(map(repr, value))) + "}"
    return repr(value)


def check(
    operations: Iterable[Operation], model: Model[StateT], budget: Budget | None = None
) -> Verdict:
    """Judge a history. The first part without an order ends the search."""
    budget = budget or Budget()
    evidence = [
        op for op in operations if not (op.unknown and model.changes_nothing(op.call, None))
    ]
    parts = _independent_parts(evidence, model)
    answer, steps, failure = Answer.OK, 0, None
    for part in parts:
        search = _Search(part, model, budget)
        found = search.run()
        steps += search.steps
        if found is Answer.ILLEGAL:
            answer, failure = found, _plainest(search, part, model, budget)
            break
        if found is Answer.UNKNOWN:
            answer = found
    return Verdict(
        answer=answer,
        model=model.name,
        operation_count=len(evidence),
        part_count=len(parts),
        steps=steps,
        failure=failure,
    )


def _plainest(
    proof: "_Search[StateT]", part: Sequence[Operation], model: Model[StateT], budget: Budget
) -> Failure | None:
    """The failure as a reader understands it: how far a model comes that knows no later answers."""
    if not proof.was_informed:
        return proof.failure
    plain = _Search(part, model, Budget(steps=_EXPLAIN_STEPS, expired=budget.expired), inform=False)
    plain.run()
    return plain.failure or proof.failure


def _independent_parts(
    operations: Sequence[Operation], model: Model[StateT]
) -> list[list[Operation]]:
    """The operations by connected keys, in the order in which the keys were first seen."""
    leader: dict[Value, Value] = {}

    def find(key: Value) -> Value:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for operation in operations:
        keys = model.keys(operation.call)
        for key in keys:
            leader.setdefault(key, key)
            leader[find(key)] = find(keys[0])
    parts: dict[Value, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(find(model.keys(operation.call)[0]), []).append(operation)
    return list(parts.values())


class _Search(Generic[StateT]):
    """One part's search. Node 0 is the head of the list; each call and return is a node."""

    def __init__(
        self,
        operations: Sequence[Operation],
        model: Model[StateT],
        budget: Budget,
        *,
        inform: bool = True,
    ) -> None:
        self._operations = operations
        self._model = model.informed(operations) if inform else model
        self.was_informed = self._model is not model
        self._budget = budget
        self.steps = 0
        self.failure: Failure | None = None
        self._link_nodes()
        self._twins = _twins(operations)
        self._changes_nothing = [
            model.changes_nothing(operation.call, operation.result) for operation in operations
        ]

    def _link_nodes(self) -> None:
        """Order calls and returns by time; at one time calls come first, which forbids less."""
        events: list[tuple[int, bool, int]] = []
        for number, operation in enumerate(self._operations):
            events.append((operation.invoked_at, False, number))
            if operation.returned_at is not None:
                assert operation.returned_at >= operation.invoked_at, operation
                events.append((operation.returned_at, True, number))
        events.sort()
        count = len(events) + 1
        self._next = [*range(1, count), 0]
        self._previous = [count - 1, *range(count - 1)]
        self._number_at = [-1] * count
        self._is_call = [False] * count
        self._return_of = [0] * len(self._operations)  # 0: it has none
        for node, (_, is_return, number) in enumerate(events, start=1):
            self._number_at[node] = number
            self._is_call[node] = not is_return
            if is_return:
                self._return_of[number] = node

    def run(self) -> Answer:
        """Wing and Gong's loop. ``placed`` has a bit for every operation in the order so far."""
        model, operations, number_at = self._model, self._operations, self._number_at
        state, placed = model.initial(), 0
        missing = sum(not operation.unknown for operation in operations)
        stack: list[tuple[int, StateT, bool]] = []  # call node, state before it, no other way
        tried: set[tuple[int, StateT]] = set()
        best = -1
        node = self._next[0]
        while missing:
            self.steps += 1
            if self._spent():
                return Answer.UNKNOWN
            stuck = not self._is_call[node]
            if not stuck:
                number = number_at[node]
                operation = operations[number]
                twin = self._twins[number]
                after, expected = model.apply(state, operation.call)
                if operation.unknown:
                    fits, forced = after != state and (twin < 0 or placed >> twin & 1 == 1), False
                else:
                    fits = model.accepts(operation.call, expected, operation.result)
                    forced = fits and self._changes_nothing[number]
                grown = placed | 1 << number
                if fits and (grown, after) not in tried:
                    tried.add((grown, after))
                    stack.append((node, state, forced))
                    missing -= not operation.unknown
                    state, placed = after, grown
                    self._lift(node)
                    node = self._next[0]
                    continue
                stuck = forced
                node = self._next[node]
            elif len(stack) > best:
                best = len(stack)
                self._note_failure(node, [number_at[choice] for choice, _, _ in stack], state)
            while stuck:
                if not stack:
                    return Answer.ILLEGAL
                node, state, stuck = stack.pop()
                number = number_at[node]
                placed ^= 1 << number
                missing += not operations[number].unknown
                self._unlift(node)
                node = self._next[node]
        self.failure = None
        return Answer.OK

    def _spent(self) -> bool:
        if self.steps > self._budget.steps:
            return True
        return self.steps % _LIMIT_CHECK_STEPS == 0 and self._budget.expired()

    def _lift(self, call: int) -> None:
        """Take an operation's call and return out of the list."""
        self._unlink(call)
        answer = self._return_of[self._number_at[call]]
        if answer:
            self._unlink(answer)

    def _unlift(self, call: int) -> None:
        """Put them back; the last one lifted goes first, so that neighbours are where they were."""
        answer = self._return_of[self._number_at[call]]
        if answer:
            self._relink(answer)
        self._relink(call)

    def _unlink(self, node: int) -> None:
        before, behind = self._previous[node], self._next[node]
        self._next[before], self._previous[behind] = behind, before

    def _relink(self, node: int) -> None:
        self._next[self._previous[node]] = self._previous[self._next[node]] = node

    def _note_failure(self, stuck_at: int, order: Sequence[int], state: StateT) -> None:
        """Remember the longest order so far and what stops it."""
        operations = self._operations
        stuck = operations[self._number_at[stuck_at]]
        overlapping: list[Operation] = []
        node = self._next[0]
        while node != stuck_at:
            overlapping.append(operations[self._number_at[node]])
            node = self._next[node]
        self.failure = Failure(
            placed=tuple(operations[number] for number in order),
            state=state,
            stuck=stuck,
            expected=self._model.apply(state, stuck.call)[1],
            overlapping=tuple(other for other in overlapping if other is not stuck),
        )


def _twins(operations: Sequence[Operation]) -> list[int]:
    """For each unknown operation the one before it that asks exactly the same, else -1."""
    latest: dict[Call, int] = {}
    twins = [-1] * len(operations)
    by_invocation = sorted(range(len(operations)), key=lambda n: operations[n].invoked_at)
    for number in by_invocation:
        operation = operations[number]
        if operation.unknown:
            twins[number] = latest.get(operation.call, -1)
            latest[operation.call] = number
    return twins
