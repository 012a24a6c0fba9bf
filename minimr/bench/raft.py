"""How fast the masters commit, and how long nothing can be changed when their leader dies.

Three masters of a scratch cluster, real processes with a real log on a real disk. A request makes a
directory whose name is padded so that the command in the log has 256 bytes; it goes through the
client library that users have, and is answered when a majority has it on disk.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout
from minigfs.cluster.processes import start_missing, stop_all
from minigfs.cluster.state import ClusterState, load_state
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from minigfs.errors import StartFailed
from minimr.bench.load import (
    LatencyFigures,
    RateFigures,
    fdatasync_ms,
    latency_figures,
    spread_closed_loop,
)

__all__ = [
    "COMMAND_BYTES",
    "DirectoryMaker",
    "MASTER_COUNT",
    "RaftFigures",
    "longest_stall_ms",
    "measure_failover",
    "measure_rates",
    "scratch_masters",
]

MASTER_COUNT = 3
COMMAND_BYTES = 256
_OVERHEAD_BYTES = 40  # of the encoded command around the path, about
_PROBE_INTERVAL_MS = 5
_RECOVERY_TIMEOUT_MS = 30_000
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


class ScratchMasters:
    """A running cluster that is thrown away afterwards."""

    def __init__(self, layout: ClusterLayout, state: ClusterState) -> None:
        self.layout = layout
        self._state = state

    def start(self) -> None:
        """Start whatever does not run."""
        self._state = start_missing(self.layout, self._state, STORAGE_KINDS)
        await_storage(self.layout, self._state)

    def stop(self) -> None:
        stop_all(self.layout, load_state(self.layout) or self._state)

    def client(self) -> MinigfsClient:
        return MinigfsClient(ClientConfig.discover(home=str(self.layout.home)))

    def kill_leader(self) -> None:
        """Send SIGKILL to the process that leads."""
        leader = next(m for m in self.client().report().masters if m.role == "leader")
        os.kill(leader.pid, signal.SIGKILL)

    def restart_missing(self) -> None:
        """Start the killed master again, and return when all three are up to date."""
        self.start()
        deadline_ns = time.monotonic_ns() + _RECOVERY_TIMEOUT_MS * 1_000_000
        client = self.client()
        while True:
            masters = client.report().masters
            indexes = [master.commit_index for master in masters]
            if len(masters) == MASTER_COUNT and max(indexes) - min(indexes) < 100:
                return
            if time.monotonic_ns() > deadline_ns:
                raise StartFailed(f"the killed master is not back: see {self.layout.logs}")
            time.sleep(_PROBE_INTERVAL_MS / 1000)  # only asking tells


@contextmanager
def scratch_masters(directory: Path | None) -> Iterator[ScratchMasters]:
    """Three masters with their logs below ``directory`` (default: the system's for temporaries)."""
    with tempfile.TemporaryDirectory(prefix="minimr-bench-", dir=directory) as home:
        layout = ClusterLayout(Path(home))
        with layout.locked():
            masters = ScratchMasters(
                layout, prepare_storage(layout, StorageShape(masters=MASTER_COUNT, chunkservers=1))
            )
            try:
                masters.start()
                yield masters
            finally:
                masters.stop()


def measure_rates(
    masters: ScratchMasters, counts: Sequence[int], duration_s: float
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


def measure_failover(masters: ScratchMasters, trials: int) -> list[int]:
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
