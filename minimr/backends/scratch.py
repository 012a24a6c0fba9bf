"""The scratch directory of a local run, and those of runs that were killed.

A directory is held by a lock that its process keeps and the kernel releases, whatever ends it. So
the next run can tell a directory that is in use from one that was left behind, and removes the
latter with the files beside the output that it names.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from minimr.formats.storage import is_local, local_path

__all__ = ["Scratch"]

_PREFIX = "minimr-run-"  # nobody else's: a cluster's home in the same place has a lock as well
_LOCK, _BESIDE = "held-by-a-run", "beside"
_NOT_YET_HELD = "not-yet-held"


class Scratch:
    """Made by ``open``; ``path`` is there until ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Under the name that others look for only once held: else they take it for a dead one.
        unseen = path / _NOT_YET_HELD
        self._lock = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unseen.rename(path / _LOCK)

    @classmethod
    def open(cls) -> "Scratch":
        """A new one; what killed runs of this user left is removed first."""
        for entry in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
            with suppress(OSError):  # somebody else's, or somebody else removes it too
                _remove_if_left(entry)
        return cls(Path(tempfile.mkdtemp(prefix=_PREFIX)))

    def note_beside(self, urls: Iterable[str]) -> None:
        """Directories that a run leaves beside its output if it is killed."""
        (self.path / _BESIDE).write_text("\n".join(urls), encoding="utf-8")

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_if_left(lock: Path) -> None:
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        beside = lock.with_name(_BESIDE)
        if beside.exists():
            for url in beside.read_text(encoding="utf-8").splitlines():
                if is_local(url) and local_path(url).name.startswith("_minimr-"):
                    shutil.rmtree(local_path(url), ignore_errors=True)
        shutil.rmtree(lock.parent, ignore_errors=True)
    finally:
        os.close(descriptor)
