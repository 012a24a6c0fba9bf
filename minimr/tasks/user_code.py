"""Calls into the user's functions: what they get, what they may return, and who is to blame.

Everything a function raises becomes `UserCodeFailed` with the record that caused it. Record
functions are called in tight loops that keep no more than a count per record; the place of a
failure is worked out only when there is one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NoReturn, TypeAlias

import pyarrow as pa

from minimr.column_types import TupleType, from_objects, stored, to_objects
from minimr.errors import UnsupportedType
from minimr.ordered_bytes import decode_all
from minimr.pairs import Pairs, concat_pairs, from_arrow, from_python, with_order
from minimr.shuffle.buffer import CombineSorted
from minimr.tasks.failures import (
    OUT_OF_MEMORY,
    OutputFailed,
    UserCodeFailed,
    described,
    has_user_frame,
    shown,
)
from minimr.tasks.gasp import RECORD_WORD
from minimr.tasks.memory_plan import MemoryPlan
from minimr.tasks.record_effects import RecordEffects

__all__ = [
    "RecordCalls",
    "blame",
    "call_batches",
    "combine_by",
    "order_of_values",
    "pairs_of",
    "reduce_records",
]

_FIRST_PAIR_BYTES = 4096  # assumed of pairs before any is known

RecordFunction: TypeAlias = Callable[[Any], Iterable[tuple[Any, Any]]]

_PAIRS = "an iterable of (key, value) pairs"


class RecordCalls:
    """Calls a map function on records, some of them at a time.

    ``words`` gets the number of the record that is being mapped (see ``gasp``). ``first_pair``
    holds the attempt's first pair, once there is one: all others must have its types.
    ``set_aside`` takes the index of a record on which the function failed twice, and why; without
    it the first failure is raised, and ``effects`` are not needed. After `UserCodeFailed` or
    `UnsupportedType`, ``failed_index`` is the record at fault.
    """

    def __init__(
        self,
        function: RecordFunction,
        words: memoryview,
        memory: MemoryPlan,
        first_pair: list[Any],
        set_aside: Callable[[int, Exception], None] | None = None,
        effects: RecordEffects | None = None,
    ) -> None:
        self._function = function
        self._words = words
        self._memory = memory
        self._pair_count = memory.pair_count(_FIRST_PAIR_BYTES, 1)
        self._first_pair = first_pair
        self._set_aside = set_aside
        self._effects = effects
        self.failed_index = -1

    def map(self, records: list[Any], start: int, stop: int) -> Iterator[Pairs]:
        """The pairs of ``records[start:stop]``, a batch at a time."""
        position = start
        while position < stop:
            pairs, ends = self._call(records, position, stop)
            converted = self._convert(pairs, ends, position) if pairs else None
            if self._effects is not None:
                self._effects.keep()
            position += len(ends)
            if converted is not None:
                self._pair_count = self._memory.pair_count(converted.nbytes, converted.num_rows)
                del pairs
                yield converted

    def _call(self, records: list[Any], position: int, stop: int) -> tuple[list[Any], list[int]]:
        function, words, pair_count = self._function, self._words, self._pair_count
        pairs: list[Any] = []
        ends: list[int] = []
        effects = self._effects
        counts, writes = ((), ()) if effects is None else (effects.counts, effects.writes)
        has_failed = False
        try:
            numbered = enumerate(islice(records, position, stop), position + 1)
            with nullcontext() if effects is None else effects.holding():
                for words[RECORD_WORD], record in numbered:
                    pairs.extend(function(record))
                    ends.append(len(pairs))
                    if effects is not None and (counts or writes) and not effects.note(len(ends)):
                        break
                    if len(pairs) >= pair_count:
                        break
        except (Exception, SystemExit) as error:  # whatever a user's function does
            self.failed_index = position + len(ends)
            if self._set_aside is None:
                blame("map", error)
            has_failed = True
        if has_failed:  # not in the handler: what is raised now has nothing to do with that
            assert effects is not None
            del pairs[ends[-1] if ends else 0 :]
            pairs.extend(self._once_more(records[self.failed_index], effects))
            ends.append(len(pairs))
            effects.note(len(ends))
        words[RECORD_WORD] = 0
        return pairs, ends

    def _once_more(self, record: Any, effects: RecordEffects) -> list[Any]:
        """The pairs of a record on which the function has just failed; none if it fails again."""
        assert self._set_aside is not None
        effects.forget()
        try:
            with effects.holding():
                return list(self._function(record))
        except (Exception, SystemExit) as error:  # whatever a user's function does
            effects.forget()
            try:
                blame("map", error)
            except UserCodeFailed as failed:
                self._set_aside(self.failed_index, failed)
            return []

    def _convert(self, pairs: list[Any], ends: list[int], position: int) -> Pairs | None:
        while pairs:
            try:
                converted = pairs_of([*self._first_pair, *pairs], "map")
                if self._first_pair:
                    return converted.slice(1)
                self._first_pair.append(pairs[0])
                return converted
            except (UserCodeFailed, UnsupportedType) as error:
                at, blamed = self._first_bad(pairs, ends)
                self.failed_index = position + max(at, 0)
                if at < 0 or self._set_aside is None:
                    raise blamed or error from None
                self._set_aside(self.failed_index, blamed or error)
                if self._effects is not None:
                    self._effects.forget(at + 1)
                start = ends[at - 1] if at else 0
                dropped = ends[at] - start
                del pairs[start : ends[at]]
                ends[at:] = [end - dropped for end in ends[at:]]
        return None

    def _first_bad(self, pairs: list[Any], ends: list[int]) -> tuple[int, Exception | None]:
        """Which call gave pairs that cannot be, and what is wrong with them."""
        start = 0
        first_pair = self._first_pair or pairs[:1]
        for index, end in enumerate(ends):
            if end > start:
                try:
                    pairs_of([*first_pair, *pairs[start:end]], "map")
                except (UserCodeFailed, UnsupportedType) as error:
                    return index, error
            start = end
        return -1, None


def call_batches(function: Callable[[Any], Any], argument: Any, name: str) -> Iterator[Pairs]:
    """What a batch function returned, table by table."""
    try:
        result = function(argument)
        tables = [result] if isinstance(result, pa.RecordBatch | pa.Table) else result
        if tables is None:
            tables = []
        for table in tables:
            if not isinstance(table, pa.RecordBatch | pa.Table):
                raise UserCodeFailed(
                    f"{name} gave {shown(table)}: return Arrow tables with columns key and value"
                )
            yield from_arrow(table)
    except (UserCodeFailed, UnsupportedType):
        raise
    except GeneratorExit:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function does
        blame(name, error)


def combine_by(
    function: Callable[[Any, Iterator[Any]], Iterable[tuple[Any, Any]]],
    memory: MemoryPlan,
) -> CombineSorted:
    """A combine function over the sorted pairs of a partition; it must keep its key."""

    def combine(pairs: Pairs) -> Pairs:
        made: list[Any] = []
        done: list[Pairs] = []
        pair_count = memory.pair_count(pairs.nbytes, pairs.num_rows)
        for key, values in _groups([pairs], memory):
            before = len(made)
            try:
                made.extend(function(key, values))
            except (Exception, SystemExit) as error:  # whatever a user's function does
                blame("combine", error, record=f"key {shown(key)}")
            for other, _ in _checked(made[before:], "combine"):
                if other != key:
                    raise UserCodeFailed(
                        f"combine returned key {shown(other)} for key {shown(key)}: "
                        "a combiner must keep its key"
                    )
            if len(made) >= pair_count:
                done.append(pairs_of(made, "combine"))
                made = []
        if made:
            done.append(pairs_of(made, "combine"))
        return concat_pairs(done) if done else pairs.slice(0, 0)

    return combine


def reduce_records(
    function: Callable[[Any, Iterator[Any]], Iterable[tuple[Any, Any]]],
    batches: Iterable[Pairs],
    memory: MemoryPlan,
) -> Iterator[Pairs]:
    """The reduce function's pairs, a batch at a time; values are read as it asks for them."""
    try:
        yield from _reduce_records(function, batches, memory)
    except UnderlyingFailed as error:
        raise error.cause from error.cause.__cause__


def _reduce_records(
    function: Callable[[Any, Iterator[Any]], Iterable[tuple[Any, Any]]],
    batches: Iterable[Pairs],
    memory: MemoryPlan,
) -> Iterator[Pairs]:
    made: list[Any] = []
    pair_count = memory.pair_count(_FIRST_PAIR_BYTES, 1)
    for key, values in _groups(batches, memory):
        source: Iterator[Any] | None = None
        while True:
            try:
                source = iter(function(key, values)) if source is None else source
                made.extend(islice(source, pair_count - len(made)))
            except (Exception, SystemExit) as error:  # whatever a user's function does
                blame("reduce", error, record=f"key {shown(key)}")
            if len(made) < pair_count:
                break
            pairs = pairs_of(made, "reduce")
            made = []
            pair_count = memory.pair_count(pairs.nbytes, pairs.num_rows)
            yield pairs
    if made:
        yield pairs_of(made, "reduce")


class UnderlyingFailed(BaseException):
    """Carries our own failure through a user's function that was reading values, unblamed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _groups(batches: Iterable[Pairs], memory: MemoryPlan) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Each key with its values. A key's values must be read before the next key is asked for."""
    batches = iter(batches)
    for first in batches:  # the others have its types, and are read below
        is_tuple = isinstance(first.column(0).type, TupleType)
        rows = _rows(chain([first], batches), memory)
        for key, group in groupby(rows, key=itemgetter(0)):
            yield (decode_all(key) if is_tuple else key), map(itemgetter(1), group)


def _rows(batches: Iterable[Pairs], memory: MemoryPlan) -> Iterator[tuple[Any, Any]]:
    """Keys and values; tuples as they are stored, because (1,) and (True,) are one key to Python
    and two to us."""
    try:
        for batch in batches:
            row_count = memory.pair_count(batch.nbytes, batch.num_rows)
            for start in range(0, batch.num_rows, row_count):
                keys, values = batch.slice(start, row_count).columns
                keys = stored(keys) if isinstance(keys.type, TupleType) else keys
                yield from zip(to_objects(keys), to_objects(values), strict=True)
    except Exception as error:  # reading failed: the function that reads is not to blame
        raise UnderlyingFailed(error) from error


def order_of_values(
    pairs: Pairs, sort_values: "bool | Callable[[Any], Any]", memory: MemoryPlan
) -> Pairs:
    """The pairs with what their values are sorted by."""
    if not callable(sort_values):
        return with_order(pairs) if sort_values else pairs
    columns = []
    row_count = memory.pair_count(pairs.nbytes, pairs.num_rows)
    for start in range(0, pairs.num_rows, row_count):
        values = to_objects(pairs.column(1).slice(start, row_count))
        try:
            order = [sort_values(value) for value in values]
        except (Exception, SystemExit) as error:  # whatever a user's function does
            blame("sort_values", error)
        columns.append(from_objects(order, "key"))
    return with_order(pairs, pa.concat_arrays(columns)) if columns else pairs


def pairs_of(pairs: list[Any], name: str) -> Pairs:
    """A batch of what a record function gave.

    Raises `UserCodeFailed` for what is no pair, `UnsupportedType` for types that cannot be.
    """
    checked = _checked(pairs, name)
    return from_python([pair[0] for pair in checked], [pair[1] for pair in checked])


def _checked(pairs: list[Any], name: str) -> list[tuple[Any, Any]]:
    """The same list, if it holds pairs only."""
    if set(map(type, pairs)) <= {tuple, list} and set(map(len, pairs)) <= {2}:
        return pairs
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserCodeFailed(f"{name} gave {shown(pair)}: yield or return {_PAIRS}")
    return [(pair[0], pair[1]) for pair in pairs]  # subclasses of tuple


def blame(name: str, error: BaseException, record: str = "") -> NoReturn:
    """What a user's function raised becomes `UserCodeFailed`; a side output that could not be
    written is not the function's fault."""
    if isinstance(error, OutputFailed):
        raise error
    if isinstance(error, MemoryError):
        message = f"{name} raised {described(error)}; {OUT_OF_MEMORY}"
    elif isinstance(error, TypeError) and not has_user_frame(error.__traceback__):
        message = f"{name} did not return {_PAIRS} ({error})"
    else:
        message = f"{name} raised {described(error)}"
    raise UserCodeFailed(message, record=record) from error
