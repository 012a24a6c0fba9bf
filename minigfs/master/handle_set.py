"""A set of chunk handles that may grow to millions, and never stops the master to do so.

Python's own sets and dicts move everything they hold when they grow past a bound: at a million
handles that takes tens of milliseconds, and several of them reach the same bound in the same turn.
Handles are given out one after the other, so a bit for each is small, and pages of bits grow in
steps of microseconds::

    _pages = {0: 0b...0111, 7: 0b1, ...}    # number of the page -> a bit for each handle in it

Where handles are dense, the 256 of a page take some hundred bytes; so does one that is alone.
"""

from collections.abc import Iterable, Iterator, MutableSet

from minigfs.ids import ChunkHandle

__all__ = ["HandleSet"]

_PAGE_SHIFT = 8
_PAGE_MASK = (1 << _PAGE_SHIFT) - 1


class HandleSet(MutableSet[ChunkHandle]):
    """In the order in which its pages were begun; within a page, by handle."""

    __slots__ = ("_count", "_pages")

    def __init__(self, handles: Iterable[ChunkHandle] = ()) -> None:
        self._pages: dict[int, int] = {}
        self._count = 0
        self.update(handles)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, handle: object) -> bool:
        return isinstance(handle, int) and bool(
            self._pages.get(handle >> _PAGE_SHIFT, 0) >> (handle & _PAGE_MASK) & 1
        )

    def __iter__(self) -> Iterator[ChunkHandle]:
        """What changes meanwhile may be met or not; what stays is met, once."""
        for number in tuple(self._pages):
            yield from _handles(number, self._pages.get(number, 0))

    def add(self, value: ChunkHandle) -> None:
        number, bit = value >> _PAGE_SHIFT, 1 << (value & _PAGE_MASK)
        page = self._pages.get(number, 0)
        if not page & bit:
            self._pages[number] = page | bit
            self._count += 1

    def update(self, handles: Iterable[ChunkHandle]) -> None:
        for handle in handles:
            self.add(handle)

    def discard(self, value: ChunkHandle) -> None:
        number, bit = value >> _PAGE_SHIFT, 1 << (value & _PAGE_MASK)
        page = self._pages.get(number, 0)
        if not page & bit:
            return
        self._count -= 1
        if page == bit:
            del self._pages[number]
        else:
            self._pages[number] = page ^ bit

    def take(self, count: int) -> list[ChunkHandle]:
        """Remove the first ``count`` or a few more, whole pages: so what is put back comes last."""
        taken: list[ChunkHandle] = []
        while self._pages and len(taken) < count:
            number = next(iter(self._pages))
            taken += _handles(number, self._pages.pop(number))
        self._count -= len(taken)
        return taken


def _handles(number: int, page: int) -> Iterator[ChunkHandle]:
    first = number << _PAGE_SHIFT
    while page:
        lowest = page & -page
        yield ChunkHandle(first + lowest.bit_length() - 1)
        page ^= lowest
