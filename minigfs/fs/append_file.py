"""Mode ``ab``: adding to the end of a file beside any number of others (GFS section 3.3).

Unlike a file that is written, this one is there while it is open: each flush is an append that is
durable and seen by whoever opens the file after it. What several writers flush is mixed, each flush
in one piece up to a quarter of a chunk, none torn or lost or twice. After an exception, what was
flushed stays, and what was not is dropped.
"""

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minigfs.errors import MinigfsError, OutcomeUnknown
from minigfs.files import AppearsOnClose

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from minigfs.client.appender import Appender
    from minigfs.client.client import MinigfsClient
    from minigfs.client.writer import FileWriter

__all__ = ["AppendFile", "Appends"]


class Appends(io.RawIOBase):
    """Hands bytes to an appender until the file is closed or given up; after that they vanish."""

    def __init__(self, client: "MinigfsClient", path: str) -> None:
        self._client = client
        self._path = path
        self._appender: Appender | None = client.open_appender(path)
        self._position: int | None = None  # not asked for yet

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Just after what was appended last, or where the file ended before."""
        if self._position is None:
            self._position = self._client.stat(self._path).size_bytes
        return self._position

    def write(self, buffer: "ReadableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            appender = self._appender
            if appender is None:
                return len(view)
            record = view[: appender.record_bytes_max]  # whoever has more asks again
            try:
                self._position = appender.append(record) + len(record)
            except OutcomeUnknown:  # closing would append what may be there already
                self.discard()
                raise
            return len(record)

    @property
    def pending(self) -> bool:
        return self._appender is not None

    def publish(self) -> None:
        """Nobody here appends any more."""
        appender, self._appender = self._appender, None
        if appender is not None:
            appender.close()

    def discard(self) -> None:
        with suppress(MinigfsError):  # the masters end by themselves what nobody keeps alive
            self.publish()

    def abandon(self) -> None:
        self._appender = None

    def hand_over(self) -> "FileWriter | None":
        raise AssertionError("a transaction appends by writing anew")


class AppendFile(AppearsOnClose, io.BufferedWriter):
    """A file being appended to; closing it flushes it."""

    def __init__(self, fs: Any, path: str, raw: Appends, buffer_bytes: int) -> None:
        self._unpublished = raw
        super().__init__(raw, buffer_bytes)
        self.begin(fs, path, "ab", autocommit=True)
