"""A closed loop of clients, and what their latencies come to.

Each client is a thread that sends its next request when the last one is answered, as a caller of a
blocking library does. ``fdatasync_ms`` says what one sync costs on the same disk at the same time:
a rate of durable writes means nothing without it.
"""

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

__all__ = [
    "LatencyFigures",
    "RateFigures",
    "closed_loop",
    "fdatasync_ms",
    "latency_figures",
    "spread_closed_loop",
]

CLIENTS_PER_PROCESS = 64

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
    clients: int,
    duration_s: float,
    make_request: Callable[[int], Callable[[int], None]],
    *,
    everybody_is_ready: Callable[[], object] = lambda: None,
) -> list[int]:
    """The latency of every request that was answered, in nanoseconds.

    ``make_request(client)`` prepares one client and returns the function that sends its n-th
    request. Its preparation and its first request are not measured. ``everybody_is_ready`` is
    called between, and the time counts from its return.
    """
    latencies: list[list[int]] = [[] for _ in range(clients)]
    failures: list[BaseException] = []
    ends_ns = 0

    def begin() -> None:
        nonlocal ends_ns
        everybody_is_ready()
        ends_ns = time.perf_counter_ns() + int(duration_s * 1e9)

    start = threading.Barrier(clients, action=begin)

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
    for thread in threads:
        thread.join()
    if failures:
        raise next((f for f in failures if not isinstance(f, threading.BrokenBarrierError)),
                   failures[0])  # fmt: skip
    return [latency for per_client in latencies for latency in per_client]


def spread_closed_loop(
    clients: int, duration_s: float, make_request: Callable[[int], Callable[[int], None]]
) -> list[int]:
    """``closed_loop`` with at most ``CLIENTS_PER_PROCESS`` in one process: more of them would wait
    for each other, and not for what is measured. ``make_request`` travels by pickle."""
    shares = [
        range(first, min(first + CLIENTS_PER_PROCESS, clients))
        for first in range(0, clients, CLIENTS_PER_PROCESS)
    ]
    if len(shares) == 1:
        return closed_loop(clients, duration_s, make_request)
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(len(shares), mp_context=context) as processes,
    ):
        ready = manager.Barrier(len(shares))
        running = [
            processes.submit(_run_share, share, duration_s, make_request, ready) for share in shares
        ]
        return [latency for share in running for latency in share.result()]


def _run_share(
    share: range,
    duration_s: float,
    make_request: Callable[[int], Callable[[int], None]],
    ready: threading.Barrier,
) -> list[int]:
    try:
        return closed_loop(
            len(share),
            duration_s,
            lambda client: make_request(share[client]),
            everybody_is_ready=ready.wait,
        )
    except BaseException:
        ready.abort()
        raise


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
