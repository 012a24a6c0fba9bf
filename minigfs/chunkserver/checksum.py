"""Sums of checksum blocks, and the digest over them (GFS section 5.2, DESIGN 6.4).

A chunk is cut into blocks of 64 KiB, each with an xxh3-64 sum. The sum is seeded with the chunk's
handle and the block's index, so that a block which is intact but stands in the wrong place, or in
the wrong chunk, has a wrong sum. The sums of a chunk, packed as little-endian 64-bit numbers, are
its *table*; the digest is the xxh3-64 of the table. Whoever holds the digest (the master's log
does, for every published chunk) can trust a table that matches it, and whoever holds a trusted
table can verify any block alone.
"""

import struct
from collections.abc import Iterator

from xxhash import xxh3_64, xxh3_64_intdigest

from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.ids import ChunkHandle
from minigfs.ports import Buffer

__all__ = [
    "SUM_BYTES",
    "block_count",
    "block_hasher",
    "block_sums",
    "digest_of_table",
    "first_bad_block",
    "table_slice",
    "widen_to_blocks",
]

SUM_BYTES = 8

# An odd constant close to 2**64 / golden ratio: handles are counters, and multiples of it lie far
# apart, so no two (handle, block index) pairs that can occur have the same seed.
_HANDLE_SPREAD = 0x9E3779B97F4A7C15
_MASK_64 = (1 << 64) - 1


def block_count(length_bytes: int) -> int:
    """How many checksum blocks ``length_bytes`` fill; the last one may be partial."""
    return -(-length_bytes // CHECKSUM_BLOCK_BYTES)


def block_hasher(handle: ChunkHandle, block: int) -> xxh3_64:
    """For the sum of a block whose bytes come one after the other."""
    return xxh3_64(seed=(handle * _HANDLE_SPREAD + block) & _MASK_64)


def block_sums(data: Buffer, *, handle: ChunkHandle, first_block: int) -> bytes:
    """The packed sums of ``data``, which starts at block ``first_block`` of its chunk."""
    sums = tuple(_sums(data, handle, first_block))
    return struct.pack(f"<{len(sums)}Q", *sums)


def first_bad_block(
    data: Buffer, expected: Buffer, *, handle: ChunkHandle, first_block: int
) -> int | None:
    """Index in the chunk of the first block whose sum differs from ``expected``, else None.

    ``expected`` holds the packed sums of exactly the blocks of ``data``; if it holds fewer or
    more, the first block without a counterpart counts as bad.
    """
    actual = block_sums(data, handle=handle, first_block=first_block)
    if actual == expected:
        return None
    pairs = min(len(actual), len(expected)) // SUM_BYTES
    for block in range(pairs):
        place = slice(block * SUM_BYTES, (block + 1) * SUM_BYTES)
        if actual[place] != expected[place]:
            return first_block + block
    return first_block + pairs


def digest_of_table(table: Buffer) -> int:
    """The one number that stands for all bytes of a chunk."""
    return xxh3_64_intdigest(table)


def table_slice(table: Buffer, first_block: int, data_bytes: int) -> memoryview:
    """The sums of ``data_bytes`` of data that start at ``first_block``."""
    start = first_block * SUM_BYTES
    return memoryview(table)[start : start + block_count(data_bytes) * SUM_BYTES]


def widen_to_blocks(offset_bytes: int, length_bytes: int, end_bytes: int) -> tuple[int, int]:
    """The smallest run of whole blocks around a range, clipped to ``end_bytes``: (start, end).

    A range that lies behind ``end_bytes`` gives the empty run there.
    """
    assert offset_bytes >= 0
    assert length_bytes >= 0
    start = min(offset_bytes // CHECKSUM_BLOCK_BYTES * CHECKSUM_BLOCK_BYTES, end_bytes)
    end = min(block_count(offset_bytes + length_bytes) * CHECKSUM_BLOCK_BYTES, end_bytes)
    return start, max(start, end)


def _sums(data: Buffer, handle: ChunkHandle, first_block: int) -> Iterator[int]:
    view = memoryview(data).cast("B")
    seed = handle * _HANDLE_SPREAD + first_block
    for start in range(0, len(view), CHECKSUM_BLOCK_BYTES):
        block = view[start : start + CHECKSUM_BLOCK_BYTES]
        yield xxh3_64_intdigest(block, seed & _MASK_64)
        seed += 1
