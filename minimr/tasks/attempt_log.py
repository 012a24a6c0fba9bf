"""Where the executor's stdout and stderr go: a file for each attempt.

An attempt that printed nothing hands its file on to the next by a rename, so a thousand short ones
make and remove no thousand files.
"""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["AttemptLog"]


class AttemptLog:
    """Of one executor; before the first ``begin``, the executor's own log."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._path = Path()

    def begin(self, path: str) -> None:
        """From here on they are the file ``path``, also for what user code starts."""
        if not self._hand_on(path):
            self._open(path)
        self._path = Path(path)
        os.dup2(self._descriptor, 1)
        os.dup2(self._descriptor, 2)

    def _hand_on(self, path: str) -> bool:
        """Whether the last attempt's file could become this one's."""
        if self._descriptor < 0 or os.fstat(self._descriptor).st_size:
            return False
        if os.lseek(self._descriptor, 0, os.SEEK_CUR):  # it had printed so much that it was cut
            return False
        with suppress(FileNotFoundError):  # cleared away, as it was empty
            self._path.rename(path)
            return True
        return False

    def _open(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
