"""Many seeds, one after the other or in several processes, and what to print about them."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from tests.sim.coverage import Coverage
from tests.sim.options import draw_options, with_settings
from tests.sim.violation import Violation
from tests.sim.world import Result, World

__all__ = [
    "EVENTS",
    "Run",
    "Totals",
    "perform",
    "replay_command",
    "report_failure",
    "results_of",
    "summary",
    "with_seed",
]

EVENTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What defines a run: equal runs are equal to the last event."""

    seed: int
    events: int = EVENTS
    storage: bool = False
    """A world of chunkservers and clients, not one of masters."""
    settings: Mapping[str, str] = field(default_factory=dict)
    without: Collection[int] = ()


def perform(run: Run, trace_file: IO[str] | None = None) -> Result:
    if run.storage:
        return _perform_storage(run, trace_file)
    options = with_settings(draw_options(run.seed, run.events), run.settings)
    return World(run.seed, options, without=run.without, trace_file=trace_file).run()


def _perform_storage(run: Run, trace_file: IO[str] | None) -> Result:
    # Here, so that the other world needs no greenlet.
    from tests.sim.storage.options import draw_storage_options, with_storage_settings
    from tests.sim.storage.world import StorageWorld

    options = with_storage_settings(draw_storage_options(run.seed), run.settings)
    return StorageWorld(run.seed, options, without=run.without, trace_file=trace_file).run()


def results_of(runs: Sequence[Run], jobs: int) -> Iterator[Result]:
    """In the order of ``runs``."""
    if jobs == 1:
        yield from map(perform, runs)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(perform, runs, chunksize=4)


def replay_command(run: Run) -> str:
    parts = ["python -m tests.sim", f"--seed {run.seed}"]
    if run.storage:
        parts.append("--storage")
    if run.events != EVENTS:
        parts.append(f"--events {run.events}")
    if run.without:
        parts.append("--without " + ",".join(map(str, sorted(run.without))))
    parts += [f"--set {name}={value}" for name, value in run.settings.items()]
    return " ".join(parts)


def report_failure(run: Run, result: Result) -> str:
    lines = [
        f"seed {run.seed} breaks a promise: {result.violation}",
        "",
        *result.last_lines,
        "",
        f"coverage: {result.coverage.summary()}",
        f"replay: {replay_command(run)}",
        f"shrink: {replay_command(run)} --shrink",
    ]
    return "\n".join(lines)


class Totals:
    """What a campaign has to show in the end."""

    def __init__(self) -> None:
        self.seeds = 0
        self._failed: dict[int, Violation] = {}
        self._total = Coverage()
        self._least: dict[str, int] = {}
        self._begun = time.monotonic()

    @property
    def failed(self) -> list[int]:
        """The seeds that broke a promise."""
        return list(self._failed)

    def add(self, result: Result) -> None:
        self.seeds += 1
        if result.violation is not None:
            self._failed[result.seed] = result.violation
            return
        if not self._total:
            self._total = type(result.coverage)()
        self._total.update(result.coverage)
        for name in result.coverage.COUNTED:
            count = result.coverage[name]
            self._least[name] = min(self._least.get(name, count), count)

    def __str__(self) -> str:
        seconds = time.monotonic() - self._begun
        user_seconds = os.times().user + os.times().children_user
        least = ", ".join(f"{name} {count}" for name, count in self._least.items())
        rate = f"{self.seeds / user_seconds * 60:.0f} a minute"
        times = f"{seconds:.1f} s, {user_seconds:.1f} s of them in user mode ({rate})"
        lines = [f"{self.seeds} seeds in {times}, {len(self._failed)} with a violation"]
        lines += [f"  seed {seed}: {violation}" for seed, violation in self._failed.items()]
        lines += [f"least in any seed: {least}", f"in all: {self._total.summary()}"]
        return "\n".join(lines)


def summary(result: Result) -> str:
    violation = "" if result.violation is None else f"  VIOLATION {result.violation.kind}"
    return f"seed {result.seed}: trace {result.digest}, {result.coverage.summary()}{violation}"


def with_seed(run: Run, seed: int) -> Run:
    return dataclasses.replace(run, seed=seed)
