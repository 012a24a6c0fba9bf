"""The loads that are the same for every file system: large files, and small ones by many clients.

Everything lies below directories that are named by how many replicas their files have: ``/3/..``.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from minimr.bench.figures import Figure, Limit
from minimr.bench.load import spread_closed_loop
from minimr.bench.machine import MachineLimits
from minimr.bench.stores import ReadInto, Store

__all__ = [
    "READ_BYTES",
    "drop_from_cache",
    "random_reads",
    "sequential_read",
    "small_changes",
    "writes",
]

READ_BYTES = 4 << 20
_READ_FILES_COUNT = 10
_SMALL_BYTES = 1 << 10
_CLIENT_COUNTS = (1, 64)
_READER_COUNTS = (1, 2, 4, 8)
_LARGE = "/3/large"


def drop_from_cache(files: Iterator[Path]) -> None:
    """Let the disk be read again: no page of these files stays in memory."""
    os.sync()
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def writes(
    store: Store, machine: MachineLimits, size_bytes: int, counts: Sequence[int]
) -> Iterator[Figure]:
    piece = random.Random(1).randbytes(READ_BYTES)
    pieces = [piece] * (size_bytes // READ_BYTES)
    for replication in counts:
        began = time.perf_counter()
        store.write(f"/{replication}/large", pieces, replication)
        rate = len(pieces) * READ_BYTES / (time.perf_counter() - began)
        name = "disk" if replication == 1 else f"disk/{replication}"
        yield Figure.rate(
            store.name,
            f"write one file, {replication} replicas, closed and durable",
            rate,
            Limit(machine.disk_write / replication, name),
        )


def sequential_read(store: Store, what: str, limit: Limit) -> Figure:
    """The whole file, by a client that has just begun."""
    buffer, offset = bytearray(READ_BYTES), 0
    with store.opened(_LARGE) as read_into:
        began = time.perf_counter()
        while count := read_into(offset, buffer):
            offset += count
        rate = offset / (time.perf_counter() - began)
    return Figure.rate(store.name, what, rate, limit)


def random_reads(
    store: Store, machine: MachineLimits, size_bytes: int, seconds: float
) -> Iterator[Figure]:
    for count in _READER_COUNTS:
        with ExitStack() as opened:
            readers = [opened.enter_context(store.opened(_LARGE)) for _ in range(count)]
            latencies = spread_closed_loop(count, seconds, _RandomReads(readers, size_bytes))
        rate = len(latencies) * READ_BYTES / seconds
        limit = Limit(machine.file_read_and_verify, "file+sums")
        yield Figure.rate(store.name, f"read 4 MiB anywhere, {count} clients", rate, limit)


@dataclass(frozen=True, slots=True)
class _RandomReads:
    readers: Sequence[ReadInto]
    size_bytes: int

    def __call__(self, number: int) -> Callable[[int], None]:
        places, buffer = random.Random(number), bytearray(READ_BYTES)
        last = self.size_bytes // READ_BYTES - 1

        def read(_: int) -> None:
            self.readers[number](places.randint(0, last) * READ_BYTES, buffer)

        return read


def small_changes(store: Store, seconds: float) -> Iterator[Figure]:
    """Creations, reads, renames, deletions and stats a second, by one client and by many. What a
    directory costs, one change of the log, is the measure of the other changes."""
    for count in _CLIENT_COUNTS:
        for kind in _KINDS:
            root = f"/3/{kind.replace(' ', '-')}-{count}"
            store.make_directory(root)
            latencies = spread_closed_loop(count, seconds, _SmallChanges(store, kind, root))
            yield Figure(
                system=store.name,
                what=f"{kind}, {count} clients",
                value=len(latencies) / seconds,
                unit="/s",
            )
        yield _deletions(store, f"/3/create-empty-{count}", count)


_KINDS = ("make directory", "create empty", "create 1 KiB", "read 1 KiB", "rename", "stat")


@dataclass(frozen=True, slots=True)
class _SmallChanges:
    """For each client by its number, the function that makes its n-th change."""

    store: Store
    kind: str
    root: str

    def __call__(self, number: int) -> Callable[[int], None]:
        store, base = self.store, f"{self.root}/{number:03}"
        match self.kind:
            case "make directory":
                return lambda n: store.make_directory(f"{base}-{n}")
            case "create empty":
                return lambda n: store.create(f"{base}-{n}", b"")
            case "create 1 KiB":
                return lambda n: store.create(f"{base}-{n}", bytes(_SMALL_BYTES))
            case "read 1 KiB":
                return self._reader(base)
            case "stat":
                store.create(base, b"")
                return lambda _: store.stat(base)
            case _:
                store.create(f"{base}-0", b"")
                return lambda n: store.rename(f"{base}-{n}", f"{base}-{n + 1}")

    def _reader(self, base: str) -> Callable[[int], None]:
        """Opens files of its own one after the other, and reads each whole."""
        paths = [f"{base}-{number}" for number in range(_READ_FILES_COUNT)]
        for path in paths:
            self.store.create(path, bytes(_SMALL_BYTES))
        buffer = bytearray(_SMALL_BYTES)

        def read(number: int) -> None:
            with self.store.opened(paths[number % len(paths)]) as read_into:
                read_into(0, buffer)

        return read


def _deletions(store: Store, root: str, count: int) -> Figure:
    """All files of a directory, each client its share of them."""
    paths = store.names(root)

    def delete(number: int) -> None:
        for path in paths[number::count]:
            store.remove(path)

    clients = [threading.Thread(target=delete, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    rate = len(paths) / (time.perf_counter() - began)
    return Figure(system=store.name, what=f"delete, {count} clients", value=rate, unit="/s")
