"""Compressed files as streams of their unpacked bytes: gzip, zstd, bz2, xz.

Every format's own checks (sums, lengths) are made by its library. What fails them, and a file that
ends inside a stream, is `UnreadableInput`: it names the file and how far reading came. Streams that
follow each other in one file read as one, as the formats' own tools do.
"""

import bz2
import lzma
from typing import IO, Any, Protocol

import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.byte_source import UnpackingSource
from minimr.formats.gzip_source import GzipSource

__all__ = ["PackedSource", "unpacked"]

_PACKED_BYTES = 256 << 10
_UNPACKED_BYTES = 1 << 20  # at a time: bounds memory whatever the packing ratio
_XZ_MEMORY_BYTES = 256 << 20  # what xz -9 needs, four times; a file may ask for terabytes

_TESTERS = {"zstd": "zstd -t", "bz2": "bzip2 -t", "xz": "xz -t"}


class PackedSource(Protocol):
    """Unpacked bytes in order; 0 from ``readinto`` is the end."""

    packed_bytes: int  # read of the stored file so far

    def readinto(self, view: memoryview, /) -> int: ...


def unpacked(file: IO[bytes], url: str, compression: str) -> PackedSource:
    """The unpacked bytes of ``file``, which is read forward from where it is."""
    if compression == "gzip":
        return GzipSource(file, url)
    if compression == "zstd":
        return _ZstdSource(file, url)
    return _StreamSource(file, url, compression)


class _StreamSource(UnpackingSource):
    """bz2 and xz by the standard library, which unpacks a bounded piece at a time."""

    def __init__(self, file: IO[bytes], url: str, compression: str) -> None:
        super().__init__()
        self._file = file
        self._url = url
        self._compression = compression
        self._stream = self._new_stream()
        self._is_fresh = True  # the stream at hand has had no bytes yet
        self.packed_bytes = 0

    def _new_stream(self) -> Any:
        if self._compression == "bz2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)

    def _unpack(self) -> bool:
        packed = b""
        if self._stream.eof:
            packed = self._stream.unused_data.lstrip(b"\0")  # xz pads with zeros
            self._stream, self._is_fresh = self._new_stream(), True
        if not packed and self._stream.needs_input:
            packed = self._file.read(_PACKED_BYTES)
            self.packed_bytes += len(packed)
            if self._is_fresh and self.packed_bytes > len(packed):
                packed = packed.lstrip(b"\0") or self._read_past_zeros()
            if not packed:
                if self._is_fresh and self.packed_bytes:
                    return False
                raise _cut_off(self._url, self._compression, self.packed_bytes)
        try:
            out = self._stream.decompress(packed, _UNPACKED_BYTES)
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise _damaged(self._url, self._compression, self.packed_bytes, error) from error
        self._is_fresh = False
        self._unpacked = memoryview(out)
        return True

    def _read_past_zeros(self) -> bytes:
        while packed := self._file.read(_PACKED_BYTES):
            self.packed_bytes += len(packed)
            if stripped := packed.lstrip(b"\0"):
                return stripped
        return b""


class _Counted:
    """A file that counts what is read of it."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.read_bytes += len(piece)
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The file is its opener's to close."""


class _ZstdSource:
    """zstd by Arrow, which unpacks as it is read."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        self._counted = _Counted(file)
        self._url = url
        self._stream = pa.CompressedInputStream(pa.PythonFile(self._counted, mode="r"), "zstd")

    @property
    def packed_bytes(self) -> int:
        return self._counted.read_bytes

    @packed_bytes.setter
    def packed_bytes(self, _value: int) -> None:
        raise AttributeError("packed_bytes is counted")

    def readinto(self, view: memoryview, /) -> int:
        try:
            count: int = self._stream.readinto(view[:_UNPACKED_BYTES])
        except (OSError, pa.ArrowInvalid, EOFError) as error:
            raise _damaged(self._url, "zstd", self.packed_bytes, error) from error
        return count


def _damaged(url: str, compression: str, read_bytes: int, error: Exception) -> UnreadableInput:
    return UnreadableInput(
        f"{url} is damaged ({error}); {read_bytes} packed bytes were read: "
        f"check it with {_TESTERS[compression]}"
    )


def _cut_off(url: str, compression: str, read_bytes: int) -> UnreadableInput:
    return UnreadableInput(
        f"{url} ends in the middle of its data after {read_bytes} bytes: it was cut off; "
        f"check it with {_TESTERS[compression]}"
    )
