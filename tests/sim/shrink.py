"""Makes a failing run small: fewer faults, better weather, less of everything, the same violation.

First whole kinds of faults go, then single ones (delta debugging), then options are set to what is
simplest, one after the other, as long as the run still breaks the same promise. What is left is
what the bug needs, more or less.
"""

import dataclasses
from collections.abc import Callable, Iterator

from tests.sim.campaign import Run, perform
from tests.sim.options import draw_options, with_settings
from tests.sim.world import Result

__all__ = ["shrink"]

SIMPLER: dict[str, tuple[str, ...]] = {
    "machines": ("key-value", "files"),
    "guards": ("true",),
    "drop_permille": ("0",),
    "double_permille": ("0",),
    "late_permille": ("0",),
    "replay_permille": ("0",),
    "request_loss_permille": ("0",),
    "request_late_permille": ("0",),
    "fifo": ("true",),
    "tick_spread_permille": ("0",),
    "pump_delay_us": ("0",),
    "value_bytes": ("0",),
    "message_bytes_max": (str(1 << 20),),
    "inflight_count_max": ("256",),
    "uncommitted_bytes_max": (str(1 << 20),),
    "apply_bytes_max": (str(1 << 20),),
    "commit_news_at_once": ("true",),
    "thrifty": ("false",),
    "session_unused_ms": ("3600000",),
    "segment_bytes": (str(1 << 16),),
    "snapshot_every_bytes": (str(1 << 20),),
    "snapshot_every_entries": ("1000000", "80"),
    "clients": ("1", "2"),
    "window": ("1",),
    "members": ("2", "3"),
}


class _Shrinker:
    def __init__(self, run: Run, result: Result, tell: Callable[[str], None]) -> None:
        assert result.violation is not None
        self.run = run
        self.result = result
        self._kind = result.violation.kind
        self._tell = tell
        self.tries = 0

    def attempt(self, run: Run) -> bool:
        """Take the smaller run if it breaks the same promise."""
        self.tries += 1
        result = perform(run)
        if result.violation is None or result.violation.kind != self._kind:
            return False
        if len(result.struck) > len(self.result.struck):
            return False
        self.run, self.result = run, result
        return True

    def fewer_faults(self) -> None:
        """Leave out halves, quarters ... single ones of the faults that struck."""
        size = max(1, len(self.result.struck) // 2)
        while size:
            for part in _parts(self.result.struck, size):
                without = {*self.run.without, *part}
                run = dataclasses.replace(self.run, without=tuple(sorted(without)))
                if self.attempt(run):
                    self._tell(f"{len(self.result.struck)} faults are enough")
            size //= 2

    def simpler_options(self) -> None:
        options = draw_options(self.run.seed, self.run.events)
        for name, values in SIMPLER.items():
            for value in values:
                now = getattr(with_settings(options, self.run.settings), name)
                if str(now).lower() != value and self.attempt(self._with(name, value)):
                    self._tell(f"{name}={value} does no harm")
                    break

    def _with(self, name: str, value: str) -> Run:
        return dataclasses.replace(self.run, settings={**self.run.settings, name: value})


def _parts(numbers: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def shrink(run: Run, result: Result, tell: Callable[[str], None]) -> tuple[Run, Result]:
    """A run as small as was found that breaks the same promise as ``result``."""
    shrinker = _Shrinker(run, result, tell)
    shrinker.fewer_faults()
    if not run.storage:
        shrinker.simpler_options()
        shrinker.fewer_faults()
    tell(f"{shrinker.tries} runs tried")
    return shrinker.run, shrinker.result
