"""The input file that was read last, kept open for the next split of it.

To open a file of a remote store takes a round trip or two; a short task takes no longer than that.
What is kept shows the file as it was when it was opened.
"""

import threading
from typing import IO

__all__ = ["KeptInput"]


class KeptInput:
    """Of the attempts that run one after the other in a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url = ""
        self._file: IO[bytes] | None = None

    def take(self, url: str) -> IO[bytes] | None:
        """The open file, at any position, for nobody else meanwhile; None if another was last."""
        with self._lock:
            if self._url != url:
                return None
            file, self._file = self._file, None
            return file

    def keep(self, url: str, file: IO[bytes]) -> None:
        """It was read without an error, and may be wanted again."""
        with self._lock:
            before, self._url, self._file = self._file, url, file
        if before is not None:
            before.close()
