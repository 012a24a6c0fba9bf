"""Mode ``r+b``: a published file changed where it stands (ADR 5).

Only the chunks that change are made anew. What was changed appears at once when the file is closed,
or by ``fsync`` before; an exception changes nothing more. Others may write into and append to the
file meanwhile: whoever finds that a chunk it would change was changed since is refused with
``PreconditionFailed``, so no change is lost silently.
"""

import io
from typing import TYPE_CHECKING, Any

from minigfs.files import BUFFER_BYTES, AppearsOnClose

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from minigfs.client.client import MinigfsClient
    from minigfs.client.updater import UpdatableFile
    from minigfs.client.writer import FileWriter

__all__ = ["UpdateFile", "Updates"]


class Updates(io.RawIOBase):
    """An `UpdatableFile` as `io` wants it, until it is closed or given up; then writes vanish."""

    def __init__(self, client: "MinigfsClient", path: str) -> None:
        self._file: UpdatableFile | None = client.open_for_update(path, refuse_conflicts=True)
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._file is not None:
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        content = self._file.read(memoryview(buffer).nbytes) if self._file is not None else b""
        with memoryview(buffer).cast("B") as view:
            view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def write(self, buffer: "ReadableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            if self._file is not None:
                self._file.write(view)
            self._position += len(view)
            return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        size = self._position if size is None else size
        if self._file is not None:
            self._file.truncate(size)
        return size

    def put_in(self) -> None:
        """Have the changes in the file, durably."""
        if self._file is not None:
            self._file.flush()

    @property
    def pending(self) -> bool:
        return self._file is not None

    def publish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.discard()

    def abandon(self) -> None:
        self.discard()  # nobody has to be asked

    def hand_over(self) -> "FileWriter | None":
        raise AssertionError("a transaction changes a file by writing it anew")


class UpdateFile(AppearsOnClose, io.BufferedRandom):  # type: ignore[override]  # its mode
    """A file open for reading and writing in place."""

    def __init__(self, fs: Any, path: str, raw: Updates) -> None:
        self._unpublished = raw
        super().__init__(raw, BUFFER_BYTES)
        self.begin(fs, path, "r+b", autocommit=True)

    def fsync(self) -> None:
        """Have what was changed so far in the file: all of it at once, and durable."""
        self.flush()
        assert isinstance(self._unpublished, Updates)
        self._unpublished.put_in()
