"""The file objects of `minigfs.fs`: reading with a buffer, writing all or nothing.

A written file appears at its path when it is closed, whole and durable, or not at all. It is
discarded, and whatever stood at the path stays, when

- ``discard()`` is called, or the object is dropped without being closed;
- a write failed: what would be published is not what was written;
- it is closed *because of an exception*: by the end of a ``with`` block or a ``finally`` clause
  that an exception is leaving, directly or through a wrapper that closes it (text and compression
  layers, `fsspec.open`, pandas, pyarrow). A close is not told why it is called, but it can see
  that an exception is in flight that was not when the file was opened. Whoever means to publish
  from inside an ``except`` clause calls ``commit()``.

Buffering is the standard library's, in C: lines and small writes do not reach Python code of ours.
"""

import io
import logging
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from fsspec import AbstractFileSystem

    from minigfs.client.reader import FileReader
    from minigfs.client.writer import FileWriter
    from minigfs.master.messages import FileStatus

__all__ = [
    "AppearsOnClose",
    "BUFFER_BYTES",
    "COPY_BYTES",
    "CompressedFile",
    "RawWriter",
    "ReadFile",
    "TextWriteFile",
    "WriteFile",
    "blocks_of",
    "slice_of",
    "write_whole",
]

BUFFER_BYTES = 256 * 1024  # a few checksum blocks; larger reads and writes go past the buffer
COPY_BYTES = 4 * 1024 * 1024  # moved per step by get, put and cp

_logger = logging.getLogger(__name__)


class _RawReader(io.RawIOBase):
    """Position and protocol of `io` over the random access of a FileReader."""

    def __init__(self, reader: "FileReader") -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._reader.size_bytes,
        }[whence]
        if origin + offset < 0:
            raise ValueError(f"cannot seek to {origin + offset}, before the start of the file")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            count = self._reader.read_into(self._position, view)
        self._position += count
        return count

    def readall(self) -> bytes:
        left_bytes = max(0, self._reader.size_bytes - self._position)
        content = self._reader.read_at(self._position, left_bytes)
        self._position += len(content)
        return content

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


class ReadFile(io.BufferedReader):
    """A published file opened for reading; pickles as (file system, path, position)."""

    def __init__(
        self, fs: "AbstractFileSystem", path: str, reader: "FileReader", buffer_bytes: int
    ) -> None:
        super().__init__(_RawReader(reader), buffer_bytes)
        self._reader = reader
        self.fs = fs
        self.path = path
        self.size = reader.size_bytes
        self._buffer_bytes = buffer_bytes

    def read_buffer(self, length: int = -1) -> memoryview:
        """As ``read``, but a view where nothing need be copied (``FileReader.read_buffer``).

        Arrow calls this by itself, so its readers parse the page cache of this machine.
        """
        start = self.tell()
        left_bytes = max(0, self.size - start)
        view = self._reader.read_buffer(start, left_bytes if length < 0 else length)
        self.seek(start + len(view))
        return view

    @property
    def mode(self) -> str:
        return "rb"

    @property
    def details(self) -> dict[str, Any]:
        """What ``fs.info`` says of the path now."""
        details: dict[str, Any] = self.fs.info(self.path)
        return details

    @property
    def full_name(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.fs, self.path, self._buffer_bytes, self.tell())


def _reopen(fs: "AbstractFileSystem", path: str, buffer_bytes: int, position: int) -> ReadFile:
    file = fs.open(path, "rb", block_size=buffer_bytes)
    assert isinstance(file, ReadFile)
    file.seek(position)
    return file


class RawWriter(io.RawIOBase):
    """Hands bytes to a FileWriter until it is published or discarded; after that they vanish."""

    def __init__(self, writer: "FileWriter") -> None:
        self._writer: FileWriter | None = writer
        self._position = writer.size_bytes

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, buffer: "ReadableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            if self._writer is not None:
                try:
                    self._writer.write(view)
                except BaseException:
                    self.discard()
                    raise
            self._position += len(view)
            return len(view)

    def publish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def hand_over(self) -> "FileWriter | None":
        """The writer, for somebody else to publish; None if it was published or discarded."""
        writer, self._writer = self._writer, None
        return writer

    def abandon(self) -> None:
        """Discard without a request to anybody: the FileWriter's own finaliser sees to it."""
        self._writer = None

    def discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()

    @property
    def pending(self) -> bool:
        """Neither published nor discarded yet."""
        return self._writer is not None


class Unpublished(Protocol):
    """A file that has a writer and no path yet, as `AppearsOnClose` needs it."""

    @property
    def pending(self) -> bool:
        """Neither published nor discarded yet."""
        ...

    def publish(self) -> None: ...

    def discard(self) -> None: ...

    def abandon(self) -> None: ...

    def hand_over(self) -> "FileWriter | None": ...


class AppearsOnClose(io.BufferedIOBase):
    """What all written files have in common; goes before a buffer of `io` in a class's bases.

    ``autocommit=False`` (fsspec's transactions) leaves publishing to the transaction: closing then
    only ends the writing.
    """

    _unpublished: Unpublished  # set before anything else: a finaliser asks for it

    def begin(self, fs: "AbstractFileSystem", path: str, mode: str, *, autocommit: bool) -> None:
        """Remember what the file is; for the constructor."""
        self.fs = fs
        self.path = path
        self._mode = mode
        self.autocommit = autocommit
        self.basis: FileStatus | None = None  # must be at the path still when this one replaces it
        self._exception_at_open = sys.exc_info()[1]

    @property
    def mode(self) -> str:
        return self._mode

    @property
    def full_name(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    def fsync(self) -> None:
        """Hand on what is buffered; with the modes that change a file where it stands (``ab``,
        ``r+b``) it is then in the file, durably. What is not published yet cannot be seen, or
        outlive its writer, by any call."""
        self.flush()

    def close(self) -> None:
        """Publish the file (or, without autocommit, only end the writing).

        A failure leaves the path as it was and is raised. While an exception is in flight that was
        not when the file was opened, the file is discarded instead.
        """
        if self.closed:
            return
        in_flight = sys.exc_info()[1]
        if in_flight is not None and in_flight is not self._exception_at_open:
            if self._unpublished.pending:
                _logger.info("%s is not published: %r is in flight", self.path, in_flight)
            self.discard()
        else:
            self._finish()

    def _finish(self) -> None:
        if self.autocommit:
            self.commit()
        else:
            self.flush()
            self._end()

    def _end(self) -> None:
        """Close the buffer; what stays is the writer, for a transaction."""
        super().close()

    def commit(self) -> None:
        """Publish the file, whatever exception is in flight, and close it."""
        try:
            if not self.closed:
                self.flush()
            self._unpublished.publish()
        finally:
            self.discard()

    def hand_over(self) -> "FileWriter | None":
        """The writer with all that was written, for a transaction to publish, and close the file.

        None if there is nothing to publish any more.
        """
        if not self.closed:
            self.flush()
        writer = self._unpublished.hand_over()
        self._end()
        return writer

    def discard(self) -> None:
        """Forget the file, unless it is published already, and close it."""
        self._unpublished.discard()
        self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        elif not self.closed:
            self._finish()

    def __del__(self) -> None:
        # The base class would close, that is publish, what nobody said is complete. A finaliser
        # may run anywhere, so it must not wait for an answer either.
        self._unpublished.abandon()
        super().close()


class WriteFile(AppearsOnClose, io.BufferedWriter):
    """A file being written; nothing is visible at its path before `close` or `commit`.

    ``flush`` hands the buffered bytes on; it makes nothing visible.
    """

    def __init__(
        self,
        fs: "AbstractFileSystem",
        path: str,
        raw: RawWriter,
        buffer_bytes: int,
        *,
        autocommit: bool = True,
        mode: str = "wb",
    ) -> None:
        self._unpublished = raw
        super().__init__(raw, buffer_bytes)
        self.begin(fs, path, mode, autocommit=autocommit)


class TextWriteFile(io.TextIOWrapper):
    """Text over a file being written. Where that cannot seek, this can say how far it has come."""

    def __init__(
        self,
        binary: io.BufferedWriter,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> None:
        super().__init__(binary, encoding, errors, newline)
        self._binary = binary

    def tell(self) -> int:
        """Bytes written so far, before compression; of a file that is read too, a place in it."""
        if self.seekable():
            return super().tell()
        self.flush()
        return self._binary.tell()


class CompressedFile(io.BufferedWriter):
    """A compressor over a `WriteFile` that closes, or discards, both."""

    def __init__(self, compressor: Any, file: WriteFile) -> None:
        self._file = file
        super().__init__(_RawCompressor(compressor, file), BUFFER_BYTES)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._file.discard()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __del__(self) -> None:
        self._file.discard()
        self.close()


class _RawCompressor(io.RawIOBase):
    def __init__(self, compressor: Any, file: WriteFile) -> None:
        self._compressor = compressor
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, buffer: "ReadableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            if not self._file.closed:
                self._compressor.write(view)
            return len(view)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if not self._file.closed:
            self._compressor.close()
            self._file.close()


def write_whole(target: str | Path, blocks: Iterable[bytes]) -> None:
    """Write a local file that appears whole: beside its place first, then renamed into it.

    What is there and is no regular file (a device, a pipe) is written to as it stands.
    """
    path = Path(target).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            device.writelines(blocks)
        return
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # with the name it might be too long
    try:
        with part.open("xb", buffering=0) as file:
            file.writelines(blocks)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def blocks_of(file: ReadFile, moved: Callable[[int], object]) -> Iterator[bytes]:
    """The rest of a file, block by block; ``moved`` is told the bytes of each that was taken."""
    while block := file.read(COPY_BYTES):
        yield block
        moved(len(block))


def slice_of(start: int | None, end: int | None, size_bytes: int) -> tuple[int, int]:
    """Slice bounds (negative ones count from the end) as offsets inside a file of this size."""
    first, last, _step = slice(start, end).indices(size_bytes)
    return first, max(first, last)
