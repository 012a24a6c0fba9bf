"""``make bench-stragglers``: backup tasks on real processes.

A cluster of its own runs a map that sleeps, undisturbed, then with one worker that is stopped and
continued by signals, so that it gets one part in ``--slowdown`` of the time, with and without
backups, then an input with one large map in eight and no slow worker. ``minimr bench stragglers``
does the same on a virtual clock, in a moment and with the same figures everywhere.

Slot seconds are sampled: how many workers have a task, some times a second. The figures are kept in
``benchmarks/results/stragglers.json``.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import cloudpickle

import minimr

__all__ = ["main"]

RECORD_MS = 10
SAMPLE_S = 0.05

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def sleepy(line: bytes) -> Iterator[tuple[bytes, int]]:
    """The map function: a record takes `RECORD_MS`, wherever it runs undisturbed."""
    time.sleep(RECORD_MS / 1000)  # the work of a record
    yield line, 1


class Watch:
    """While a job runs: samples who is busy, and slows one worker down."""

    def __init__(self, cluster: minimr.LocalCluster, slowdown: int) -> None:
        self._cluster = cluster
        self._slowdown = slowdown
        self._victim = min(worker.id for worker in cluster.status().workers)
        self._victim_pid = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._sample)]
        if slowdown > 1:
            self._threads.append(threading.Thread(target=self._slow_down))
        self.slot_seconds = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _sample(self) -> None:
        before_s = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            workers = self._cluster.status().workers
            now_s = time.monotonic()
            self.slot_seconds += (now_s - before_s) * sum(bool(each.task) for each in workers)
            before_s = now_s
            for each in workers:
                if each.id == self._victim:
                    self._victim_pid = each.executor_pid if each.task else 0

    def _slow_down(self) -> None:
        run_s = RECORD_MS / 1000
        while not self._ended.wait(run_s):
            pid = self._victim_pid
            if pid:
                with suppress(ProcessLookupError):  # its attempt was cancelled
                    os.kill(pid, signal.SIGSTOP)
                    self._ended.wait(run_s * (self._slowdown - 1))
                    os.kill(pid, signal.SIGCONT)


def main() -> int:
    """Measure, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--maps", type=int, default=64)
    parser.add_argument("--task-ms", type=int, default=2_000)
    parser.add_argument("--slowdown", type=int, default=10)
    options = parser.parse_args()
    even = [options.task_ms] * options.maps
    skewed = [options.task_ms * (8 if n % 8 == 0 else 1) // 2 for n in range(options.maps)]
    runs = [
        ("undisturbed", even, 1, "rate"),
        ("slow worker", even, options.slowdown, "none"),
        ("slow worker", even, options.slowdown, "rate"),
        ("skew", skewed, 1, "rate"),
    ]
    figures = []
    with TemporaryDirectory() as folder, minimr.LocalCluster(workers=options.workers) as cluster:
        _run(cluster, Path(folder), [RECORD_MS] * options.workers, 1, "none")  # warms it up
        for scenario, task_ms, slowdown, policy in runs:
            figure = _run(cluster, Path(folder), task_ms, slowdown, policy)
            figures.append({"scenario": scenario, "policy": policy, **figure})
            print(f"{scenario:12} {policy:5}", figure, flush=True)
    undisturbed, none, rate, skew = figures
    marks = {
        "none_over_rate": none["seconds"] / rate["seconds"],
        "rate_over_undisturbed": rate["seconds"] / undisturbed["seconds"],
        "extra_slot_share": rate["slot_seconds"] / undisturbed["slot_seconds"] - 1,
        "skew_backups": skew["launched"],
    }
    print(", ".join(f"{name} {value:.2f}" for name, value in marks.items()))
    target = Path(__file__).parent / "results" / "stragglers.json"
    report = {**vars(options), "figures": figures, "marks": marks}
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _run(
    cluster: minimr.LocalCluster, folder: Path, task_ms: list[int], slowdown: int, policy: str
) -> dict[str, float]:
    source, name = folder / "in", f"out-{time.monotonic_ns()}"
    source.mkdir(exist_ok=True)
    for old in source.iterdir():
        old.unlink()
    for index, each in enumerate(task_ms):
        (source / f"{index:03d}").write_bytes(b"%03d\n" % index * (each // RECORD_MS))
    largest_bytes = max(each.stat().st_size for each in source.iterdir())  # each file is one map
    job = minimr.Job("sleepy", map=sleepy)
    with Watch(cluster, slowdown) as watch:
        result = cluster.submit(
            job,
            input=str(source),
            output=str(folder / name),
            split_size=largest_bytes,
            backup_policy=policy,
        ).wait()
    assert result.counters["map.input_records"] == sum(task_ms) // RECORD_MS
    counters = {what: result.counters[f"backup.{what}"] for what in ("launched", "won", "wasted")}
    return {
        "seconds": result.phases_ms["map"] / 1000,
        "slot_seconds": round(watch.slot_seconds, 2),
        **counters,
    }


if __name__ == "__main__":
    sys.exit(main())
