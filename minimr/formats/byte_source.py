"""Bytes in order, as every reader takes them: into a buffer of its own, until that is full."""

from abc import ABC, abstractmethod
from typing import IO, Protocol

from minimr.errors import UnreadableInput

__all__ = ["ByteSource", "UnpackingSource", "fill"]


class ByteSource(Protocol):
    """0 from ``readinto`` is the end."""

    def readinto(self, view: memoryview, /) -> int | None: ...


def fill(source: "ByteSource | IO[bytes]", view: memoryview, url: str) -> int:
    """Read until the view is full or the source ends; the bytes read."""
    filled = 0
    while filled < len(view):
        # Every binary file has it; the type IO[bytes] does not say so.
        count = source.readinto(view[filled:])  # type: ignore[union-attr]
        if count is None:
            raise UnreadableInput(f"{url} is not ready to be read: is it a device?")
        if not count:
            break
        filled += count
    return filled


class UnpackingSource(ABC):
    """A ``ByteSource`` of what is unpacked piece by piece."""

    def __init__(self) -> None:
        self._unpacked = memoryview(b"")

    @abstractmethod
    def _unpack(self) -> bool:
        """Put more into ``_unpacked``, if only an empty piece; false at the end."""

    def readinto(self, view: memoryview, /) -> int:
        while not self._unpacked:
            if not self._unpack():
                return 0
        count = min(len(view), len(self._unpacked))
        view[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count
