"""One process per data directory: a second one is told so, and touches nothing.

The lock is the kernel's (``flock``) and goes with the process, however it ends.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from minigfs.errors import InvalidConfig

__all__ = ["DirectoryLock"]

LOCK_FILE_NAME = "lock"


class DirectoryLock:
    """Held between ``__enter__`` and ``__exit__``; ``InvalidConfig`` if somebody else has it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE_NAME
        self._fd = -1

    def __enter__(self) -> Self:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise InvalidConfig(
                f"{self._path.parent} is in use by process {holder}: stop it, "
                "or give this one a directory of its own"
            ) from None
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)
