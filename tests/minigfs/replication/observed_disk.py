"""A real disk that counts its syncs and can be told to be full, to fail, or to be slow."""

import errno
import threading

from minigfs.errors import NoSpace
from minigfs.ports import Buffer, RealDisk

__all__ = ["ObservedDisk"]


class ObservedDisk(RealDisk):
    def __init__(self, root) -> None:
        super().__init__(root)
        self.sync_count = 0
        self.space_bytes: int | None = None  # files may grow up to here
        self.sync_error: int | None = None  # errno of the next syncs
        self.may_sync = threading.Event()
        self.may_sync.set()

    def open(self, path, *, create=False, exclusive=False):
        return _ObservedFile(self, super().open(path, create=create, exclusive=exclusive))


class _ObservedFile:
    def __init__(self, disk: ObservedDisk, file) -> None:
        self._disk = disk
        self._file = file
        for name in ("read_at", "size_bytes", "truncate", "close"):
            setattr(self, name, getattr(file, name))

    def _reserve(self, end: int) -> None:
        if self._disk.space_bytes is not None and end > self._disk.space_bytes:
            raise NoSpace("the disk is full")

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        for buffer in buffers:
            if self._disk.space_bytes is not None:
                fits = buffer[: max(self._disk.space_bytes - offset, 0)]
                self._file.write_at(offset, fits)
            self._reserve(offset + len(buffer))
            self._file.write_at(offset, buffer)
            offset += len(buffer)

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        self.write_at(offset, *buffers)
        self.sync()

    def preallocate(self, length: int) -> None:
        self._reserve(length)
        self._file.preallocate(length)

    def write_behind(self, offset: int, length: int) -> None:
        self._file.write_behind(offset, length)

    def sync(self) -> None:
        assert self._disk.may_sync.wait(10)
        self._disk.sync_count += 1
        number, self._disk.sync_error = self._disk.sync_error, None
        if number == errno.ENOSPC:
            raise NoSpace("the disk is full")
        if number is not None:
            raise OSError(number, "the disk failed")
        self._file.sync()
