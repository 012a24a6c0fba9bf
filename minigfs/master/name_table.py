"""The entries of one directory: an immutable table of names, always in order.

A directory is listed in pages, sorted, while it changes; so its names stand sorted in blocks of at
most ``BLOCK_NAMES_MAX``, and these are the leaves of a B-tree. A change copies one node of each
level (a thousand pointers or fewer, in a directory of any size) and shares everything else with the
table before it. Python compares strings by code point, which is the order of their UTF-8 bytes.

Where the blocks are cut is part of the replicated state: what is done block by block (a clone, the
end of a removed tree) must take the same steps on every member. It follows from the changes alone:
a name between two blocks goes to the first of them, and a restored table has the blocks it had.
The branches above may differ then, and decide nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from minigfs.ids import FileId

__all__ = ["BLOCK_NAMES_MAX", "NameTable"]

BLOCK_NAMES_MAX = 64
BRANCH_NODES_MAX = 64


class _Block(msgspec.Struct, frozen=True, gc=False):
    """A leaf, never empty."""

    names: tuple[str, ...]
    ids: tuple[FileId, ...]


class _Branch(msgspec.Struct, frozen=True, gc=False):
    """Nodes of one height, at least one."""

    firsts: tuple[str, ...]  # the first name of each node; that of the first node is never asked
    nodes: "tuple[_Node, ...]"
    name_count: int
    block_count: int


_Node: TypeAlias = _Block | _Branch


class NameTable(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Names and their inode ids. Equal tables were built by the same changes in the same order."""

    _root: _Node | None = None

    @classmethod
    def from_blocks(
        cls, blocks: Iterable[tuple[tuple[str, ...], tuple[FileId, ...]]]
    ) -> "NameTable":
        """The table whose ``blocks()`` these are."""
        nodes: list[_Node] = [_Block(names, ids) for names, ids in blocks]
        while len(nodes) > 1:
            runs = range(0, len(nodes), BRANCH_NODES_MAX)
            nodes = [_branch(nodes[start : start + BRANCH_NODES_MAX]) for start in runs]
        return cls(nodes[0] if nodes else None)

    def blocks(self) -> Iterator[tuple[tuple[str, ...], tuple[FileId, ...]]]:
        """All of it in order, in runs of names and their ids; no run is empty."""
        return ((block.names, block.ids) for block in _blocks(self._root))

    def block_at(self, index: int) -> tuple[tuple[str, ...], tuple[FileId, ...]] | None:
        """The run of names with this number; None behind the last."""
        node = self._root
        if node is None or index >= _block_count(node):
            return None
        while isinstance(node, _Branch):
            for child in node.nodes:
                if index < _block_count(child):
                    node = child
                    break
                index -= _block_count(child)
        return node.names, node.ids

    def with_block(self, names: tuple[str, ...], ids: tuple[FileId, ...]) -> "NameTable":
        """The table with one more run behind all of its names."""
        block = _Block(names, ids)
        return NameTable(block if self._root is None else _top(_append(self._root, block)))

    def __len__(self) -> int:
        return 0 if self._root is None else _name_count(self._root)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NameTable):
            return NotImplemented
        return self is other or list(self.blocks()) == list(other.blocks())

    def get(self, name: str) -> FileId | None:
        node = self._root
        while isinstance(node, _Branch):
            node = node.nodes[bisect_right(node.firsts, name, 1) - 1]
        if node is None:
            return None
        place = bisect_left(node.names, name)
        if place < len(node.names) and node.names[place] == name:
            return node.ids[place]
        return None

    def items_from(self, name: str) -> Iterator[tuple[str, FileId]]:
        """The entries whose name is ``name`` or comes after it, in order."""
        for block in _blocks(self._root, name):
            start = bisect_left(block.names, name)
            yield from zip(block.names[start:], block.ids[start:], strict=True)

    def insert(self, name: str, file_id: FileId) -> "NameTable":
        """The table with one more name, which must not be in it yet."""
        if self._root is None:
            return NameTable(_Block((name,), (file_id,)))
        return NameTable(_top(_insert(self._root, name, file_id)))

    def remove(self, name: str) -> "NameTable":
        """The table without a name, which must be in it."""
        assert self._root is not None
        return NameTable(_lowered(_remove(self._root, name)))

    def without_first_block(self) -> tuple[tuple[FileId, ...], "NameTable"]:
        """The ids of the first run of names, and the table without it; nothing of an empty one."""
        if self._root is None:
            return (), self
        first = next(_blocks(self._root))
        return first.ids, NameTable(_lowered(_without_first_block(self._root)))


def _name_count(node: _Node) -> int:
    return node.name_count if isinstance(node, _Branch) else len(node.names)


def _block_count(node: _Node) -> int:
    return node.block_count if isinstance(node, _Branch) else 1


def _first(node: _Node) -> str:
    while isinstance(node, _Branch):
        node = node.nodes[0]
    return node.names[0]


def _blocks(node: _Node | None, start: str = "") -> Iterator[_Block]:
    """Those that may hold ``start`` or a name behind it, in order."""
    if isinstance(node, _Block):
        yield node
    elif node is not None:
        at = bisect_right(node.firsts, start, 1) - 1
        yield from _blocks(node.nodes[at], start)
        for child in node.nodes[at + 1 :]:
            yield from _blocks(child)


def _branch(nodes: Sequence[_Node]) -> _Branch:
    return _Branch(
        tuple([_first(node) for node in nodes]),
        tuple(nodes),
        sum(map(_name_count, nodes)),
        sum(map(_block_count, nodes)),
    )


def _top(nodes: Sequence[_Node]) -> _Node:
    return nodes[0] if len(nodes) == 1 else _branch(nodes)


def _lowered(root: _Node | None) -> _Node | None:
    while isinstance(root, _Branch) and len(root.nodes) == 1:
        root = root.nodes[0]
    return root


# What takes the place of a node after a change: one node, two if it had to be cut, None for nothing


def _insert(node: _Node, name: str, file_id: FileId) -> tuple[_Node, ...]:
    if isinstance(node, _Branch):
        at = bisect_right(node.firsts, name, 1) - 1
        return _replaced(node, at, _insert(node.nodes[at], name, file_id), 1)
    place = bisect_left(node.names, name)
    assert place == len(node.names) or node.names[place] != name
    names = (*node.names[:place], name, *node.names[place:])
    ids = (*node.ids[:place], file_id, *node.ids[place:])
    if len(names) <= BLOCK_NAMES_MAX:
        return (_Block(names, ids),)
    cut = _cut(place, len(names))
    return _Block(names[:cut], ids[:cut]), _Block(names[cut:], ids[cut:])


def _append(node: _Node, block: _Block) -> tuple[_Node, ...]:
    if isinstance(node, _Block):
        return node, block
    last = len(node.nodes) - 1
    return _replaced(node, last, _append(node.nodes[last], block), len(block.names))


def _replaced(
    branch: _Branch, at: int, children: tuple[_Node, ...], more_names: int
) -> tuple[_Node, ...]:
    """The branch with these, one or two, in the place of one child."""
    nodes = (*branch.nodes[:at], *children, *branch.nodes[at + 1 :])
    if len(nodes) > BRANCH_NODES_MAX:
        cut = _cut(at + 1, len(nodes))
        return _branch(nodes[:cut]), _branch(nodes[cut:])
    firsts = branch.firsts
    if len(children) > 1:
        firsts = (*firsts[: at + 1], _first(children[1]), *firsts[at + 1 :])
    name_count = branch.name_count + more_names
    block_count = branch.block_count - _block_count(branch.nodes[at])
    return (_Branch(firsts, nodes, name_count, block_count + sum(map(_block_count, children))),)


def _cut(place: int, count: int) -> int:
    """Names mostly arrive in order (part-00000, part-00001, ...): then full nodes stay full."""
    return place if place == count - 1 else count // 2


def _remove(node: _Node, name: str) -> _Node | None:
    if isinstance(node, _Branch):
        at = bisect_right(node.firsts, name, 1) - 1
        return _shrunk(node, at, _remove(node.nodes[at], name))
    place = bisect_left(node.names, name)
    assert node.names[place] == name
    if len(node.names) == 1:
        return None
    return _Block(
        node.names[:place] + node.names[place + 1 :], node.ids[:place] + node.ids[place + 1 :]
    )


def _without_first_block(node: _Node) -> _Node | None:
    if isinstance(node, _Block):
        return None
    return _shrunk(node, 0, _without_first_block(node.nodes[0]))


def _shrunk(branch: _Branch, at: int, child: _Node | None) -> _Node | None:
    """The branch with less, or nothing, in the place of one child."""
    children = () if child is None else (child,)
    nodes = (*branch.nodes[:at], *children, *branch.nodes[at + 1 :])
    if not nodes:
        return None
    firsts = tuple([_first(one) for one in children])
    before = branch.nodes[at]
    return _Branch(
        (*branch.firsts[:at], *firsts, *branch.firsts[at + 1 :]),
        nodes,
        branch.name_count - _name_count(before) + (0 if child is None else _name_count(child)),
        branch.block_count - _block_count(before) + (0 if child is None else _block_count(child)),
    )
