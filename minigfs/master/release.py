"""Letting go of a large state without a pause.

Whoever looks at a state for long (a snapshot, a count of all chunks) holds what was removed
meanwhile. The last to let go frees it: a million files in one stroke take more than a second in
which no thread of the process runs. So they call this, in a thread.
"""

from collections.abc import Callable
from typing import Any

from immutables import Map

from minigfs.master.state import FileSystemState

__all__ = ["let_go"]

FREED_MAX = 500  # at once, since it takes a millisecond
MANY = 10_000


def let_go(holder: list[FileSystemState], kept: Callable[[], FileSystemState]) -> None:
    """Free the state that only the holder holds, in small parts, except for what it shares with
    the one that is kept. That one may move on meanwhile."""
    state = holder.pop()
    maps: list[tuple[Map[Any, Any], Callable[[FileSystemState], Map[Any, Any]]]] = [
        (state.inodes, lambda state: state.inodes),
        (state.chunks, lambda state: state.chunks),
        (state.garbage, lambda state: state.garbage),
        (state.never_published, lambda state: state.never_published),
    ]
    del state
    while maps:
        going, same_of = maps.pop()
        while keys := _only_in(going, same_of(kept())):
            while keys:
                smaller = going.mutate()
                for key in keys[-FREED_MAX:]:
                    del smaller[key]
                del keys[-FREED_MAX:]
                going = smaller.finish()


def _only_in(going: Map[Any, Any], staying: Map[Any, Any]) -> list[Any]:
    """The keys of values that are freed with a map, if they may be many."""
    if len(going) - len(staying) < MANY:  # else as many must have come as have gone
        return []
    return [key for key, value in going.items() if staying.get(key) is not value]
