"""``make bench-master``: the longest pause of masters that hold many files and are busy (6.12).

A group of real master processes is founded on a snapshot of a million files. Clients make
directories without end, so that a snapshot is nearly always being written; meanwhile five
chunkservers report all their chunks, the tree is walked, and all of it is removed. In each master a
task that wants to run every millisecond notes how late it was, and how much of that time its own
process was at work: the rest was the machine's, which has other things to do. Then one master is
started again. Figures are printed, and kept in ``benchmarks/results/master_pauses.json``.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import msgspec
import psutil

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster.storage import free_loopback_ports
from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.heartbeat_messages import Heartbeat, ReplicaReport
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.name_table import BLOCK_NAMES_MAX, NameTable
from minigfs.master.process import FileSystemService, MasterOptions, serve_master
from minigfs.master.snapshot import freeze_state
from minigfs.master.state import (
    ROOT_ID,
    Chunk,
    DirectoryInode,
    FileInode,
    FileSystemState,
    initial_state,
)
from minigfs.ports import SystemClock, SystemRng
from minigfs.raft import HardState, Persist, PersistToken, Snapshot, SnapshotMetadata
from minigfs.replication.founding import found_group, load_member
from minigfs.replication.snapshot_stream import pack
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller
from minigfs.transport.security import Security

__all__ = ["main"]

FILES_PER_DIRECTORY = 1_000

NOW_MS = 1_700_000_000_000
SNAPSHOT_INDEX = 3_000_000
SECURITY = Security(b"t" * 32, "bench")
CONFIG = FileSystemConfig(cluster_id="bench")
SERVERS = tuple(ChunkserverId(f"cs-{number:016x}") for number in range(5))
REPORT_PART_CHUNKS = 1_000  # as chunkservers do
REPORT_PAUSE_S = 0.01
METER_S = 0.001

Figures = dict[str, float]
Phases = dict[str, tuple[float, float]]
_SPAWN = multiprocessing.get_context("spawn")


def main() -> int:
    """Measure, print, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--masters", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minigfs-bench-") as folder:
        figures = _measure(Path(folder), options)
    for name, figure in figures.items():
        print(f"{name:34} {figure:12.2f}")
    machine = f"{os.cpu_count()} x {platform.processor()}"
    report = {"machine": machine, "options": vars(options), "figures": figures}
    target = Path(__file__).parent / "results" / "master_pauses.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> Figures:
    group = _Group(folder, options.masters)
    with _SPAWN.Pool(1) as pool:  # what it takes in memory is given back
        pool.apply(_write_snapshots, (group.directories, options.files))
    config = ClientConfig(masters=group.addresses, token=SECURITY.token, timeout_ms=60_000)
    client = MinigfsClient(config)
    figures: Figures = {}
    phases: Phases = {}
    try:
        group.start(*range(options.masters))
        term = client.report().elections
        with _stream(client, options.clients, figures):
            with _phase(phases, "mkdirs"):
                time.sleep(options.seconds)
            with _phase(phases, "full_reports"):
                figures["full_reports_s"] = _tell_all(config, options.files)
            with _phase(phases, "walk"):
                walked = sum(1 for _ in zip(client.find("/data"), range(100_000), strict=False))
                client.report()
            figures |= {"walked": walked, "memory_mb_max": group.memory_mb_max()}
            with _phase(phases, "restart"):
                figures["restart_s"] = group.restart_follower(client)
            with _phase(phases, "reaping"):
                started = time.perf_counter()
                removed = client.remove("/data", recursive=True)
                figures["remove_reply_ms"] = _since(started) * 1e3
                assert removed.file_count == options.files
                time.sleep(options.seconds)
        report = client.report()
        figures["elections"] = report.elections - term
        figures["commits"] = max(one.commit_index for one in report.masters) - SNAPSHOT_INDEX
        leader = group.leader(client)
    finally:
        group.end()
    for number in range(options.masters):
        role = "leader" if number == leader else f"follower_{number}"
        figures |= group.pauses(number, role, phases)
    return figures


# The masters.


class _Group:
    """Masters in processes of their own, by number."""

    def __init__(self, folder: Path, count: int) -> None:
        self.directories = [folder / f"master-{number}" for number in range(count)]
        self.addresses = tuple(f"127.0.0.1:{port}" for port in free_loopback_ports(count))
        self._processes: dict[int, SpawnProcess] = {}
        self._ready: dict[int, Event] = {}
        found_group(list(zip(self.directories, self.addresses, strict=True)), SystemRng())

    def start(self, *numbers: int) -> None:
        """Return when each answers, or knows who does."""
        for number in numbers:
            self._start(number)
        for number in numbers:
            assert self._ready[number].wait(120)

    def _start(self, number: int) -> None:
        ready = self._ready[number] = _SPAWN.Event()
        process = _SPAWN.Process(
            target=_serve, args=(self.directories[number], self.addresses[number], ready)
        )
        process.start()
        self._processes[number] = process

    def leader(self, client: MinigfsClient) -> int:
        leading = [one.address for one in client.report().masters if one.role == "leader"]
        return self.addresses.index(leading[0])

    def restart_follower(self, client: MinigfsClient) -> float:
        """Seconds from the command until it follows the leader again."""
        number = (self.leader(client) + 1) % len(self.addresses)
        _end(self._processes.pop(number))
        started = time.perf_counter()
        self.start(number)
        return _since(started)

    def memory_mb_max(self) -> float:
        processes = self._processes.values()
        return max(psutil.Process(one.pid).memory_info().rss / 1e6 for one in processes)

    def end(self) -> None:
        for process in self._processes.values():
            _end(process)

    def pauses(self, number: int, name: str, phases: Phases) -> Figures:
        """The longest in each phase, in all lives of a master that has ended: by the clock, at work
        itself, and at work in the loop."""
        lives = self.directories[number].glob("pauses-*.json")
        late = [pause for life in lives for pause in json.loads(life.read_text())]
        figures: Figures = {}
        for phase, (begun, ended) in phases.items():
            inside = [pause for pause in late if begun <= pause[0] <= ended]
            figures[f"{name}_{phase}_max_ms"] = max((pause[1] for pause in inside), default=0)
            figures[f"{name}_{phase}_own_ms"] = max((pause[2] for pause in inside), default=0)
            figures[f"{name}_{phase}_loop_ms"] = max((pause[3] for pause in inside), default=0)
        return figures


def _end(process: SpawnProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGTERM)
    process.join()


def _write_snapshots(directories: list[Path], file_count: int) -> None:
    """Let every founded member have taken a snapshot of the same state from a leader."""
    state = _filled_state(file_count)
    for directory in directories:
        loaded = load_member(directory)
        assert loaded is not None
        log, _ = loaded
        metadata = SnapshotMetadata(
            last_included_index=SNAPSHOT_INDEX,
            last_included_term=1,
            configuration=log.snapshot_metadata().configuration,
        )
        writer = log.snapshots.create(metadata)
        for piece in pack(SNAPSHOT_INDEX, [(FILE_SYSTEM_MACHINE, freeze_state(state))]):
            writer.write(piece)
        writer.finish()
        snapshot = Snapshot(metadata=metadata, data=log.snapshots.name_of(metadata).encode())
        hard_state = HardState(current_term=1)
        log.save(
            Persist(token=PersistToken(1), snapshot=snapshot, hard_state=hard_state, entries=())
        )
        log.close()


def _filled_state(file_count: int) -> FileSystemState:
    """``/data/set-0000/part-r-00000.parquet`` and so on, each of one chunk."""
    rng = random.Random(1)
    empty = initial_state()
    inodes, chunks = empty.inodes.mutate(), empty.chunks.mutate()
    top_id, next_id = FileId(ROOT_ID + 1), ROOT_ID + 2
    sets: list[tuple[str, FileId]] = []
    for start in range(0, file_count, FILES_PER_DIRECTORY):
        directory_id = FileId(next_id)
        files = []
        for number in range(min(FILES_PER_DIRECTORY, file_count - start)):
            file_id, handle = FileId(next_id + 1 + number), ChunkHandle(start + number + 1)
            digest = rng.getrandbits(64)
            chunk = Chunk(handle, ChunkVersion(1), 3, _holders(handle), _length(handle), digest)
            name = f"part-r-{number:05d}.parquet"
            hexdigest = f"{digest:016x}"
            inodes[file_id] = FileInode(
                *(file_id, directory_id, name, NOW_MS, NOW_MS + number, 3),
                *(chunk.length_bytes, hexdigest, (handle,)),
            )
            chunks[handle] = chunk
            files.append((name, file_id))
        name = f"set-{len(sets):04d}"
        inodes[directory_id] = DirectoryInode(
            directory_id, top_id, name, NOW_MS, NOW_MS, _table(files), len(files), 0
        )
        sets.append((name, directory_id))
        next_id += 1 + len(files)
    inodes[top_id] = DirectoryInode(
        top_id, ROOT_ID, "data", NOW_MS, NOW_MS, _table(sets), file_count, len(sets)
    )
    inodes[ROOT_ID] = DirectoryInode(
        *(ROOT_ID, ROOT_ID, "", 0, NOW_MS, _table([("data", top_id)]), file_count, len(sets) + 1)
    )
    return msgspec.structs.replace(
        empty,
        config=CONFIG,
        inodes=inodes.finish(),
        chunks=chunks.finish(),
        next_file_id=FileId(next_id),
        next_handle=ChunkHandle(file_count + 1),
    )


def _table(entries: list[tuple[str, FileId]]) -> NameTable:
    blocks = (entries[i : i + BLOCK_NAMES_MAX] for i in range(0, len(entries), BLOCK_NAMES_MAX))
    return NameTable.from_blocks(
        (tuple(name for name, _ in block), tuple(file_id for _, file_id in block))
        for block in blocks
    )


def _holders(handle: ChunkHandle) -> tuple[ChunkserverId, ...]:
    return _HOLDERS[handle % len(SERVERS)]


_HOLDERS = tuple((*SERVERS, *SERVERS)[first : first + 3] for first in range(len(SERVERS)))


def _length(handle: ChunkHandle) -> int:
    return 1_000_000 + handle


def _serve(directory: Path, address: str, ready: Event) -> None:
    """A master, as the command runs it, with a meter on its loop."""
    asyncio.run(_serve_metered(directory, address, ready))


async def _serve_metered(directory: Path, address: str, ready: Event) -> None:
    options = MasterOptions(
        directory=directory, listen=address, security=SECURITY, config=CONFIG, founded=True
    )
    service = FileSystemService(CONFIG, options, SystemClock(), SystemRng())
    meter = _Meter()

    def begin(_: str) -> None:
        meter.start()
        ready.set()

    try:
        await serve_master(options, [service], ready=begin)
    finally:
        meter.stop()
        (directory / f"pauses-{os.getpid()}.json").write_text(json.dumps(meter.late))


class _Meter:
    """Notes when the loop came late: when, by how many ms, in how many of them the process was at
    work, and in how many the loop's own thread was."""

    KEPT_MS = 5

    def __init__(self) -> None:
        self.late: list[tuple[float, float, float, float]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            cpu_s, loop_s, started = time.process_time(), time.thread_time(), time.perf_counter()
            await asyncio.sleep(METER_S)
            late_ms = (_since(started) - METER_S) * 1e3
            if late_ms > self.KEPT_MS:
                own_ms = min((time.process_time() - cpu_s) * 1e3, late_ms)
                loop_ms = (time.thread_time() - loop_s) * 1e3
                self.late.append((time.time(), late_ms, own_ms, loop_ms))


# Those who keep them busy.


@contextmanager
def _stream(client: MinigfsClient, count: int, figures: Figures) -> Iterator[None]:
    """Directories made by ``count`` threads; what they waited for at most."""
    stopping = threading.Event()
    waits: list[float] = []

    def make(number: int) -> None:
        made = 0
        while not stopping.is_set():
            started = time.perf_counter()
            client.make_directory(f"/made/{number}/{made}", parents=True)
            waits.append(_since(started))
            made += 1

    threads = [threading.Thread(target=make, args=(number,)) for number in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    waits.sort()
    figures["mkdirs_per_s"] = len(waits) / _since(started)
    figures["mkdir_p99_ms"] = waits[len(waits) * 99 // 100] * 1e3
    figures["mkdir_max_ms"] = waits[-1] * 1e3


def _tell_all(config: ClientConfig, file_count: int) -> float:
    """Every chunkserver says all that it has, in a process of its own; seconds of the slowest."""
    with _SPAWN.Pool(len(SERVERS)) as pool:
        told = [(server, config, file_count) for server in SERVERS]
        return max(pool.starmap(_tell, told, chunksize=1))


def _tell(server: ChunkserverId, config: ClientConfig, file_count: int) -> float:
    masters = GroupCaller(ConnectionPool(SECURITY), config.masters)
    handles = (ChunkHandle(number) for number in range(1, file_count + 1))
    reports = [
        ReplicaReport(handle=handle, version=ChunkVersion(1), length_bytes=_length(handle))
        for handle in handles
        if server in _holders(handle)
    ]
    starts = range(0, len(reports), REPORT_PART_CHUNKS)
    started = time.perf_counter()
    for part, start in enumerate(starts):
        beat = Heartbeat(
            chunkserver_id=server,
            cluster_id=CONFIG.cluster_id,
            address="127.0.0.1:1",
            host=server,
            rack="",
            pid=os.getpid(),
            directory="/nowhere",
            capacity_bytes=1 << 50,
            free_bytes=1 << 49,
            chunk_count=len(reports),
            stored_bytes=0,
            full=True,
            chunks=tuple(reports[start : start + REPORT_PART_CHUNKS]),
            report=1,
            part=part,
            more=part + 1 < len(starts),
        )
        reply = masters.call(beat, timeout_ms=10_000)
        assert not reply.send_full_report
        time.sleep(REPORT_PAUSE_S)
    return _since(started)


@contextmanager
def _phase(phases: Phases, name: str) -> Iterator[None]:
    begun = time.time()
    yield
    phases[name] = begun, time.time()


def _since(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
