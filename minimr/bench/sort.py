"""``minimr bench sort``: the sort benchmark on this machine, beside what the machine can do.

Records are generated (keys that are all different, that have common beginnings, that are few, or
all the same), sorted by ``minimr run sort`` in a process of its own (timed from its start
to its end, output synced to disk), and validated: in order, and the same checksum before and after.
The machine's limits are measured in the same run, because they differ between machines and hours:
sequential writes to the same disk, copying memory, and numpy's sort of 64-bit integers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from minimr.errors import JobFailed

__all__ = [
    "KEY_KINDS",
    "KeyKind",
    "MachineLimits",
    "SortFigures",
    "SortRun",
    "measure_limits",
    "measure_sort",
]

KeyKind = Literal["uniform", "skewed", "few", "constant"]
KEY_KINDS: tuple[KeyKind, ...] = get_args(KeyKind)

_RECORD_BYTES = 100
_KEY_BYTES = 10
_KEPT_KEY_BYTES: dict[KeyKind, int] = {"few": 1, "constant": 0}  # the others become zero
_REWRITTEN_RECORDS = 1 << 18  # at a time
_PROBE_BYTES = 128 << 20
_WRITTEN_BYTES = 4 << 20  # at a time
_PROBE_COUNT = 3  # the best of them: others were disturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLimits:
    """In 10**6 bytes a second, of one thread; ``argsort`` in bytes of keys."""

    disk_write_mb_s: float
    memcpy_mb_s: float
    argsort_mb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SortRun:
    """What is to be sorted, and how; None leaves a choice to ``minimr run``."""

    records: int
    keys: KeyKind = "uniform"
    reducers: int | None = None
    split_bytes: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SortFigures:
    """One sort. ``mb_s_per_core`` is input bytes by wall time and cores (10**6 bytes)."""

    records: int
    input_mb: float
    keys: KeyKind
    cores: int
    generate_s: float
    sort_s: float
    validate_s: float
    mb_s: float
    mb_s_per_core: float
    phases_ms: dict[str, int]
    checksum: str
    duplicate_keys: int


def measure_sort(run: SortRun, scratch: Path | None, say: Callable[[str], None]) -> SortFigures:
    """Generate, sort, validate below ``scratch``; three times the input's size is used there.

    Raises `JobFailed` if the sort fails, or its output is not its input in order.
    """
    from minimr.datasets import gensort, valsort

    with tempfile.TemporaryDirectory(prefix="minimr-sort-", dir=scratch) as directory:
        source, output = Path(directory, "records"), Path(directory, "sorted")
        say(f"generating {run.records:,} records, {run.keys} keys")
        with _timed() as generated:
            gensort.write(str(source), records=run.records, skew=run.keys == "skewed")
            if run.keys in _KEPT_KEY_BYTES:
                _blank_keys(source, _KEPT_KEY_BYTES[run.keys])
            _sync(source)
        before = valsort.validate(str(source))
        say("sorting")
        with _timed() as sorted_:
            answer = _run_sort(run, source, output)
            for part in sorted(output.glob("part-*")):
                _sync(part)
        say("validating")
        with _timed() as validated:
            after = valsort.validate(str(output))
    if after.unordered_count or after.checksum != before.checksum:
        raise JobFailed(
            f"the sort is wrong: {after.unordered_count} records out of order, checksum "
            f"{after.checksum:x} and not {before.checksum:x}"
        )
    cores = len(os.sched_getaffinity(0))
    input_mb = run.records * _RECORD_BYTES / 1e6
    return SortFigures(
        records=run.records,
        input_mb=input_mb,
        keys=run.keys,
        cores=cores,
        generate_s=generated.seconds,
        sort_s=sorted_.seconds,
        validate_s=validated.seconds,
        mb_s=input_mb / sorted_.seconds,
        mb_s_per_core=input_mb / sorted_.seconds / cores,
        phases_ms=answer,
        checksum=f"{after.checksum:x}",
        duplicate_keys=after.duplicate_count,
    )


def _blank_keys(path: Path, kept_bytes: int) -> None:
    """Keys of zeros, but for their first bytes."""
    records = np.memmap(path, np.uint8, "r+").reshape(-1, _RECORD_BYTES)
    for start in range(0, len(records), _REWRITTEN_RECORDS):
        records[start : start + _REWRITTEN_RECORDS, kept_bytes:_KEY_BYTES] = 0


def measure_limits(scratch: Path | None) -> MachineLimits:
    """The best of a few tries each, with files below ``scratch``."""
    with tempfile.TemporaryDirectory(prefix="minimr-sort-", dir=scratch) as directory:
        return _measure_limits(Path(directory))


def _measure_limits(directory: Path) -> MachineLimits:
    content = np.random.default_rng(1).integers(0, 1 << 64, _PROBE_BYTES // 8, np.uint64)
    copy = np.empty_like(content)
    keys = content[: len(content) // 8]
    path = directory / "probe"

    def write() -> None:
        view = content.data.cast("B")
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(view), _WRITTEN_BYTES):
                file.write(view[start : start + _WRITTEN_BYTES])
            os.fsync(file.fileno())

    return MachineLimits(
        disk_write_mb_s=_best_rate(write, content.nbytes),
        memcpy_mb_s=_best_rate(lambda: np.copyto(copy, content), content.nbytes),
        argsort_mb_s=_best_rate(lambda: np.argsort(keys), keys.nbytes),
    )


def _best_rate(action: Callable[[], object], size_bytes: int) -> float:
    seconds = []
    for _ in range(_PROBE_COUNT):
        with _timed() as timed:
            action()
        seconds.append(timed.seconds)
    return size_bytes / 1e6 / min(seconds)


def _run_sort(run: SortRun, source: Path, output: Path) -> dict[str, int]:
    """The phases of the job, as it tells them."""
    command = [sys.executable, "-m", "minimr", "run", "sort", "--input", str(source)]
    command += ["--output", str(output), "--backend", "local", "--json", "--quiet"]
    for option, value in (
        ("--reducers", run.reducers), ("--split-size", run.split_bytes),
        ("--memory", run.memory_bytes), ("--processes", run.processes),
    ):  # fmt: skip
        if value is not None:
            command += [option, str(value)]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise JobFailed(done.stderr.decode(errors="replace").strip())
    phases: dict[str, int] = json.loads(done.stdout)["phases_ms"]
    return phases


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Timed:
    seconds: float = 0.0


@contextmanager
def _timed() -> Iterator[_Timed]:
    timed = _Timed()
    started_ns = time.monotonic_ns()
    yield timed
    timed.seconds = (time.monotonic_ns() - started_ns) / 1e9
