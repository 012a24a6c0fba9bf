"""Bytes between the cluster, local files and the terminal."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from minigfs.files import COPY_BYTES

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient

__all__ = [
    "RandomAccess",
    "blocks_from",
    "blocks_of",
    "first_lines",
    "last_lines",
    "local_tree",
    "send",
    "write_result",
]


class RandomAccess(Protocol):
    """What is asked of a `FileReader` here."""

    @property
    def size_bytes(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...


def blocks_of(
    reader: RandomAccess, start: int = 0, end: int | None = None, *, block_bytes: int = COPY_BYTES
) -> Iterator[bytes]:
    """The bytes of a file from ``start`` to ``end``, in order."""
    stop = reader.size_bytes if end is None else min(end, reader.size_bytes)
    while start < stop:
        block = reader.read_at(start, min(block_bytes, stop - start))
        yield block
        start += len(block)


def first_lines(
    reader: RandomAccess, count: int, *, block_bytes: int = COPY_BYTES
) -> Iterator[bytes]:
    """The first lines of a file, whole; no more is read than is needed, to a block."""
    left = count
    for block in blocks_of(reader, block_bytes=block_bytes):
        if left <= 0:
            return
        end = _after_lines(block, left)
        left -= block.count(b"\n", 0, end)
        yield block[:end]


def _after_lines(block: bytes, count: int) -> int:
    position = 0
    for _line in range(count):
        newline = block.find(b"\n", position)
        if newline < 0:
            return len(block)
        position = newline + 1
    return position


def last_lines(
    reader: RandomAccess, count: int, *, block_bytes: int = COPY_BYTES
) -> Iterator[bytes]:
    """The last lines of a file, whole; where they start is found backwards, block by block."""
    start = end = reader.size_bytes
    left = count  # line feeds to pass, not counting one that ends the file
    while end > 0 and left > 0:
        block_start = max(0, end - block_bytes)
        block = reader.read_at(block_start, end - block_start)
        search_end = len(block) - (end == reader.size_bytes and block.endswith(b"\n"))
        start = block_start
        while left > 0:
            newline = block.rfind(b"\n", 0, search_end)
            if newline < 0:
                break
            left -= 1
            search_end = newline
            if not left:
                start = block_start + newline + 1
        end = block_start
    yield from blocks_of(reader, start, block_bytes=block_bytes)


def send(client: "MinigfsClient", blocks: Iterable[bytes], path: str, *, exclusive: bool) -> None:
    """Store blocks as a file that appears when all of it is stored."""
    with client.open_writer(path, exclusive=exclusive) as writer:
        for block in blocks:
            writer.write(block)


def blocks_from(source: BinaryIO) -> Iterator[bytes]:
    """What is left of a local stream."""
    while block := source.read(COPY_BYTES):
        yield block


def local_tree(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file and empty directory below a local directory, with its path relative to it.

    Pipes, sockets and devices are passed over: reading one may never end. A directory that cannot
    be read raises, and a link to one above it.
    """
    for folder, directories, files in os.walk(root, followlinks=True, onerror=_unreadable):
        directories.sort()
        here = Path(folder)
        for name in directories:
            _check_leads_on(here / name)
        if not directories and not files:
            yield here, here.relative_to(root).as_posix()
        for name in sorted(files):
            if _is_special(here / name):
                continue
            yield here / name, (here / name).relative_to(root).as_posix()


def _unreadable(error: OSError) -> None:
    """Passed over, what is in it would be missing from a copy that seems to be whole."""
    raise error


def _check_leads_on(directory: Path) -> None:
    """Raise for a link to a directory that it lies in, which has no end."""
    if directory.is_symlink() and directory.parent.resolve().is_relative_to(directory.resolve()):
        raise OSError(errno.ELOOP, "a link to a directory above it", str(directory))


def _is_special(path: Path) -> bool:
    """A dangling link is not: opening it tells the user of it."""
    return path.exists() and not path.is_file()


def write_result(blocks: Iterable[bytes]) -> None:
    """Write all of the bytes to stdout."""
    output = sys.stdout.buffer
    for block in blocks:
        left = memoryview(block)
        while left:
            # An unbuffered stdout (PYTHONUNBUFFERED) may take less than it is given.
            left = left[output.write(left) :]
    output.flush()
