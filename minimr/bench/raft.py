"""How fast the masters commit, and how long nothing can be changed when their leader dies.

Three masters of a scratch cluster, real processes with a real log on a real disk. A request makes a
directory whose name is padded so that the command in the log has 256 bytes; it goes through the
client library that users have, and is answered when a majority has it on disk.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from minigfs.client.client import MinigfsClient
from minimr.bench.load import (
    LatencyFigures,
    RateFigures,
    fdatasync_ms,
    latency_figures,
    spread_closed_loop,
)
from minimr.bench.scratch import ScratchCluster

__all__ = [
    "COMMAND_BYTES",
    "DirectoryMaker",
    "MASTER_COUNT",
    "RaftFigures",
    "longest_stall_ms",
    "measure_failover",
    "measure_rates",
]

MASTER_COUNT = 3
COMMAND_BYTES = 256
_OVERHEAD_BYTES = 40  # of the encoded command around the path, about
_BEFORE_KILL_S = 0.5
_WRITES_AFTER_KILL = 20


class RaftFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one system. ``failover``: longest stall of a writer around each kill of the leader."""

    system: str
    rates: tuple[RateFigures, ...] = ()
    failover: LatencyFigures | None = None
    failover_ms: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, system: str, rates: Sequence[RateFigures], stalls_ms: Sequence[int]
    ) -> "RaftFigures":
        stalls_ns = [stall * 1_000_000 for stall in stalls_ms]
        return cls(
            system=system,
            rates=tuple(rates),
            failover=latency_figures(stalls_ns) if stalls_ns else None,
            failover_ms=tuple(stalls_ms),
        )


def measure_rates(
    masters: ScratchCluster, counts: Sequence[int], duration_s: float
) -> tuple[RateFigures, ...]:
    """Commits per second and latency for each number of clients."""
    rates = []
    for count in counts:
        parent = f"/bench-{count}"
        masters.client().make_directory(parent)
        latencies = spread_closed_loop(count, duration_s, DirectoryMaker(masters.client(), parent))
        rates.append(
            RateFigures(
                clients=count,
                per_second=round(len(latencies) / duration_s, 1),
                latency=latency_figures(latencies),
                fdatasync=fdatasync_ms(masters.layout.home),
            )
        )
    return tuple(rates)


@dataclass(frozen=True, slots=True)
class DirectoryMaker:
    """For each writer by its number, a function that makes its n-th directory below ``parent``."""

    client: MinigfsClient
    parent: str

    def __call__(self, writer: int) -> Callable[[int], None]:
        base = f"{self.parent}/{writer:04}-"
        width = COMMAND_BYTES - _OVERHEAD_BYTES - len(base)
        return lambda n: self.client.make_directory(f"{base}{n:0{width}}")


def measure_failover(masters: ScratchCluster, trials: int) -> list[int]:
    """For each kill of the leader, the longest time that a writer waited for an answer, in ms."""
    client = masters.client()
    client.make_directory("/failover")
    stalls: list[int] = []
    for trial in range(trials):
        writer = DirectoryMaker(client, "/failover")(trial)
        stalls.append(longest_stall_ms(writer, masters.kill_leader))
        masters.restart_missing()
    return stalls


def longest_stall_ms(write: Callable[[int], None], kill: Callable[[], None]) -> int:
    """The longest that one write took, of a writer that began half a second before ``kill``."""
    longest_ns = 0
    killed, ended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        nonlocal longest_ns
        number = after_kill = 0
        try:
            while after_kill < _WRITES_AFTER_KILL:
                began_ns = time.perf_counter_ns()
                write(number)
                longest_ns = max(longest_ns, time.perf_counter_ns() - began_ns)
                number += 1
                after_kill += killed.is_set()
        except BaseException as error:  # of any kind: the trial has failed
            failures.append(error)
        finally:
            ended.set()

    writer = threading.Thread(target=work)
    writer.start()
    ended.wait(_BEFORE_KILL_S)
    kill()
    killed.set()
    writer.join()
    if failures:
        raise failures[0]
    return longest_ns // 1_000_000
