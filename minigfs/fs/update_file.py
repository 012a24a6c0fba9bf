"""Files that are changed: modes ``r+b``, ``w+b``, ``x+b`` (at any place) and ``ab`` (at the end).

What is published never changes: a changed file is a new one, which takes the place of the old when
it is closed. So a reader sees the old bytes or the new, never some of both, and an exception
changes nothing, as with ``wb``. Whoever finds at the end that another file took the path meanwhile
is refused with ``PreconditionFailed``, or ``FileExists`` where there was none: no change is lost
silently.

It costs a copy of the whole file. For changes at any place it lies in this machine's temporary
directory while the file is open.
"""

import io
import os
import tempfile
from typing import TYPE_CHECKING, Any

from minigfs.errors import FileMissing
from minigfs.files import BUFFER_BYTES, COPY_BYTES, AppearsOnClose, RawWriter, WriteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

    from minigfs.client.client import MinigfsClient
    from minigfs.client.reader import FileReader
    from minigfs.client.writer import FileWriter
    from minigfs.master.messages import FileStatus

__all__ = ["Rewrite", "UpdateFile", "open_to_append"]


class Rewrite:
    """The private copy, and how it becomes the file; see `minigfs.files.Unpublished`."""

    def __init__(self, client: "MinigfsClient", path: str, mode: str) -> None:
        self._client = client
        self._path = path
        self._writer: FileWriter | None = None
        self.basis: FileStatus | None = None
        self.is_changed = mode[0] != "r"
        self.pending = True
        # It has no name in any directory and vanishes with the process.
        self.raw = tempfile.TemporaryFile(prefix="minigfs-", buffering=0)  # noqa: SIM115
        try:
            if mode[0] == "r":
                self._fetch()
            else:  # refused now if it cannot be
                self._writer = client.open_writer(path, exclusive=mode[0] == "x")
        except BaseException:
            self.raw.close()
            raise

    def _fetch(self) -> None:
        with self._client.open_reader(self._path) as reader:
            self.basis = reader.status
            for block in _blocks(reader):
                self.raw.write(block)
        self.raw.seek(0)

    def publish(self) -> None:
        writer = self.hand_over()
        if writer is None:
            return
        if self.basis is None:
            writer.close()
        else:
            _replace(self._client, self.basis, writer)

    def hand_over(self) -> "FileWriter | None":
        """A writer with the private copy's bytes; None if they are those of the file."""
        if not self.pending:
            return None
        self.pending = False
        if not self.is_changed:
            return None
        writer, self._writer = self._writer, None
        writer = writer or self._client.open_writer(self._path)
        try:
            buffer = memoryview(bytearray(COPY_BYTES))
            offset = 0
            while count := os.preadv(self.raw.fileno(), [buffer], offset):
                writer.write(buffer[:count])
                offset += count
        except BaseException:
            writer.discard()
            raise
        return writer

    def abandon(self) -> None:
        self.pending = False
        self._writer = None

    def discard(self) -> None:
        self.pending = False
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()


class UpdateFile(AppearsOnClose, io.BufferedRandom):  # type: ignore[override]  # its mode
    """A file open for reading and writing; what was changed appears at its path on `close`."""

    def __init__(
        self, fs: Any, path: str, mode: str, rewrite: Rewrite, *, autocommit: bool
    ) -> None:
        self._unpublished = rewrite
        super().__init__(rewrite.raw, BUFFER_BYTES)
        self.begin(fs, path, mode, autocommit=autocommit)
        self.basis = rewrite.basis

    def write(self, content: "ReadableBuffer", /) -> int:
        self._change()
        return super().write(content)

    def truncate(self, size: int | None = None, /) -> int:
        self._change()
        return super().truncate(size)

    def _change(self) -> None:
        assert isinstance(self._unpublished, Rewrite)
        self._unpublished.is_changed = True

    def _end(self) -> None:
        """Without autocommit the private copy is still to be read, by the transaction."""
        if self.autocommit or not self._unpublished.pending:
            super()._end()


class _RawAppender(RawWriter):
    """A new file that begins with what the old one holds."""

    def __init__(self, client: "MinigfsClient", basis: "FileStatus", writer: "FileWriter") -> None:
        super().__init__(writer)
        self._client = client
        self._basis = basis

    def publish(self) -> None:
        writer = self.hand_over()
        if writer is not None:
            _replace(self._client, self._basis, writer)


def open_to_append(fs: Any, path: str, buffer_bytes: int, *, autocommit: bool) -> WriteFile:
    """A file whose bytes come after those of the file at the path, if there is one."""
    client: MinigfsClient = fs.client
    try:
        reader = client.open_reader(path)
    except FileMissing:
        raw = RawWriter(client.open_writer(path, exclusive=True))
        return WriteFile(fs, path, raw, buffer_bytes, autocommit=autocommit, mode="ab")
    with reader:
        writer = client.open_writer(path, replication=reader.status.replication)
        try:
            for block in _blocks(reader):
                writer.write(block)
        except BaseException:
            writer.discard()
            raise
    raw = _RawAppender(client, reader.status, writer)
    file = WriteFile(fs, path, raw, buffer_bytes, autocommit=autocommit, mode="ab")
    file.basis = reader.status
    return file


def _blocks(reader: "FileReader") -> "Iterator[memoryview]":
    """All the bytes, cut small enough for any memory."""
    for offset in range(0, reader.size_bytes, COPY_BYTES):
        yield from reader.buffers(offset, min(COPY_BYTES, reader.size_bytes - offset))


def _replace(client: "MinigfsClient", basis: "FileStatus", writer: "FileWriter") -> None:
    """Publish, if what the path means is still the file that the new one was made from."""
    with client.transaction() as change:
        change.require(basis)
        change.publish(writer)
