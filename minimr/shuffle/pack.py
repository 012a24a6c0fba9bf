"""Small segments of several map attempts in one file, one after the other.

A file for each attempt would cost a tiny map more than its own work does: a create and a rename
take a disk's directories, not its bytes. So the attempts that one executor runs share a file, named
after the first of them. Each segment in it is whole in itself, sums and all: a byte that changes
damages the segment that it is part of, and no other. What an attempt left that did not come to its
end is never read.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from minimr.shuffle.segment import SegmentEncoder, SegmentSummary, check_space

__all__ = ["PACKED_BYTES_MAX", "SegmentPack"]

PACKED_BYTES_MAX = 64 << 10  # of pairs: with more, a file of its own costs next to nothing


class SegmentPack:
    """The file that an executor's attempts share. For one thread."""

    def __init__(self) -> None:
        self._path = Path()
        self._descriptor: int | None = None
        self._size_bytes = 0

    def put(
        self, path: Path, write: Callable[[SegmentEncoder], None], partition_count: int, codec: str
    ) -> SegmentSummary:
        """Add the segment that ``write`` makes; ``path`` is the file's if there is none yet.

        `OSError`: it was not added, and the next one begins a file.
        """
        content = BytesIO()
        encoder = SegmentEncoder(content, path, partition_count, compression=codec)
        write(encoder)
        summary = encoder.finish()
        try:
            descriptor = self._open(path)
            check_space(self._path.parent)
            start, view = self._size_bytes, content.getbuffer()
            while view:
                written = os.pwrite(descriptor, view, self._size_bytes)
                self._size_bytes += written
                view = view[written:]
        except OSError:
            self.close()
            raise
        return replace(summary, path=self._path, start=start)

    def _open(self, path: Path) -> int:
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink:
            return self._descriptor
        self.close()  # somebody has removed the file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._path, self._size_bytes = path, 0
        return self._descriptor

    def close(self) -> None:
        """The file stays."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
