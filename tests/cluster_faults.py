"""What a test does to the processes and disks of a ``StorageCluster``, and takes back again.

At most one chunkserver is down (killed, paused, cut off) at a time and at most one is full, so one
of three can always take data. Disks may be damaged at any time and anywhere.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from minigfs.master.messages import LocatedChunk
from tests.chunk_damage import chunk_file, exchange, flip, forge, is_sound
from tests.storage_cluster import StorageCluster

__all__ = ["DAMAGE", "ClusterFaults"]

_OF_OPEN_CHUNKS = ("flipped", "header flipped", "removed", "cut", "emptied")

DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "flipped": lambda path, _: flip(path),
    "header flipped": lambda path, _: flip(path, 40),
    "removed": lambda path, _: path.unlink(),
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path, _: path.write_bytes(b""),
    "swapped": exchange,
    "rolled back": lambda path, _: forge(path, change_from=0),
}


class ClusterFaults:
    def __init__(self, cluster: StorageCluster) -> None:
        self._cluster = cluster
        self._down: tuple[int, str] | None = None
        self._full: int | None = None
        self._saved: dict[int, Path] = {}
        self._damaged_open: dict[int, int] = {}  # which member of each open chunk

    def take_down(self, number: int, how: str) -> None:
        """``how``: killed, paused or isolated."""
        self.bring_back()
        match how:
            case "killed":
                self._free(number)
                self._cluster.kill_chunkserver(number)
            case "paused":
                self._cluster.pause_chunkserver(number)
            case "isolated":
                self._cluster.isolate_chunkserver(number)
        self._down = number, how

    def bring_back(self) -> None:
        if self._down is None:
            return
        (number, how), self._down = self._down, None
        match how:
            case "killed":
                self._cluster.start()
            case "paused":
                self._cluster.resume_chunkserver(number)
            case "isolated":
                assert self._cluster.links is not None
                self._cluster.links.heal()

    def fill_disk(self, number: int) -> None:
        self.free_disk()
        if self._down != (number, "killed"):
            self._cluster.fill_disk(number)
            self._full = number

    def free_disk(self) -> None:
        if self._full is not None:
            self._free(self._full)

    def _free(self, number: int) -> None:
        if self._full == number:
            self._cluster.free_disk(number)
            self._full = None

    def kill_everything(self) -> None:
        self.free_disk()
        self.bring_back()
        self._cluster.kill_everything()
        self._cluster.start()

    def restart_master(self) -> None:
        self.bring_back()
        self._cluster.kill_master()
        self._cluster.start_master()
        self._cluster.wait_for_chunkservers(len(self._cluster.chunkservers))

    def save_disk(self, number: int) -> None:
        """As a backup does, file by file, while the server runs."""
        kept = self._cluster.root / f"saved-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for path in self._cluster.chunkservers[number].chunk_files():
            try:
                shutil.copy2(path, kept)
            except FileNotFoundError:
                continue  # deleted meanwhile
        self._saved[number] = kept

    def put_back_disk(self, number: int) -> None:
        """The chunks of a server are those it had when they were saved."""
        if number not in self._saved:
            return
        self.bring_back()
        self._free(number)
        self._cluster.kill_chunkserver(number)
        chunks = self._cluster.chunkservers[number].directory / "chunks"
        shutil.rmtree(chunks)
        shutil.copytree(self._saved[number], chunks)
        self._cluster.start()

    def damage(self, number: int, chunk: LocatedChunk, kind: str) -> None:
        """One replica of a chunk, if the server has one that is sound."""
        directory = self._cluster.chunkservers[number].directory
        path = chunk_file(directory, chunk.handle)
        others = [other for other in (directory / "chunks").glob("*.chunk") if other != path]
        if is_sound(path, chunk) and (others or kind != "swapped"):
            DAMAGE[kind](path, others[0] if others else path)

    def damage_open(self, number: int, chunk: LocatedChunk, kind: str) -> None:
        """One member of an open chunk, whose others stay whole: nothing else has its records."""
        path = self._open_file(number, chunk)
        is_first = chunk.handle not in self._damaged_open
        if is_first and kind in _OF_OPEN_CHUNKS and path.exists():
            self._damaged_open[chunk.handle] = number
            DAMAGE[kind](path, path)

    def _open_file(self, number: int, chunk: LocatedChunk) -> Path:
        return self._cluster.chunkservers[number].directory / "open" / f"{chunk.handle:016x}.chunk"

    def heal(self) -> None:
        self.free_disk()
        self.bring_back()

    def can_be_read(self, chunk: LocatedChunk) -> bool:
        """Whether a server that is up has the chunk as it should be on its disk."""
        numbers = range(len(self._cluster.chunkservers))
        up = [number for number in numbers if self._down is None or self._down[0] != number]
        if chunk.is_open:
            damaged = self._damaged_open.get(chunk.handle)
            return any(n != damaged and self._open_file(n, chunk).exists() for n in up)
        directories = (self._cluster.chunkservers[number].directory for number in up)
        return any(is_sound(chunk_file(one, chunk.handle), chunk) for one in directories)
