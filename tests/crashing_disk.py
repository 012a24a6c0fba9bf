"""A real disk whose machine loses power before a numbered step of a process, or only the process;
or that stalls there.

Armed by a file in its directory, so that a test can begin to count whenever it wants:

    arm(directory, CrashAt(step=3, below=("chunks", "incoming")))

Steps are changes and syncs of what lies below the named folders. Before the one that is counted to
zero, the process kills itself; with ``loses_unsynced`` it first takes back, on the real disk, all
that no sync has made durable: writes and lengths of files, and new, renamed and removed names of
directories, from the last to the first. With ``stalls_s`` the step takes so long instead, and all
others on this disk wait for it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minigfs.ports import Buffer, RealDisk, RealDiskFile

__all__ = ["CrashAt", "CrashingDisk", "arm", "disarm"]

_ORDER = "crash-at.json"
_BACKUPS = "crash-backups"


class CrashAt(msgspec.Struct, frozen=True, kw_only=True):
    step: int  # 1 for the next one
    below: tuple[str, ...]
    loses_unsynced: bool = True
    stalls_s: float = 0.0


def arm(directory: Path, crash: CrashAt) -> None:
    """Let the process whose disk this is count from now on."""
    part = directory / f"{_ORDER}.part"
    part.write_bytes(msgspec.json.encode(crash))
    part.replace(directory / _ORDER)


def disarm(directory: Path) -> None:
    """Let a process that starts there, or has not looked yet, count nothing."""
    (directory / _ORDER).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Undo:
    """How to take a change back, until what it is part of is synced."""

    key: str  # a directory, or the inode of a file
    take_back: Callable[[], None]
    forget: Callable[[], None]


class CrashingDisk(RealDisk):
    """Thread-safe: one step at a time."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self.lock = threading.RLock()
        self._undos: list[_Undo] = []
        self._armed: CrashAt | None = None
        self._steps_left = 0
        self._backup_count = 0

    def step(self, path: str) -> None:
        """Something below ``path`` is about to change."""
        self._look_for_order(path)
        if self._armed is None or not path.startswith(self._armed.below):
            return
        self._steps_left -= 1
        if self._steps_left == 0:
            if self._armed.stalls_s:
                time.sleep(self._armed.stalls_s)  # the stall itself
                return
            if self._armed.loses_unsynced:
                for undo in reversed(self._undos):
                    undo.take_back()
            os.kill(os.getpid(), signal.SIGKILL)

    def _look_for_order(self, path: str) -> None:
        """Take it if it is about ``path``: a process may have several disks below one root, and
        each of them looks."""
        with suppress(FileNotFoundError):
            content = (self.root / _ORDER).read_bytes()
            order = msgspec.json.decode(content, type=CrashAt)
            if path.startswith(order.below):
                self._armed, self._steps_left = order, order.step
                (self.root / _ORDER).unlink()

    def changed(
        self, key: str, take_back: Callable[[], None], forget: Callable[[], None] = lambda: None
    ) -> None:
        self._undos.append(_Undo(key, take_back, forget))

    def synced(self, key: str) -> None:
        for undo in self._undos:
            if undo.key == key:
                undo.forget()
        self._undos = [undo for undo in self._undos if undo.key != key]

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealDiskFile:
        with self.lock:
            real = Path(self._resolve(path))
            is_new = create and not real.exists()
            if is_new:
                self.step(path)
            super().open(path, create=create, exclusive=exclusive).close()
            descriptor = os.open(real, os.O_RDWR | os.O_CLOEXEC)
            if is_new:
                self.changed(_parent(path), lambda: real.unlink(missing_ok=True))
            return _CrashingFile(self, path, real, descriptor)

    def rename(self, source: str, target: str) -> None:
        with self.lock:
            self.step(source)
            real_source = Path(self._resolve(source))
            real_target = Path(self._resolve(target))
            backup = self._back_up(real_target)
            super().rename(source, target)

            def take_back() -> None:
                real_target.rename(real_source)
                if backup is not None:
                    backup.rename(real_target)

            self.changed(_parent(target), take_back, lambda: _drop(backup))

    def link(self, source: str, target: str) -> None:
        with self.lock:
            self.step(target)
            super().link(source, target)
            real = Path(self._resolve(target))
            self.changed(_parent(target), lambda: real.unlink(missing_ok=True))

    def remove(self, path: str) -> None:
        with self.lock:
            self.step(path)
            real = Path(self._resolve(path))
            backup = self._back_up(real)
            super().remove(path)
            assert backup is not None
            self.changed(_parent(path), lambda: _put_back(backup, real), lambda: _drop(backup))

    def sync_dir(self, path: str) -> None:
        with self.lock:
            self.step(f"{path}/")
            super().sync_dir(path)
            self.synced(path)

    def _back_up(self, real: Path) -> Path | None:
        if not real.exists():
            return None
        backups = self.root / _BACKUPS
        backups.mkdir(exist_ok=True)
        self._backup_count += 1
        backup = backups / f"{os.getpid()}-{self._backup_count}"
        os.link(real, backup)
        return backup


class _CrashingFile(RealDiskFile):
    def __init__(self, disk: CrashingDisk, path: str, real: Path, descriptor: int) -> None:
        super().__init__(str(real), descriptor)
        self._disk = disk
        self._name = path
        self._key = f"inode {os.fstat(descriptor).st_ino}"

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        length = sum(memoryview(buffer).nbytes for buffer in buffers)
        with self._disk.lock:
            self._disk.step(self._name)
            self._keep(offset, length)
            super().write_at(offset, *buffers)

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        self.write_at(offset, *buffers)
        self.sync()

    def truncate(self, length: int) -> None:
        with self._disk.lock:
            self._disk.step(self._name)
            self._keep(length, max(self.size_bytes() - length, 0))
            super().truncate(length)

    def preallocate(self, length: int) -> None:
        with self._disk.lock:
            self._disk.step(self._name)
            self._keep(0, 0)
            super().preallocate(length)

    def sync(self) -> None:
        with self._disk.lock:
            self._disk.step(self._name)
            super().sync()
            self._disk.synced(self._key)

    def _keep(self, offset: int, length: int) -> None:
        """Remember how long the file is, and what a range of it holds."""
        descriptor = os.dup(self._descriptor)
        size, old = self.size_bytes(), os.pread(descriptor, length, offset)

        def take_back() -> None:
            os.pwrite(descriptor, old, offset)
            os.ftruncate(descriptor, size)

        self._disk.changed(self._key, take_back, lambda: os.close(descriptor))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _put_back(backup: Path, real: Path) -> None:
    backup.rename(real)


def _drop(backup: Path | None) -> None:
    if backup is not None:
        backup.unlink(missing_ok=True)
