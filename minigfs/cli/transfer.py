"""Bytes between the cluster, local files and the terminal."""

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from minigfs.files import COPY_BYTES

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient
    from minigfs.client.reader import FileReader

__all__ = [
    "blocks_of",
    "first_lines",
    "last_lines",
    "local_tree",
    "send",
    "write_result",
]


def blocks_of(reader: "FileReader", start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from ``start`` to ``end``, in order."""
    stop = reader.size_bytes if end is None else min(end, reader.size_bytes)
    while start < stop:
        block = reader.read_at(start, min(COPY_BYTES, stop - start))
        yield block
        start += len(block)


def first_lines(reader: "FileReader", count: int) -> Iterator[bytes]:
    """The first lines of a file, whole; no more is read than is needed, to a block."""
    left = count
    for block in blocks_of(reader):
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


def last_lines(reader: "FileReader", count: int) -> Iterator[bytes]:
    """The last lines of a file, whole; read backwards, block by block."""
    kept: deque[bytes] = deque()
    end = reader.size_bytes
    left = count  # line feeds to pass, not counting one that ends the file
    while end > 0 and left > 0:
        start = max(0, end - COPY_BYTES)
        block = reader.read_at(start, end - start)
        search_end = len(block) - (end == reader.size_bytes and block.endswith(b"\n"))
        cut = 0
        while left > 0:
            newline = block.rfind(b"\n", 0, search_end)
            if newline < 0:
                break
            left -= 1
            search_end = newline
            cut = newline + 1
        kept.appendleft(block[cut:] if left == 0 else block)
        end = start
    yield from kept


def send(client: "MinigfsClient", source: BinaryIO, path: str, *, exclusive: bool) -> None:
    """Copy a local stream to a file that appears when all of it is stored."""
    with client.open_writer(path, exclusive=exclusive) as writer:
        while block := source.read(COPY_BYTES):
            writer.write(block)


def local_tree(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file and empty directory below a local directory, with its path relative to it."""
    for folder, directories, files in os.walk(root, followlinks=True):
        directories.sort()
        here = Path(folder)
        if not directories and not files:
            yield here, here.relative_to(root).as_posix()
        for name in sorted(files):
            yield here / name, (here / name).relative_to(root).as_posix()


def write_result(blocks: Iterable[bytes]) -> None:
    """Write bytes to stdout, unbuffered by anything of ours."""
    for block in blocks:
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
