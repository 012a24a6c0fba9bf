"""Python itself, set up for a process that holds millions of objects and must not pause.

Left alone the interpreter pauses twice: its cyclic collector walks the whole state now and then,
and a thread that encodes a snapshot gives way to the loop only after five milliseconds, every time
the loop wants to run. Here both are cut into slices.
"""

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from minigfs.transport.memory import keep_freed_memory

__all__ = ["collect_for_ever", "steady_interpreter"]

SWITCH_INTERVAL_S = 0.0005  # at Python's own 5 ms the loop's waits are two to four times as long
COLLECT_INTERVAL_MS = 50  # what is made in it is walked in ten milliseconds, or twenty


@contextmanager
def steady_interpreter() -> Iterator[None]:
    """No collection by itself; the threads take short turns. As before, once the block is left,
    but for what was frozen: to look through a large state once more would take seconds.

    Freed memory is kept for good: the loop takes 256 KiB for whatever it receives, and getting them
    from the kernel each time costs more than the message does.
    """
    keep_freed_memory()
    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.setswitchinterval(switch_interval_s)


async def collect_for_ever() -> None:
    """Collect what was made since the last time, then look at it no more.

    This costs what was made in the interval, however large the state, and still frees the cycles
    that errors leave behind, but for the few of which a part was made an interval before.
    """
    while True:
        await asyncio.sleep(COLLECT_INTERVAL_MS / 1000)
        gc.collect()
        gc.freeze()
