"""The outside world as the rest of the code sees it: time, chance and one directory of files.

Whatever decides takes a ``Clock`` or an ``Rng``; whatever stores takes a ``Disk``. Production code
gets the real ones below, the simulator gets twins (``tests/sim``) that obey the same contract
suites (``tests/contracts``). The network has a port of its own: ``minigfs.transport.network``.

Durability is explicit, as POSIX has it: bytes written survive a crash only after ``sync`` of the
file, and a created, renamed or removed name only after ``sync_dir`` of its directory.
"""

import builtins
import ctypes
import errno
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from minigfs.closing import ClosedOnExit
from minigfs.errors import InvalidPath, NoSpace, Unsupported

__all__ = [
    "Buffer",
    "Clock",
    "Disk",
    "DiskFile",
    "RealDisk",
    "RealDiskFile",
    "Rng",
    "SystemClock",
    "SystemRng",
    "check_disk_path",
]

Buffer = bytes | bytearray | memoryview

_SYNC_FILE_RANGE_WRITE = 2  # of Linux: begin to write, wait for nothing
BUFFERS_PER_WRITE_MAX = 512  # below IOV_MAX (1024 on Linux) with room


class Clock(Protocol):
    """Time in whole milliseconds."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch; may jump."""
        ...

    def monotonic_ms(self) -> int:
        """For durations and deadlines; never goes back, origin unspecified."""
        ...


class Rng(Protocol):
    """The only source of chance."""

    def random_u64(self) -> int:
        """A number in ``[0, 2**64)``."""
        ...

    def uniform_ms(self, low: int, high: int) -> int:
        """A number in ``[low, high]``, both ends included."""
        ...


class DiskFile(Protocol):
    """One open file. Offsets and lengths are bytes. Safe to use from several threads."""

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``; fewer than ``length`` only where the file ends."""
        ...

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        """Write the buffers one after the other; all of them or raise. A gap reads as zeros."""
        ...

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        """``write_at``, and return when these bytes survive a crash of the machine; nothing is said
        of others. Less work than ``sync`` behind it."""
        ...

    def size_bytes(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def preallocate(self, length: int) -> None:
        """Reserve space up to ``length``; a shorter file grows to it with zeros, none shrinks."""
        ...

    def write_behind(self, offset: int, length: int) -> None:
        """Begin to bring these bytes to the disk, so that a later ``sync`` has less to wait for.

        A hint: it promises nothing, waits for no disk if it can, and raises nothing.
        """
        ...

    def sync(self) -> None:
        """Return when everything written so far survives a crash of the machine."""
        ...

    def close(self) -> None:
        """Closing twice is no error."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Disk(Protocol):
    """One directory of files that belongs to one process.

    Paths are relative to the root and ``/``-separated; ``""`` is the root itself. A path that
    would leave the root raises ``InvalidPath``. A full disk raises ``NoSpace``; every other
    ``OSError`` passes through unchanged.
    """

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> DiskFile:
        """Open for reading and writing. ``exclusive`` (with ``create``): the file must be new."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically, replacing a file at ``target``; durable after ``sync_dir`` of the parent."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; durable as that of a new file is. ``FileExistsError`` if
        something has it, ``Unsupported`` where a file has but one."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or one of its names."""
        ...

    def list(self, directory: str) -> builtins.list[str]:
        """Names of the entries of a directory, sorted."""
        ...

    def make_dirs(self, path: str) -> None:
        """Make the directory and its parents; one that exists is no error."""
        ...

    def sync_dir(self, path: str) -> None:
        """Return when the directory's entries survive a crash of the machine."""
        ...

    def exists(self, path: str) -> bool: ...

    def size_bytes(self, path: str) -> int: ...

    def free_bytes(self) -> int:
        """Space left on the file system for this process."""
        ...

    def capacity_bytes(self) -> int: ...


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class SystemRng:
    """Chance from the operating system: safe after a fork and across machines."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def random_u64(self) -> int:
        return self._random.getrandbits(64)

    def uniform_ms(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


def check_disk_path(path: str) -> str:
    """The path itself, if it names the root (``""``) or something strictly below it."""
    if path == "":
        return path
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidPath(
            f"{path!r} is no path inside a data directory: it must be relative, "
            "without '.', '..' or empty parts"
        )
    return path


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The C library's, which Python does not offer; None on systems that have none."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        function.restype = ctypes.c_int
    return function


_RWF_DSYNC: int | None = getattr(os, "RWF_DSYNC", None)  # of Linux
_sync_file_range = _find_sync_file_range()


@contextmanager
def _full_disk_is_no_space(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # EFBIG: ulimit -f
            raise NoSpace(f"the disk under {path} is full: free space there") from error
        raise


class RealDiskFile(ClosedOnExit):
    """A file of the operating system."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        have = len(data)
        while have < length and (piece := os.pread(self._descriptor, length - have, offset + have)):
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        views = [view for buffer in buffers if (view := memoryview(buffer).cast("B")).nbytes]
        with _full_disk_is_no_space(self._path):
            while views:
                written = os.pwritev(self._descriptor, views[:BUFFERS_PER_WRITE_MAX], offset)
                offset += written
                while views and written >= views[0].nbytes:
                    written -= views.pop(0).nbytes
                if written:
                    views[0] = views[0][written:]

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        with _full_disk_is_no_space(self._path):
            if self._was_written_durably(offset, buffers):
                return
        self.write_at(offset, *buffers)
        self.sync()

    def _was_written_durably(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """By one call of the system, if it has one for both: a thread that makes two has to wait
        for its interpreter between them. Where that has not done it all, it is done again."""
        if _RWF_DSYNC is None or len(buffers) > BUFFERS_PER_WRITE_MAX:
            return False
        try:
            written = os.pwritev(self._descriptor, buffers, offset, _RWF_DSYNC)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # this file system has none
                return False
            raise
        return written == sum(memoryview(buffer).nbytes for buffer in buffers)

    def reopen_to_read(self) -> int:
        """A descriptor of this very file that cannot write, for another process; the caller
        closes it."""
        return os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, length: int) -> None:
        with _full_disk_is_no_space(self._path):
            os.ftruncate(self._descriptor, length)

    def preallocate(self, length: int) -> None:
        with _full_disk_is_no_space(self._path):
            os.posix_fallocate(self._descriptor, 0, length)

    def write_behind(self, offset: int, length: int) -> None:
        # An error is left to ``sync``, which meets it again: here nothing is promised.
        if _sync_file_range is not None and self._descriptor >= 0:
            _sync_file_range(self._descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)

    def sync(self) -> None:
        with _full_disk_is_no_space(self._path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealDisk:
    """A directory of the operating system; files are readable by their owner only."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root)

    @property
    def root(self) -> Path:
        return Path(self._root)

    def _resolve(self, path: str) -> str:
        return f"{self._root}/{check_disk_path(path)}"

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealDiskFile:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        real = self._resolve(path)
        with _full_disk_is_no_space(real):
            return RealDiskFile(real, os.open(real, flags, 0o600))

    def rename(self, source: str, target: str) -> None:
        real_target = self._resolve(target)
        with _full_disk_is_no_space(real_target):
            os.replace(self._resolve(source), real_target)

    def link(self, source: str, target: str) -> None:
        real_target = self._resolve(target)
        with _full_disk_is_no_space(real_target):
            try:
                os.link(self._resolve(source), real_target)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise Unsupported(f"{real_target}: no second names here") from error
                raise

    def remove(self, path: str) -> None:
        os.unlink(self._resolve(path))

    def list(self, directory: str) -> builtins.list[str]:
        return sorted(os.listdir(self._resolve(directory)))

    def make_dirs(self, path: str) -> None:
        real = self._resolve(path)
        with _full_disk_is_no_space(real):
            Path(real).mkdir(mode=0o700, parents=True, exist_ok=True)

    def sync_dir(self, path: str) -> None:
        descriptor = os.open(self._resolve(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        return os.path.exists(self._resolve(path))

    def size_bytes(self, path: str) -> int:
        return os.stat(self._resolve(path)).st_size

    def free_bytes(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize

    def capacity_bytes(self) -> int:
        status = os.statvfs(self._root)
        return status.f_blocks * status.f_frsize
