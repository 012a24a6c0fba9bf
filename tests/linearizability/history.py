"""What clients asked, what they were told, and when: the evidence a checker judges.

A history is a list of *operations*. One that was answered lies between its invocation and its
return. One whose answer was lost (timeout, dead connection, killed client) has no return: it may
have happened at any moment after its invocation, may still happen, or may never happen. One that
provably never happened is left out, which is what ``fail`` says; a refusal decided by the service
("no such file") is no failure but an answer like any other.

``History`` records while clients run, from any number of threads or from a simulator. Every event
gets a time of its own, later than all before, so that two operations overlap exactly if they did.
Calls and results are JSON scalars and tuples of them: they compare by value, hash, and survive
the trip to a file and back.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, TypeAlias

__all__ = [
    "Call",
    "History",
    "InvalidHistory",
    "Operation",
    "OperationId",
    "Value",
    "describe_call",
    "load_history",
    "parse_history",
]

Value: TypeAlias = bool | int | str | tuple["Value", ...] | None
Call: TypeAlias = tuple[Value, ...]
"""The name of what was asked, then its arguments: ``("append", "key", 3)``."""

OperationId = NewType("OperationId", int)


class InvalidHistory(ValueError):
    """A recorded history contradicts itself; the message names the line or the operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one client. ``returned_at`` None: nobody knows whether it happened."""

    client: str
    call: Call
    invoked_at: int
    returned_at: int | None = None
    result: Value = None

    @property
    def unknown(self) -> bool:
        return self.returned_at is None

    def __str__(self) -> str:
        end = "?" if self.returned_at is None else self.returned_at
        told = "unknown" if self.unknown else json.dumps(self.result)
        return f"{self.client}: {describe_call(self.call)} -> {told}  [{self.invoked_at} .. {end}]"


def describe_call(call: Call) -> str:
    """``append "key" 3``"""
    return " ".join([str(call[0]), *(json.dumps(argument) for argument in call[1:])])


@dataclass(slots=True)
class _Open:
    client: str
    call: Call
    invoked_at: int
    returned_at: int | None = None
    result: Value = None
    ended: bool = False
    failed: bool = False


class History:
    """Records events as they happen; thread-safe.

    Invoke *before* the request can have any effect, end *after* its answer is there: recorded
    intervals may be wider than the real ones, never narrower.

    Parameters
    ----------
    clock
        Integer times. A clock that stands still or goes back is corrected by the least amount.
    log
        Told every event as one line of JSON when it is recorded, so that a run that dies leaves
        what happened so far.
    """

    def __init__(
        self, clock: Callable[[], int], log: Callable[[str], object] | None = None
    ) -> None:
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._operations: list[_Open] = []
        self._last = -1

    def invoke(self, client: str, call: Call) -> OperationId:
        with self._lock:
            now = self._tick()
            number = OperationId(len(self._operations))
            self._operations.append(_Open(client, call, now))
            self._tell({"event": "invoke", "id": number, "at": now, "client": client, "call": call})
            return number

    def ok(self, number: OperationId, result: Value = None) -> None:
        """It happened, and this is what the client was told."""
        with self._lock:
            operation = self._end(number)
            operation.returned_at = self._last
            operation.result = result
            self._tell({"event": "ok", "id": number, "at": self._last, "result": result})

    def fail(self, number: OperationId) -> None:
        """It provably never happened and never will."""
        with self._lock:
            self._end(number).failed = True
            self._tell({"event": "fail", "id": number, "at": self._last})

    def unknown(self, number: OperationId) -> None:
        """Nobody knows. An operation that is never ended counts as this."""
        with self._lock:
            self._end(number)
            self._tell({"event": "unknown", "id": number, "at": self._last})

    def operations(self) -> tuple[Operation, ...]:
        """In the order of their invocations; those that failed are left out."""
        with self._lock:
            return tuple(
                Operation(
                    client=operation.client,
                    call=operation.call,
                    invoked_at=operation.invoked_at,
                    returned_at=operation.returned_at,
                    result=operation.result,
                )
                for operation in self._operations
                if not operation.failed
            )

    def save(self, path: Path) -> None:
        """Keep the history: ``python -m tests.linearizability PATH --model ...`` judges it."""
        path.write_text("".join(line + "\n" for line in _lines(self.operations())))

    def _end(self, number: OperationId) -> _Open:
        operation = self._operations[number]
        if operation.ended:
            raise InvalidHistory(f"operation {number} ends twice: {describe_call(operation.call)}")
        operation.ended = True
        self._tick()
        return operation

    def _tick(self) -> int:
        self._last = max(self._clock(), self._last + 1)
        return self._last

    def _tell(self, event: dict[str, Value]) -> None:
        if self._log is not None:
            self._log(json.dumps(event))


def _lines(operations: Sequence[Operation]) -> Iterator[str]:
    """The events of finished histories in the order of their times."""
    events: list[tuple[int, dict[str, Value]]] = []
    for number, operation in enumerate(operations):
        begin: dict[str, Value] = {"event": "invoke", "id": number, "at": operation.invoked_at}
        begin |= {"client": operation.client, "call": operation.call}
        events.append((operation.invoked_at, begin))
        if operation.returned_at is not None:
            end: dict[str, Value] = {"event": "ok", "id": number, "at": operation.returned_at}
            end |= {"result": operation.result}
            events.append((operation.returned_at, end))
    events.sort(key=lambda event: event[0])
    return (json.dumps(event) for _, event in events)


def load_history(path: Path) -> tuple[Operation, ...]:
    return parse_history(path.read_text().splitlines())


def parse_history(lines: Iterable[str]) -> tuple[Operation, ...]:
    """The operations of a recorded history, in the order of their invocations.

    Raises ``InvalidHistory`` where the events contradict each other. A last line that was cut
    short, as a killed process leaves it, is passed over.
    """
    operations: dict[int, _Open] = {}
    texts = list(lines)
    for place, text in enumerate(texts, start=1):
        try:
            event = json.loads(text)
        except json.JSONDecodeError:
            if place == len(texts):
                break
            raise InvalidHistory(f"line {place} is no JSON: {text[:80]!r}") from None
        try:
            _replay(operations, event)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidHistory(f"line {place}: {error} in {text[:80]!r}") from None
    return tuple(
        Operation(
            client=operation.client,
            call=operation.call,
            invoked_at=operation.invoked_at,
            returned_at=operation.returned_at,
            result=operation.result,
        )
        for operation in operations.values()
        if not operation.failed
    )


def _replay(operations: dict[int, _Open], event: dict[str, object]) -> None:
    number, at, kind = _integer(event["id"]), _integer(event["at"]), event["event"]
    if kind == "invoke":
        call = _frozen(event["call"])
        if number in operations:
            raise ValueError(f"operation {number} begins twice")
        if not isinstance(call, tuple) or not call:
            raise ValueError("a call is a list: a name, then the arguments")
        operations[number] = _Open(str(event["client"]), call, at)
        return
    operation = operations[number]
    if operation.ended or at < operation.invoked_at:
        raise ValueError(f"operation {number} ends twice or before it begins")
    operation.ended = True
    match kind:
        case "ok":
            operation.returned_at = at
            operation.result = _frozen(event["result"])
        case "fail":
            operation.failed = True
        case "unknown":
            pass
        case _:
            raise ValueError(f"unknown event {kind!r}")


def _integer(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError(f"{value!r} is no integer")


def _frozen(value: object) -> Value:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} is neither a JSON scalar nor a list")
