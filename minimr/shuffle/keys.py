"""Hashing, sorting and grouping of key columns, vectorised (DESIGN 6.13).

Sorting
    The first eight bytes of every key become one big-endian word, and an argsort of machine words
    does most of the work. Rows whose words tie are sorted by their next words in the same way, and
    what still ties by whole keys. Equal keys keep the order of their rows, so the sort is stable.
    Text sorts as its UTF-8 bytes, which is code point order; numbers become words of the same
    order.

Hashing
    `stable_hash` is part of the data format: it decides which partition holds a key, in every
    process and release. It never changes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from minimr.column_types import is_binary, stored
from minimr.columns import from_numpy, to_numpy
from minimr.pairs import binary_parts

__all__ = [
    "RowBound",
    "bound_of",
    "group_starts",
    "partition_bounds",
    "partition_order",
    "partitions_of",
    "rows_below",
    "sort_order",
    "stable_hash",
    "words_of",
]

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]

_SIGN = np.uint64(1 << 63)
_WORDS_MAX = 4  # of a key that are sorted as numbers; what ties beyond is compared as bytes
_HASHED_BYTES_MAX = 128  # longer keys are hashed whole by xxh3, so that rounds stay few
_SEED = 0x6D696E696D720001
_LENGTH_FACTOR = 0x9E3779B185EBCA87
_WORD_FACTOR = 0xC2B2AE3D27D4EB4F
_STATE_FACTOR = 0x165667B19E3779F9
_FINISH_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_ALL_BITS = (1 << 64) - 1
_FEW_KEYS = 8  # that are hashed one by one
_KEEP = np.array([(1 << (8 * kept)) - 1 for kept in range(9)], np.uint64)


def words_of(keys: pa.Array) -> Words:
    """One word per key that orders as the keys do, but for ties (bytes and str only)."""
    keys = stored(keys)
    if is_binary(keys.type):
        offsets, data = binary_parts(keys)
        starts, lengths = offsets[:-1], np.diff(offsets)
        return _word_at(data, starts, lengths).byteswap()
    return _number_words(keys)


def sort_order(
    columns: Sequence[pa.Array], words: Words | None = None, *, in_runs: bool = False
) -> Rows:
    """Row numbers in increasing order of the columns, the first of them first; equal rows in
    increasing order of row.

    ``words``: those of the first column, if they are known. ``in_runs``: the rows are few sorted
    runs, one after the other; numpy's stable sort merges what is in order already.
    """
    keys = stored(columns[0])
    if len(keys) < 2:
        return np.arange(len(keys))
    if words is None:
        words = words_of(keys)
    if len(columns) == 1 and not is_binary(keys.type):
        return np.argsort(words, kind="stable")
    order = np.argsort(words, kind="stable" if in_runs else None)
    places, groups = _ties(words[order])
    if not places.size:
        return order
    if len(columns) == 1:
        _sort_ties(keys, order, places, groups, is_stable=in_runs)
        return order
    rows = np.sort(order[places])  # whole rows order the groups among each other, too
    import pyarrow.compute as pc

    names = [str(index) for index in range(len(columns))]
    tied_rows = from_numpy(rows)
    table = pa.table([stored(column).take(tied_rows) for column in columns], names=names)
    sort_keys = [(name, "ascending") for name in names]
    order[places] = rows[to_numpy(pc.sort_indices(table, sort_keys=sort_keys))]
    return order


def _ties(*ordered: NDArray[Any]) -> tuple[Rows, Rows]:
    """Places of an order at which there are equals next to each other, and the number of each one's
    group of equals."""
    same = np.logical_and.reduce([each[1:] == each[:-1] for each in ordered])
    places = np.flatnonzero(np.concatenate(([False], same)) | np.concatenate((same, [False])))
    begins = np.concatenate(([True], ~same))[places]
    return places, np.cumsum(begins) - 1


def _sort_ties(keys: pa.Array, order: Rows, places: Rows, groups: Rows, *, is_stable: bool) -> None:
    """Put groups of keys that tie so far in order by their next words, then by their length, then
    by row, if they are not (``is_stable``). Frequent keys need nothing of it but the last."""
    offsets, data = binary_parts(keys)
    starts, lengths = offsets[:-1], np.diff(offsets)
    for depth in range(8, 8 * _WORDS_MAX, 8):
        rows = order[places]
        left = lengths[rows] - depth
        if (left > 0).any():
            words = _word_at(data, starts[rows] + depth, np.maximum(left, 0)).byteswap()
            if (words != words[0]).any():
                sorted_ = _order_in_groups(words, groups)
                order[places] = rows[sorted_]
                tied, groups = _ties(words[sorted_], groups)
                places = places[tied]
                is_stable = False
        if not places.size:
            return
        ends = lengths[order[places]]
        if ends.max() <= depth + 8 and ends.min() == ends.max():  # the keys of a group are equal
            if is_stable:
                return
            packed = np.sort(
                (groups.astype(np.uint64) << np.uint64(32)) | order[places].view(np.uint64)
            )
            order[places] = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
            return
    import pyarrow.compute as pc

    rows = np.sort(order[places])
    order[places] = rows[to_numpy(pc.sort_indices(keys.take(from_numpy(rows))))]


def _order_in_groups(words: Words, groups: Rows) -> Rows:
    """The order by (group, word), not stable."""
    order = np.argsort(words)
    group_count = int(groups[-1]) + 1
    if group_count == 1:
        return order
    narrow = np.uint16 if group_count <= 1 << 16 else np.uint32  # 16 bits: numpy counts
    return order[np.argsort(groups[order].astype(narrow), kind="stable")]


def partition_order(
    columns: Sequence[pa.Array], partitions: NDArray[np.uint32], partition_count: int
) -> Rows:
    """Row numbers sorted by (partition, columns), stable."""
    order = sort_order(columns)
    if partition_count == 1:
        return order
    narrow = np.uint16 if partition_count <= 1 << 16 else np.uint32  # 16 bits: numpy counts
    by_partition = np.argsort(partitions[order].astype(narrow), kind="stable")
    return order[by_partition]


def partition_bounds(sorted_partitions: NDArray[np.uint32], partition_count: int) -> Rows:
    """Where each partition begins and the last ends: ``partition_count + 1`` row numbers."""
    wanted = np.arange(partition_count + 1)
    return np.searchsorted(sorted_partitions, wanted).astype(np.int64, copy=False)


def group_starts(keys: pa.Array) -> Rows:
    """Row numbers at which a new key begins, in a sorted column."""
    if len(keys) == 0:
        return np.empty(0, np.int64)
    import pyarrow.compute as pc

    keys = stored(keys)
    changes = to_numpy(pc.not_equal(keys[1:], keys[:-1]))
    return np.concatenate((np.zeros(1, np.int64), np.flatnonzero(changes) + 1))


@dataclass(frozen=True, slots=True)
class RowBound:
    """A row that others are held against: the word of its key, and all of it as Python compares
    it."""

    word: np.uint64
    row: tuple[Any, ...]


def bound_of(columns: Sequence[pa.Array], row: int) -> RowBound:
    """A row of columns with the types that it is to be compared with."""
    return RowBound(words_of(columns[0].slice(row, 1))[0], _comparable(columns, row))


def rows_below(
    columns: Sequence[pa.Array],
    words: Words,
    bound: RowBound,
    *,
    with_equal: bool,
    order: Rows | None = None,
) -> int:
    """How many rows are less than ``bound``, or up to it.

    ``words`` are the words of the first column in increasing order; ``order`` tells which row is at
    each place of that order, if it is not the one at the same place.
    """
    low = int(np.searchsorted(words, bound.word, side="left"))
    high = int(np.searchsorted(words, bound.word, side="right"))
    columns = list(map(stored, columns))
    if len(columns) == 1 and not is_binary(columns[0].type):
        return high if with_equal else low
    bisect = bisect_right if with_equal else bisect_left

    def row_at(place: int) -> tuple[Any, ...]:
        return _comparable(columns, place if order is None else int(order[place]))

    return bisect(range(high), bound.row, low, high, key=row_at)


def _comparable(columns: Sequence[pa.Array], row: int) -> tuple[Any, ...]:
    return tuple(stored(column.slice(row, 1))[0].as_py() for column in columns)


def partitions_of(keys: pa.Array, partition_count: int) -> NDArray[np.uint32]:
    """The default partition of each key: its stable hash modulo the count."""
    if partition_count == 1:
        return np.zeros(len(keys), np.uint32)
    return (stable_hash(keys) % np.uint64(partition_count)).astype(np.uint32)


def stable_hash(keys: pa.Array) -> Words:
    """64-bit hash of each key: the same answer in every process and release.

    With ``w`` the key's eight-byte little-endian words, the last filled up with zeros (an int or a
    float is its own eight bytes), all modulo 2**64::

        h = SEED + length * LENGTH_FACTOR
        for each w:  h = (h ^ (x ^ x >> 32)) * STATE_FACTOR   with x = w * WORD_FACTOR
        h = splitmix64_finalizer(h)

    A key of more than 128 bytes has ``xxh3_64(key)`` as its only word.
    """
    keys = stored(keys)
    if not is_binary(keys.type):
        words = to_numpy(keys).view(np.uint64)
        return _finish(_mix(_initial(np.full(len(keys), 8)), words))
    offsets, data = binary_parts(keys)
    if len(keys) <= _FEW_KEYS:
        places = pairwise(offsets.tolist())
        hashes = [_hash_of(data[start:end].tobytes()) for start, end in places]
        return np.array(hashes, np.uint64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    state = _initial(lengths)
    for row in np.flatnonzero(lengths > _HASHED_BYTES_MAX):
        digest = xxhash.xxh3_64_intdigest(data[starts[row] : offsets[row + 1]].tobytes())
        state[row] = _mix(state[row : row + 1], np.array([digest], np.uint64))[0]
    active = np.flatnonzero((lengths > 0) & (lengths <= _HASHED_BYTES_MAX))
    depth = 0
    while active.size:
        words = _word_at(data, starts[active] + depth, lengths[active] - depth)
        state[active] = _mix(state[active], words)
        depth += 8
        active = active[lengths[active] > depth]
    return _finish(state)


def _hash_of(key: bytes) -> int:
    """The hash of one key: for a few, cheaper than dozens of vectorised steps."""
    state = (_SEED + len(key) * _LENGTH_FACTOR) & _ALL_BITS
    if len(key) > _HASHED_BYTES_MAX:
        key = xxhash.xxh3_64_intdigest(key).to_bytes(8, "little")
    for start in range(0, len(key), 8):
        word = int.from_bytes(key[start : start + 8], "little") * _WORD_FACTOR & _ALL_BITS
        state = (state ^ word ^ word >> 32) * _STATE_FACTOR & _ALL_BITS
    state = (state ^ state >> 30) * _FINISH_FACTORS[0] & _ALL_BITS
    state = (state ^ state >> 27) * _FINISH_FACTORS[1] & _ALL_BITS
    return state ^ state >> 31


def _initial(lengths: NDArray[np.int64]) -> Words:
    return lengths.astype(np.uint64) * np.uint64(_LENGTH_FACTOR) + np.uint64(_SEED)


def _mix(state: Words, words: Words) -> Words:
    product = words * np.uint64(_WORD_FACTOR)
    mixed: Words = (state ^ product ^ (product >> np.uint64(32))) * np.uint64(_STATE_FACTOR)
    return mixed


def _finish(state: Words) -> Words:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FINISH_FACTORS[0])
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_FINISH_FACTORS[1])
    return state ^ (state >> np.uint64(31))


def _number_words(keys: pa.Array) -> Words:
    bits = to_numpy(keys).view(np.uint64)
    flipped: Words = bits ^ _SIGN
    if pa.types.is_integer(keys.type):
        return flipped
    return np.where(bits & _SIGN, ~bits, flipped)


def _word_at(data: NDArray[np.uint8], starts: Rows, lengths: Rows) -> Words:
    """Eight bytes from each start as a little-endian word, zero after ``length`` bytes."""
    if data.size < 8:
        data = np.concatenate((data, np.zeros(8 - data.size, np.uint8)))
    windows = np.ndarray((data.size - 7,), "<u8", data, 0, (1,))
    inside = np.minimum(starts, data.size - 8)
    words = windows[inside]
    late = np.flatnonzero(inside != starts)
    if late.size:
        words[late] >>= (8 * (starts[late] - inside[late])).astype(np.uint64)
    words &= _KEEP[np.clip(lengths, 0, 8)]
    return words
