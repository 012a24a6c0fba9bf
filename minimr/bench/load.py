"""A closed loop of clients, and what their latencies come to.

Each client is a thread that sends its next request when the last one is answered, as a caller of a
blocking library does. ``fdatasync_ms`` says what one sync costs on the same disk at the same time:
a rate of durable writes means nothing without it.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

__all__ = ["LatencyFigures", "RateFigures", "closed_loop", "fdatasync_ms", "latency_figures"]

_SYNC_COUNT = 200
_SYNC_BYTES = 300  # about a command of 256 bytes in its record


class LatencyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class RateFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One closed loop: requests per second over the whole run, and their latencies."""

    clients: int
    per_second: float
    latency: LatencyFigures
    fdatasync: LatencyFigures


def latency_figures(latencies_ns: Sequence[int]) -> LatencyFigures:
    """Median, 99th percentile and maximum; ``latencies_ns`` is not empty."""
    ordered = sorted(latencies_ns)
    return LatencyFigures(
        p50_ms=round(statistics.median(ordered) / 1e6, 3),
        p99_ms=round(ordered[(len(ordered) - 1) * 99 // 100] / 1e6, 3),
        max_ms=round(ordered[-1] / 1e6, 3),
    )


def closed_loop(
    clients: int, duration_s: float, make_request: Callable[[int], Callable[[int], None]]
) -> list[int]:
    """The latency of every request that was answered, in nanoseconds.

    ``make_request(client)`` prepares one client and returns the function that sends its n-th
    request. Its preparation and its first request are not measured.
    """
    latencies: list[list[int]] = [[] for _ in range(clients)]
    failures: list[BaseException] = []
    start = threading.Barrier(clients + 1)
    ends_ns = 0

    def run(client: int) -> None:
        try:
            send = make_request(client)
            send(0)
            start.wait()
            count = 0
            while (began_ns := time.perf_counter_ns()) < ends_ns:
                count += 1
                send(count)
                latencies[client].append(time.perf_counter_ns() - began_ns)
        except BaseException as error:  # of any kind: the benchmark as a whole has failed
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        ends_ns = time.perf_counter_ns() + int((duration_s + 60) * 1e9)
        start.wait()
        ends_ns = time.perf_counter_ns() + int(duration_s * 1e9)
    except threading.BrokenBarrierError:
        pass
    for thread in threads:
        thread.join()
    if failures:
        raise next((f for f in failures if not isinstance(f, threading.BrokenBarrierError)),
                   failures[0])  # fmt: skip
    return [latency for per_client in latencies for latency in per_client]


def fdatasync_ms(directory: Path) -> LatencyFigures:
    """What appending a small record and syncing it costs on this disk."""
    latencies: list[int] = []
    record = b"x" * _SYNC_BYTES
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, _SYNC_BYTES * _SYNC_COUNT)
        for number in range(_SYNC_COUNT):
            began_ns = time.perf_counter_ns()
            os.pwrite(file.fileno(), record, number * _SYNC_BYTES)
            os.fdatasync(file.fileno())
            latencies.append(time.perf_counter_ns() - began_ns)
    return latency_figures(latencies)
