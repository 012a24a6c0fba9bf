"""What a worker counts and measures of itself, for Prometheus."""

from collections.abc import Iterator
from contextlib import suppress

from minigfs.transport.metrics import Counters, Metric, process_metrics

__all__ = ["ATTEMPTS_FAILED", "ATTEMPTS_SUCCEEDED", "COUNTERS", "worker_metrics"]

ATTEMPTS_SUCCEEDED = "minimr_worker_attempts_succeeded_total"
ATTEMPTS_FAILED = "minimr_worker_attempts_failed_total"

COUNTERS = {
    ATTEMPTS_SUCCEEDED: "Attempts that did their task.",
    ATTEMPTS_FAILED: "Attempts that failed.",
}


def worker_metrics(
    counters: Counters, *, is_registered: bool, is_busy: bool, stored_jobs: int, executor_pid: int
) -> Iterator[Metric]:
    """``stored_jobs``: jobs whose map outputs lie here; ``executor_pid``: 0 if there is none."""
    name = "minimr_worker"
    yield Metric(f"{name}_registered", "1 once a master knows the worker.", int(is_registered))
    yield Metric(f"{name}_busy", "1 while an attempt runs.", int(is_busy))
    yield Metric(f"{name}_stored_jobs", "Jobs whose map outputs lie here.", stored_jobs)
    yield Metric(
        f"{name}_executor_resident_memory_bytes",
        "Resident memory of the process that runs user code, in bytes.",
        _resident_bytes(executor_pid),
    )
    yield from counters.metrics()
    yield from process_metrics()


def _resident_bytes(pid: int) -> int:
    import psutil

    if pid:
        with suppress(psutil.Error):  # it has just ended
            return int(psutil.Process(pid).memory_info().rss)
    return 0
