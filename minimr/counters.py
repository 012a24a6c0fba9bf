"""Counters of one attempt (MapReduce section 4.9): named sums, reported when the attempt commits.

User code calls ``minimr.increment(name)`` anywhere below ``map`` or ``reduce``; the attempt that
runs it is found through a context variable, so threads of other attempts never mix.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Counters", "collecting", "increment"]

Counters = dict[str, int]

_current: ContextVar[Counters | None] = ContextVar("minimr_counters", default=None)


def increment(name: str, by: int = 1) -> None:
    """Add ``by`` to the counter ``name`` of the running attempt; outside of one, do nothing."""
    counters = _current.get()
    if counters is not None:
        counters[name] = counters.get(name, 0) + by


@contextmanager
def collecting(into: Counters | None = None) -> Iterator[Counters]:
    """Collect the increments made in this context into the dictionary it yields, which is
    ``into`` or a new one."""
    counters: Counters = {} if into is None else into
    token = _current.set(counters)
    try:
        yield counters
    finally:
        _current.reset(token)
