"""How fast the file system is: data, small files, metadata, repair, and the longest stall.

Three masters and four chunkservers of a scratch cluster, real processes on a real disk, used
through the client library. A figure that is bound by the machine stands beside that limit, measured
in the same run (``machine``), and says which part of it was reached.
"""

import os
import random
import signal
import tempfile
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
from minigfs.errors import MinigfsError, StartFailed
from minimr.bench.load import spread_closed_loop
from minimr.bench.machine import MachineLimits
from minimr.bench.raft import longest_stall_ms

__all__ = ["Figure", "ScratchStorage", "measure", "scratch_storage", "table_rows"]

MASTER_COUNT = 3
CHUNKSERVER_COUNT = 4  # one more than replicas, so that one that dies can be replaced
READ_BYTES = 4 << 20
SMALL_BYTES = 1 << 10
CLIENT_COUNTS = (1, 64)
READER_COUNTS = (1, 2, 4, 8)
_HEALED_TIMEOUT_S = 120.0
_LOOK_S = 0.02


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. ``of_limit``: the share of the machine's own limit, if it has one."""

    what: str
    value: float
    unit: str
    of_limit: float | None = None
    limit: str = ""


class ScratchStorage:
    """A running file system that is thrown away afterwards."""

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
        leader = next(m for m in self.client().report().masters if m.role == "leader")
        os.kill(leader.pid, signal.SIGKILL)

    def kill_chunkserver(self) -> int:
        """Kill the one that stores most; the bytes it stored."""
        victim = max(self.client().report().chunkservers, key=lambda server: server.bytes)
        os.kill(victim.pid, signal.SIGKILL)
        return victim.bytes

    def forbid_lending(self) -> None:
        """Take away the sockets through which readers of this machine borrow chunk files."""
        for server in self.client().report().chunkservers:
            for path in Path(server.dir).rglob("*.sock"):
                path.unlink()

    def drop_caches(self) -> None:
        """Let the disk be read again: no page of a chunk file stays in memory."""
        os.sync()
        for server in self.client().report().chunkservers:
            for path in Path(server.dir).rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def scratch_storage(directory: Path | None) -> Iterator[ScratchStorage]:
    """A file system below ``directory`` (default: the system's for temporaries)."""
    with tempfile.TemporaryDirectory(prefix="minigfs-bench-", dir=directory) as home:
        layout = ClusterLayout(Path(home))
        with layout.locked():
            shape = StorageShape(masters=MASTER_COUNT, chunkservers=CHUNKSERVER_COUNT)
            storage = ScratchStorage(layout, prepare_storage(layout, shape))
            try:
                storage.start()
                yield storage
            finally:
                storage.stop()


def measure(
    storage: ScratchStorage, machine: MachineLimits, *, size_bytes: int, seconds: float
) -> Iterator[Figure]:
    """Every figure, as it is known. ``size_bytes``: of the large file; ``seconds``: of a loop."""
    yield from _writes(storage, machine, size_bytes)
    yield from _small_changes(storage, seconds)
    yield from _stalls(storage)
    yield from _recovery(storage, machine)
    yield from _reads(storage, machine, size_bytes, seconds)


# Data


def _writes(storage: ScratchStorage, machine: MachineLimits, size_bytes: int) -> Iterator[Figure]:
    piece = random.Random(1).randbytes(READ_BYTES)
    client = storage.client()
    for replication in (1, 2, 3):
        began = time.perf_counter()
        with client.open_writer(f"/large-{replication}", replication=replication) as writer:
            for _ in range(0, size_bytes, len(piece)):
                writer.write(piece)
        rate = writer.size_bytes / (time.perf_counter() - began)
        yield Figure(
            what=f"write one file, {replication} replicas, closed and durable",
            value=rate / 1e6,
            unit="MB/s",
            of_limit=rate / (machine.disk_write / replication),
            limit="disk" if replication == 1 else f"disk/{replication}",
        )


def _reads(
    storage: ScratchStorage, machine: MachineLimits, size_bytes: int, seconds: float
) -> Iterator[Figure]:
    storage.drop_caches()
    yield _sequential(storage, "read, cold", machine.disk_write, "disk write")
    warm = machine.file_read_and_verify
    yield _sequential(storage, "read, warm, from this machine", warm, "file+sums")
    for count in READER_COUNTS:
        yield _random_reads(storage, count, size_bytes, seconds)
    storage.forbid_lending()
    yield _sequential(storage, "read, warm, through the socket", machine.loopback, "loopback")


def _sequential(storage: ScratchStorage, what: str, limit: float, name: str) -> Figure:
    """The whole file, by a client that has just begun."""
    buffer, offset = bytearray(READ_BYTES), 0
    with storage.client().open_reader("/large-3") as reader:
        began = time.perf_counter()
        while count := reader.read_into(offset, buffer):
            offset += count
        rate = offset / (time.perf_counter() - began)
    return Figure(what=what, value=rate / 1e6, unit="MB/s", of_limit=rate / limit, limit=name)


def _random_reads(storage: ScratchStorage, count: int, size_bytes: int, seconds: float) -> Figure:
    make = _RandomReader(storage.client().config, size_bytes)
    latencies = spread_closed_loop(count, seconds, make)
    rate = len(latencies) * READ_BYTES / seconds
    return Figure(what=f"read 4 MiB anywhere, {count} clients", value=rate / 1e6, unit="MB/s")


@dataclass(frozen=True, slots=True)
class _RandomReader:
    config: ClientConfig
    size_bytes: int

    def __call__(self, number: int) -> Callable[[int], None]:
        reader = MinigfsClient(self.config).open_reader("/large-3")
        places, buffer = random.Random(number), bytearray(READ_BYTES)

        def read(_: int) -> None:
            reader.read_into(places.randrange(self.size_bytes - READ_BYTES), buffer)

        return read


# Small files and metadata


def _small_changes(storage: ScratchStorage, seconds: float) -> Iterator[Figure]:
    for count in CLIENT_COUNTS:
        for kind in ("create empty", "create 1 KiB", "rename", "stat", "mkdir and delete"):
            root = f"/{kind.replace(' ', '-')}-{count}"
            storage.client().make_directory(root)
            make = _SmallChanges(storage.client().config, kind, root)
            latencies = spread_closed_loop(count, seconds, make)
            yield Figure(what=f"{kind}, {count} clients", value=len(latencies) / seconds, unit="/s")


@dataclass(frozen=True, slots=True)
class _SmallChanges:
    """For each client by its number, the function that makes its n-th change."""

    config: ClientConfig
    kind: str
    root: str

    def __call__(self, number: int) -> Callable[[int], None]:
        client, base = MinigfsClient(self.config), f"{self.root}/{number:03}"

        def create(path: str, data: bytes = b"") -> None:
            with client.open_writer(path) as writer:
                writer.write(data)

        match self.kind:
            case "create empty":
                return lambda n: create(f"{base}-{n}")
            case "create 1 KiB":
                return lambda n: create(f"{base}-{n}", bytes(SMALL_BYTES))
            case "stat":
                create(base)
                return lambda _: _ignored(client.stat(base))
            case "rename":
                create(f"{base}-0")
                return lambda n: client.rename(f"{base}-{n}", f"{base}-{n + 1}")
            case _:

                def make_and_delete(n: int) -> None:
                    client.make_directory(f"{base}-{n}")
                    client.remove(f"{base}-{n}")

                return make_and_delete


# Faults


def _stalls(storage: ScratchStorage) -> Iterator[Figure]:
    """The longest that a writer of small files waited around a kill."""
    kills: tuple[tuple[str, Callable[[], None]], ...] = (
        ("a chunkserver", lambda: _ignored(storage.kill_chunkserver())),
        ("the leader", storage.kill_leader),
    )
    client = storage.client()
    for name, kill in kills:
        _await_health(storage, "OK")
        root = f"/stall-{name.split()[-1]}"
        client.make_directory(root)
        write = _SmallChanges(client.config, "create 1 KiB", root)(0)
        stall_ms = longest_stall_ms(write, kill)
        yield Figure(what=f"longest stall of a writer, {name} killed", value=stall_ms, unit="ms")
        storage.start()


def _recovery(storage: ScratchStorage, machine: MachineLimits) -> Iterator[Figure]:
    """One server dies for good: until every chunk has all its replicas again."""
    _await_health(storage, "OK")
    lost_bytes = storage.kill_chunkserver()
    began = time.perf_counter()
    _await_health(storage, "DEGRADED", "DATA_AT_RISK")
    noticed = time.perf_counter()
    _await_health(storage, "OK")
    ended = time.perf_counter()
    rate = lost_bytes / (ended - noticed)
    yield Figure(what="a dead chunkserver noticed after", value=noticed - began, unit="s")
    yield Figure(
        what=f"its {lost_bytes / 1e6:.0f} MB made again",
        value=rate / 1e6,
        unit="MB/s",
        of_limit=rate / machine.disk_write,
        limit="disk",
    )
    storage.start()


def _await_health(storage: ScratchStorage, *words: str) -> None:
    deadline = time.monotonic() + _HEALED_TIMEOUT_S
    health = "unknown"
    while time.monotonic() < deadline:
        try:
            health = storage.client().report().health
        except MinigfsError as error:  # no leader just now
            health = str(error)
        if health in words:
            return
        time.sleep(_LOOK_S)  # only asking tells
    raise StartFailed(
        f"the health is {health} after {_HEALED_TIMEOUT_S:g} s, not {' or '.join(words)}: "
        f"see {storage.layout.logs}"
    )


def _ignored(_: object) -> None:
    pass


def table_rows(figures: Sequence[Figure]) -> list[tuple[str, str, str, str]]:
    """What, value, unit, and the share of the limit."""
    return [
        (
            figure.what,
            f"{figure.value:,.1f}" if figure.value < 10 else f"{figure.value:,.0f}",
            figure.unit,
            "" if figure.of_limit is None else f"{figure.of_limit:.0%} of {figure.limit}",
        )
        for figure in figures
    ]
