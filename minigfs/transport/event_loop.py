"""The event loop of a master.

uvloop moves small frames between many connections with about a quarter less work for the processor
than asyncio's own loop, and a commit is mostly that.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_event_loop"]

_ResultT = TypeVar("_ResultT")


def run_event_loop(main: Coroutine[Any, Any, _ResultT]) -> _ResultT:
    """Run ``main`` to its end; the result is its own. Like ``asyncio.run``."""
    import uvloop

    return uvloop.run(main)
