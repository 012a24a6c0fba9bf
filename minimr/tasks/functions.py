"""The user's functions as one attempt calls them: with their hooks, codecs and files.

A function may be an object with a method ``setup()``, called before the attempt's first record, and
``teardown()``, called after the last, whose result, if any, is taken like the function's own. Then
each attempt has a copy of the object: its state is never another's.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from minimr.agg import Aggregation
from minimr.broadcast import having_files
from minimr.job import Codec, Job
from minimr.pairs import Pairs
from minimr.partition import HashPartition, RangePartition
from minimr.tasks.context import AttemptContext
from minimr.tasks.task_files import TaskFiles
from minimr.tasks.user_code import blame, call_batches, pairs_of

__all__ = ["with_functions"]

_PLAIN = Codec(encode=lambda value: value, decode=lambda value: value)


@contextmanager
def with_functions(context: AttemptContext, role: str) -> Iterator[AttemptContext]:
    """The context with the functions of ``role`` ("map" or "reduce") ready to be called."""
    name = f"{role}_batches" if getattr(context.job, role) is None else role
    function = getattr(context.job, name)
    with having_files(TaskFiles(context).find):
        if not (hasattr(function, "setup") or hasattr(function, "teardown")):
            yield replace(context, job=_with_codecs(context.job))
            return
        function = copy.deepcopy(function)
        torn_down: list[bool] = []

        def last_pairs() -> Iterator[Pairs]:
            torn_down.append(True)
            return _last_pairs(job, function, name)

        try:
            _call(function, "setup", name)
            job = replace(context.job, **{name: function})
            yield replace(context, job=_with_codecs(job), last_pairs=last_pairs)
        except BaseException:
            if not torn_down:
                with suppress(Exception):  # what went wrong first is what counts
                    _call(function, "teardown", name)
            raise


def _call(function: Any, hook: str, name: str) -> Any:
    method = getattr(function, hook, None)
    if method is None:
        return None
    try:
        return method()
    except (Exception, SystemExit) as error:  # whatever a user's function does
        blame(f"{hook} of {name}", error)


def _last_pairs(job: Job, function: Any, name: str) -> Iterator[Pairs]:
    """What ``teardown`` returned."""
    result = _call(function, "teardown", name)
    if result is None:
        return
    if name.endswith("_batches"):
        yield from call_batches(lambda _: result, None, f"teardown of {name}")
        return
    encode = _encoder(job) if name == "map" else iter
    try:
        made = list(encode(result))
    except (Exception, SystemExit) as error:  # it may be a generator
        blame(f"teardown of {name}", error)
    if made:
        yield pairs_of(made, f"teardown of {name}")


def _with_codecs(job: Job) -> Job:
    """The job whose record functions give and get what the codecs make of keys and values."""
    if job.key_codec is None and job.value_codec is None:
        return job
    decode_key = (job.key_codec or _PLAIN).decode
    encode = _encoder(job)

    def coded_map(record: Any) -> Iterator[tuple[Any, Any]]:
        assert job.map is not None
        return encode(job.map(record))

    return replace(
        job,
        map=coded_map if job.map is not None else None,
        combine=_grouped(job, job.combine, encode),
        reduce=_grouped(job, job.reduce, iter),
        partition=_partition(job, decode_key),
        sort_values=_sort_key(job),
        key_codec=None,
        value_codec=None,
    )


def _encoder(job: Job) -> Callable[[Iterable[Any]], Iterator[tuple[Any, Any]]]:
    key_of = (job.key_codec or _PLAIN).encode
    value_of = (job.value_codec or _PLAIN).encode
    if job.key_codec is None and job.value_codec is None:
        return iter

    def encode(pairs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for key, value in pairs:
            yield key_of(key), value_of(value)

    return encode


def _grouped(job: Job, function: Any, encode: Callable[[Any], Iterator[Any]]) -> Any:
    if function is None or isinstance(function, Aggregation):
        return function
    decode_key = (job.key_codec or _PLAIN).decode
    decode_value = (job.value_codec or _PLAIN).decode

    def decoded(key: Any, values: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        # Not map(): it would take a StopIteration of the codec's for the end of the values.
        return encode(function(decode_key(key), (decode_value(value) for value in values)))

    return decoded


def _partition(job: Job, decode_key: Callable[[Any], Any]) -> Any:
    partition = job.partition
    if partition is None or isinstance(partition, RangePartition):
        return partition
    if isinstance(partition, HashPartition):
        by = partition.by
        return HashPartition(by=lambda key: by(decode_key(key)))
    return lambda key, count: partition(decode_key(key), count)


def _sort_key(job: Job) -> Any:
    sort_key = job.sort_values
    if not callable(sort_key):
        return sort_key
    decode = (job.value_codec or _PLAIN).decode
    return lambda value: sort_key(decode(value))
