"""A gzip file as a stream of its unpacked bytes: concatenated members, zeros as padding.

The checks of the format (sum and length of every member) are zlib's; whatever fails them, and a
file that ends inside a member, is `UnreadableInput`.
"""

import zlib
from typing import IO

from minimr.errors import UnreadableInput
from minimr.formats.byte_source import UnpackingSource

__all__ = ["GzipSource"]

_PACKED_BYTES = 256 << 10
_UNPACKED_BYTES = 1 << 20  # at a time: bounds memory whatever the packing ratio
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class GzipSource(UnpackingSource):
    """zlib runs without the interpreter's lock."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        super().__init__()
        self._file = file
        self._url = url
        self._member = zlib.decompressobj(wbits=_GZIP_WINDOW)
        self._packed = b""
        self.packed_bytes = 0
        self._unpacked_bytes = 0

    def _unpack(self) -> bool:
        """Unpack some more; false at the end of the file."""
        if self._member.eof and not self._next_member():
            return False
        packed = self._packed or self._read()
        if not packed:
            raise self._unreadable("ends in the middle of its data: it was cut off")
        try:
            unpacked = self._member.decompress(packed, _UNPACKED_BYTES)
        except zlib.error as error:
            raise self._unreadable(f"is damaged ({error})") from error
        self._packed = self._member.unconsumed_tail
        self._unpacked_bytes += len(unpacked)
        self._unpacked = memoryview(unpacked)
        return True

    def _next_member(self) -> bool:
        rest = self._member.unused_data.lstrip(b"\0")
        while not rest:
            piece = self._read()
            if not piece:
                return False
            rest = piece.lstrip(b"\0")
        self._packed = rest
        self._member = zlib.decompressobj(wbits=_GZIP_WINDOW)
        return True

    def _read(self) -> bytes:
        piece = self._file.read(_PACKED_BYTES)
        self.packed_bytes += len(piece)
        return piece

    def _unreadable(self, how: str) -> UnreadableInput:
        return UnreadableInput(
            f"{self._url} {how}; {self.packed_bytes} packed bytes were read, "
            f"{self._unpacked_bytes} came out: check it with gzip -t"
        )
