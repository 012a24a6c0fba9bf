"""How far a job is: bars on a terminal, a plain line now and then in a pipe or a log file.

What is shown never goes backwards: the fraction done is held at its maximum (a map that is re-run
takes bytes away from the truth, not from the bar), and the remaining time only falls.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from minigfs.terminal import format_bytes, format_duration_ms
from minimr.messages import JobState, JobStatus

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["BarProgress", "Estimate", "LineProgress", "ProgressView", "progress_view"]

_LINE_INTERVAL_MS = 5_000
_BAR_COLUMNS, _BAR_COLUMNS_MIN = 36, 6
_WIDE_COLUMNS = 80
_TEXT_COLUMNS, _SHORT_TEXT_COLUMNS = 72, 46  # beside the bar: with the bytes, and without


class Estimate:
    """Fraction done and time left of one job, both monotone.

    A job's work is its input bytes read and its shuffle bytes reduced; before the shuffle's size is
    known it is taken to be as large as the share of maps done suggests.
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self.remaining_ms: int | None = None

    def update(self, status: JobStatus, elapsed_ms: int) -> None:
        """Take a new status, ``elapsed_ms`` after the job's start."""
        self.fraction = max(self.fraction, _fraction_done(status))
        if self.fraction > 0.02:
            left = int(elapsed_ms * (1 - self.fraction) / self.fraction)
            self.remaining_ms = left if self.remaining_ms is None else min(left, self.remaining_ms)


def _fraction_done(status: JobStatus) -> float:
    if status.state.is_final:
        return 1.0
    maps = _share(status.input_bytes_done, status.input_bytes, status.maps_done, status.map_count)
    if status.reduce_count == 0:
        return maps
    reduces = _share(
        status.shuffle_bytes_done, status.shuffle_bytes, status.reduces_done, status.reduce_count
    )
    shuffle_weight = min(1.0, status.shuffle_bytes / max(1, status.input_bytes)) or 0.1
    return (maps + shuffle_weight * reduces) / (1 + shuffle_weight)


def _share(bytes_done: int, bytes_all: int, tasks_done: int, tasks_all: int) -> float:
    if bytes_all > 0:
        return min(1.0, bytes_done / bytes_all)
    return tasks_done / tasks_all if tasks_all else 0.0


class ProgressView(AbstractContextManager["ProgressView"]):
    """Shows nothing: what ``--quiet`` gets, and the base of the two that show something."""

    def show(self, status: JobStatus) -> None:
        """Called with each new status of the job."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class LineProgress(ProgressView):
    """One line on stderr when a phase ends, and every five seconds in between."""

    def __init__(self, write: Callable[[str], object], monotonic_ms: Callable[[], int]) -> None:
        self._write = write
        self._monotonic_ms = monotonic_ms
        self._started_ms = self._shown_ms = monotonic_ms()
        self._shown_phase = ""
        self._estimate = Estimate()

    def show(self, status: JobStatus) -> None:
        now_ms = self._monotonic_ms()
        self._estimate.update(status, now_ms - self._started_ms)
        phase = _phase(status) + status.waiting
        if phase == self._shown_phase and now_ms - self._shown_ms < _LINE_INTERVAL_MS:
            return
        self._shown_phase, self._shown_ms = phase, now_ms
        if not status.state.is_final:
            self._write(_line(status, self._estimate, now_ms - self._started_ms) + "\n")


class BarProgress(ProgressView):
    """Bars for maps, shuffle and reduces on a terminal, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._shows_bytes = console.width >= _WIDE_COLUMNS
        texts = _TEXT_COLUMNS if self._shows_bytes else _SHORT_TEXT_COLUMNS
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=min(max(console.width - texts, _BAR_COLUMNS_MIN), _BAR_COLUMNS)),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._estimate = Estimate()
        self._started_ms = _monotonic_ms()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def show(self, status: JobStatus) -> None:
        elapsed_ms = _monotonic_ms() - self._started_ms
        self._estimate.update(status, elapsed_ms)
        rate = f"{format_bytes(status.input_bytes_done * 1000 // max(1, elapsed_ms))}/s"
        left = self._estimate.remaining_ms
        eta = "" if left is None else f", {format_duration_ms(left)} left"
        self._bar("maps", status.maps_done, status.map_count, status.input_bytes_done,
                  status.input_bytes, status.waiting or rate + eta)  # fmt: skip
        if status.reduce_count:
            self._bar("shuffle", 0, 0, status.shuffle_bytes_done, status.shuffle_bytes, "")
            self._bar("reduces", status.reduces_done, status.reduce_count, 0, 0, "")

    def _bar(
        self, name: str, done: int, total: int, done_bytes: int, total_bytes: int, more: str
    ) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=1.0, detail="")
        parts = [f"{done}/{total}"] if total else []
        if total_bytes and self._shows_bytes:
            parts.append(f"{format_bytes(done_bytes)} of {format_bytes(total_bytes)}")
        parts.extend([more] if more else [])
        known = self._progress.tasks[self._bars[name]].completed
        share = _share(done_bytes, total_bytes, done, total)
        self._progress.update(
            self._bars[name], completed=max(known, share), detail="  ".join(parts)
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def progress_view(quiet: bool) -> ProgressView:
    """The view that fits: nothing with ``--quiet``, bars on a terminal, lines elsewhere."""
    if quiet:
        return ProgressView()
    if sys.stderr.isatty():
        return BarProgress()
    return LineProgress(sys.stderr.write, _monotonic_ms)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _phase(status: JobStatus) -> str:
    if status.state is JobState.PUBLISHING:
        return "publish"
    return "map" if status.maps_done < status.map_count else "reduce"


def _line(status: JobStatus, estimate: Estimate, elapsed_ms: int) -> str:
    parts = [f"maps {status.maps_done}/{status.map_count}"]
    if status.reduce_count:
        parts.append(f"reduces {status.reduces_done}/{status.reduce_count}")
    parts.append(f"{format_bytes(status.input_bytes_done)} of {format_bytes(status.input_bytes)}")
    if status.shuffle_bytes:
        parts.append(f"shuffle {format_bytes(status.shuffle_bytes)}")
    parts.append(f"{estimate.fraction:.0%}")
    parts.append(format_duration_ms(elapsed_ms))
    if estimate.remaining_ms is not None and status.state is JobState.RUNNING:
        parts.append(f"{format_duration_ms(estimate.remaining_ms)} left")
    if status.waiting:
        parts.append(f"waiting: {status.waiting}")
    return f"{_phase(status)}: " + ", ".join(parts)
