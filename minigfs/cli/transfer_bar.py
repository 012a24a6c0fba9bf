"""How far a copy is: a bar for the file under way, on a terminal, once it has taken a moment.

In a pipe, with ``--quiet`` and for what is done at once nothing is shown, and nothing is imported.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from minigfs.closing import ClosedOnExit

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["TransferBar"]

_PATIENCE_S = 1.0


class TransferBar(ClosedOnExit):
    """Around all files of one command."""

    def __init__(
        self, *, quiet: bool, now_s: Callable[[], float] = time.monotonic, width: int | None = None
    ) -> None:
        self._is_wanted = not quiet and sys.stderr.isatty()
        self._now_s = now_s
        self._width = width  # of the terminal, if it is known better than by asking
        self._began_s = now_s()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def following(
        self, blocks: Iterable[bytes], name: str, size_bytes: int | None
    ) -> Iterator[bytes]:
        """The blocks of one file, as they are; the bar moves as they are taken."""
        done_bytes = 0
        for block in blocks:
            yield block
            done_bytes += len(block)
            if self._is_wanted and self._now_s() - self._began_s >= _PATIENCE_S:
                self._show(name, done_bytes, size_bytes)
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _show(self, name: str, done_bytes: int, size_bytes: int | None) -> None:
        if self._bar is None:
            self._bar = _made_bar(self._width)
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(name, total=size_bytes, completed=done_bytes)
            self._bar.refresh()
        self._bar.update(self._task, completed=done_bytes)


def _made_bar(width: int | None) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, width=width),
        transient=True,  # what stays on the screen is what the command says
    )
