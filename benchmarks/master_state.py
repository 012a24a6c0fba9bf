"""A master with many files: memory, apply, snapshot and restart (DESIGN 6.12).

``python benchmarks/master_state.py --files 1000000`` applies the commands that write so many files
of one chunk each, as a master applies its log; writes the snapshot to a file in a thread while an
event loop keeps applying commands, and notes how long the loop was held; then a new process reads
the file and becomes that state. Figures are printed, and kept with the machine in
``benchmarks/results/master_state.json``.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from minigfs.config import FileSystemConfig
from minigfs.ids import ChunkserverId
from minigfs.master import commands as fs
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.ports import RealDisk
from minigfs.raft import Configuration, Entry, SnapshotMetadata
from minigfs.replication.commands import LoggedCommand, encode_logged_command
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.snapshot_files import SnapshotFiles

__all__ = ["main"]

FILES_PER_DIRECTORY = 1_000
SNAPSHOTS = "snapshots"  # the directory, as in a master's
NOW_MS = 1_700_000_000_000

Figures = dict[str, float]


class Master:
    """The machines of one master, fed from a log that is made up as it goes."""

    def __init__(self) -> None:
        self.files = FileSystemMachine()
        self.machines = ReplicatedMachines({FILE_SYSTEM_MACHINE: self.files})

    def run(self, command: fs.Command) -> fs.CommandReply:
        logged = LoggedCommand(FILE_SYSTEM_MACHINE, command.now_ms, fs.encode_command(command))
        index = self.machines.applied_index + 1
        entry = Entry(index=index, term=1, data=encode_logged_command(logged))
        reply = self.machines.apply(entry)
        assert isinstance(reply, bytes)
        return fs.decode_reply(reply)

    def write_files(self, count: int) -> None:
        rng = random.Random(1)
        servers = [ChunkserverId(f"cs-{rng.getrandbits(64):016x}") for _ in range(5)]
        self.run(fs.Configure(NOW_MS, FileSystemConfig(cluster_id="bench")))
        for number in range(count):
            directory, name = divmod(number, FILES_PER_DIRECTORY)
            path = f"/data/set-{directory:04d}/part-r-{name:05d}.parquet"
            replicas = tuple(rng.sample(servers, 3))
            created = self.run(fs.CreateFile(NOW_MS + 3 * number, path, False, 3))
            assert isinstance(created, fs.FileCreated)
            file_id = created.file_id
            given = self.run(fs.AllocateChunks(NOW_MS + 3 * number + 1, file_id, 0, (replicas,)))
            assert isinstance(given, fs.ChunksAllocated)
            sealed = fs.SealedReplicas(
                given.handles[0], rng.randrange(1, 1 << 26), rng.getrandbits(64), replicas
            )
            done = self.run(fs.PublishFile(NOW_MS + 3 * number + 2, file_id, path, (sealed,), True))
            assert isinstance(done, fs.FilePublished), done


def main() -> int:
    """Measure, print, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    options = parser.parse_args()
    gc.disable()  # as a master does
    figures: Figures = {"files": options.files}
    with tempfile.TemporaryDirectory(prefix="minigfs-bench-") as folder:
        RealDisk(folder).make_dirs(SNAPSHOTS)
        master = Master()
        started = time.perf_counter()
        master.write_files(options.files)
        figures["write_command_us"] = _since(started) * 1e6 / (3 * options.files)
        figures["memory_mb"] = _memory_mb()
        figures |= _time_commands(master)
        figures |= asyncio.run(_snapshot(master, folder))
        del master
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures |= pool.apply(_restart, (folder,))
    for name, figure in figures.items():
        print(f"{name:28} {figure:12.2f}")
    report = {"machine": f"{os.cpu_count()} x {platform.processor()}", "figures": figures}
    target = Path(__file__).parent / "results" / "master_state.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _time_commands(master: Master) -> Figures:
    """Median time of a command, applied to the full tree."""
    directories = [f"/bench/d{number:05d}" for number in range(10_000)]
    makes = [fs.MakeDirectory(NOW_MS, path, True, False) for path in directories]
    moves = [fs.Rename(NOW_MS, path, f"{path}-moved", False) for path in directories]
    return {"mkdir_us": _median_us(master, makes), "rename_us": _median_us(master, moves)}


def _median_us(master: Master, batch: list[fs.MakeDirectory] | list[fs.Rename]) -> float:
    times = []
    for command in batch:
        started = time.perf_counter()
        reply = master.run(command)
        times.append(_since(started))
        assert reply == fs.Done()
    return sorted(times)[len(times) // 2] * 1e6


async def _snapshot(master: Master, folder: str) -> Figures:
    """Freeze, and write the pieces in a thread while the loop applies a command a turn."""
    index = master.machines.applied_index
    started = time.perf_counter()
    pieces = master.machines.freeze()
    figures = {"freeze_ms": _since(started) * 1e3}
    writing = threading.Thread(target=_write, args=(folder, index, pieces, figures))
    writing.start()
    turns = []
    number = 0
    while writing.is_alive():
        started = time.perf_counter()
        await asyncio.sleep(0.001)
        number += 1
        master.run(fs.MakeDirectory(NOW_MS, f"/while/d{number}", True, False))
        turns.append(_since(started))
    writing.join()
    turns.sort()
    figures["loop_turn_p99_ms"] = turns[len(turns) * 99 // 100] * 1e3
    figures["loop_turn_max_ms"] = turns[-1] * 1e3
    figures["memory_after_mb"] = _memory_mb()
    return figures


def _write(folder: str, index: int, pieces: Iterator[bytes], figures: Figures) -> None:
    metadata = SnapshotMetadata(
        last_included_index=index, last_included_term=1, configuration=Configuration()
    )
    times, size_bytes = [], 0
    begun = time.perf_counter()
    writer = SnapshotFiles(RealDisk(folder), SNAPSHOTS).create(metadata)
    while True:
        started = time.thread_time()
        piece = next(pieces, None)
        times.append(time.thread_time() - started)
        if piece is None:
            break
        size_bytes += len(piece)
        writer.write(piece)
    writer.finish()
    figures["snapshot_s"] = _since(begun)
    figures["snapshot_mb"] = size_bytes / 1e6
    figures["piece_cpu_median_ms"] = sorted(times)[len(times) // 2] * 1e3
    figures["piece_cpu_max_ms"] = max(times) * 1e3


def _restart(folder: str) -> Figures:
    gc.disable()
    started = time.perf_counter()
    master = Master()
    files = SnapshotFiles(RealDisk(folder), SNAPSHOTS)
    with files.open(files.names()[0]) as snapshot:
        master.machines.restore(snapshot.pieces(), snapshot.metadata.last_included_index)
    figures = {"restore_s": _since(started), "memory_restored_mb": _memory_mb()}
    assert master.files.state.file_count > 0
    return figures


def _since(started: float) -> float:
    return time.perf_counter() - started


def _memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
