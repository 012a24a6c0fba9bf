"""The entries of one directory: an immutable table of names, always in order.

A directory is listed in pages, sorted, while it changes; so the table keeps its names sorted in
blocks of at most ``BLOCK_NAMES_MAX``. A change copies one block and the list of blocks (for
100,000 names about 1,000 pointers) and shares everything else with the table before it; a page
starts with two binary searches. Python compares strings by code point, which is the order of
their UTF-8 bytes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from minigfs.ids import FileId

__all__ = ["BLOCK_NAMES_MAX", "NameTable"]

BLOCK_NAMES_MAX = (
    256  # the copy of one block costs about as much as that of the block list at 100,000
)


class _Block(msgspec.Struct, frozen=True, gc=False):
    names: tuple[str, ...]
    ids: tuple[FileId, ...]


class NameTable(msgspec.Struct, frozen=True, gc=False):
    """Names and their inode ids. Equal tables were built by the same changes in the same order."""

    _blocks: tuple[_Block, ...] = ()
    _firsts: tuple[str, ...] = ()  # the first name of each block
    _count: int = 0

    @classmethod
    def from_blocks(
        cls, blocks: Iterable[tuple[tuple[str, ...], tuple[FileId, ...]]]
    ) -> "NameTable":
        """The table whose ``blocks()`` these are."""
        kept = tuple(_Block(names, ids) for names, ids in blocks)
        count = sum(len(block.names) for block in kept)
        return cls(kept, tuple(block.names[0] for block in kept), count)

    def blocks(self) -> Iterator[tuple[tuple[str, ...], tuple[FileId, ...]]]:
        """All of it in order, in runs of names and their ids; no run is empty."""
        return ((block.names, block.ids) for block in self._blocks)

    def block_at(self, index: int) -> tuple[tuple[str, ...], tuple[FileId, ...]] | None:
        """The run of names with this number; None behind the last."""
        if index >= len(self._blocks):
            return None
        return self._blocks[index].names, self._blocks[index].ids

    def with_block(self, names: tuple[str, ...], ids: tuple[FileId, ...]) -> "NameTable":
        """The table with one more run behind all of its names."""
        blocks = (*self._blocks, _Block(names, ids))
        return NameTable(blocks, (*self._firsts, names[0]), self._count + len(names))

    def __len__(self) -> int:
        return self._count

    def get(self, name: str) -> FileId | None:
        at = bisect_right(self._firsts, name) - 1
        if at < 0:
            return None
        block = self._blocks[at]
        place = bisect_left(block.names, name)
        if place < len(block.names) and block.names[place] == name:
            return block.ids[place]
        return None

    def items_from(self, name: str) -> Iterator[tuple[str, FileId]]:
        """The entries whose name is ``name`` or comes after it, in order."""
        at = max(bisect_right(self._firsts, name) - 1, 0)
        for index in range(at, len(self._blocks)):
            block = self._blocks[index]
            start = bisect_left(block.names, name) if index == at else 0
            yield from zip(block.names[start:], block.ids[start:], strict=True)

    def insert(self, name: str, file_id: FileId) -> "NameTable":
        """The table with one more name, which must not be in it yet."""
        if not self._blocks:
            return NameTable((_Block((name,), (file_id,)),), (name,), 1)
        at = max(bisect_right(self._firsts, name) - 1, 0)
        block = self._blocks[at]
        place = bisect_left(block.names, name)
        assert place == len(block.names) or block.names[place] != name
        names = (*block.names[:place], name, *block.names[place:])
        ids = (*block.ids[:place], file_id, *block.ids[place:])
        if len(names) <= BLOCK_NAMES_MAX:
            return self._with_blocks(at, (_Block(names, ids),), 1)
        # Names mostly arrive in order (part-00000, part-00001, ...): then full blocks stay full.
        cut = place if place == len(block.names) else len(names) // 2
        halves = (_Block(names[:cut], ids[:cut]), _Block(names[cut:], ids[cut:]))
        return self._with_blocks(at, halves, 1)

    def remove(self, name: str) -> "NameTable":
        """The table without a name, which must be in it."""
        at = bisect_right(self._firsts, name) - 1
        block = self._blocks[at]
        place = bisect_left(block.names, name)
        assert block.names[place] == name
        names = block.names[:place] + block.names[place + 1 :]
        ids = block.ids[:place] + block.ids[place + 1 :]
        return self._with_blocks(at, (_Block(names, ids),) if names else (), -1)

    def without_first_block(self) -> tuple[tuple[FileId, ...], "NameTable"]:
        """The ids of the first run of names, and the table without it; nothing of an empty one."""
        if not self._blocks:
            return (), self
        ids = self._blocks[0].ids
        return ids, NameTable(self._blocks[1:], self._firsts[1:], self._count - len(ids))

    def _with_blocks(self, at: int, blocks: tuple[_Block, ...], change: int) -> "NameTable":
        firsts = tuple(block.names[0] for block in blocks)
        return NameTable(
            (*self._blocks[:at], *blocks, *self._blocks[at + 1 :]),
            (*self._firsts[:at], *firsts, *self._firsts[at + 1 :]),
            self._count + change,
        )
