"""Files made anew, written at any place: ``w+b``, ``x+b``; in transactions ``r+b`` and ``ab``.

A transaction takes whole files, so in one a changed file is a new one, which takes the place of the
old with the rest of the transaction. A reader sees the old bytes or the new, never some of both,
and an exception changes nothing, as with ``wb``. Whoever finds at the end that another file took
the path meanwhile is refused with ``PreconditionFailed``, or ``FileExists`` where there was none:
no change is lost silently.

It costs a copy of the whole file, which lies in this machine's temporary directory while the file
is open. (Outside of transactions what is there is changed in place: `minigfs.fs.update_file` and
`minigfs.fs.append_file`.)
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

__all__ = ["Rewrite", "RewriteFile", "open_to_append"]


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
            with self._client.transaction() as change:
                change.require(self.basis)
                change.publish(writer)

    def hand_over(self) -> "FileWriter | None":
        """A writer with the private copy's bytes; None if they are those of the file."""
        if not self.pending:
            return None
        self.pending = False
        if not self.is_changed:
            return None
        writer, self._writer = self._writer, None
        if writer is None:
            replication = None if self.basis is None else self.basis.replication
            writer = self._client.open_writer(self._path, replication=replication)
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


class RewriteFile(AppearsOnClose, io.BufferedRandom):  # type: ignore[override]  # its mode
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


def open_to_append(fs: Any, path: str, buffer_bytes: int) -> WriteFile:
    """A file whose bytes come after those of the file at the path, if there is one.

    They appear with the transaction, all together, as a new file.
    """
    client: MinigfsClient = fs.client
    try:
        reader = client.open_reader(path)
    except FileMissing:
        raw = RawWriter(client.open_writer(path, exclusive=True))
        return WriteFile(fs, path, raw, buffer_bytes, autocommit=False, mode="ab")
    with reader:
        writer = client.open_writer(path, replication=reader.status.replication)
        try:
            for block in _blocks(reader):
                writer.write(block)
        except BaseException:
            writer.discard()
            raise
    file = WriteFile(fs, path, RawWriter(writer), buffer_bytes, autocommit=False, mode="ab")
    file.basis = reader.status
    return file


def _blocks(reader: "FileReader") -> "Iterator[memoryview]":
    """All the bytes, cut small enough for any memory."""
    for offset in range(0, reader.size_bytes, COPY_BYTES):
        yield from reader.buffers(offset, min(COPY_BYTES, reader.size_bytes - offset))
