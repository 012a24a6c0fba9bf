"""Sums see every change of a byte and every block in the wrong place."""

import struct

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from minigfs.chunkserver.checksum import (
    block_count,
    block_sums,
    digest_of_table,
    first_bad_block,
    table_slice,
    widen_to_blocks,
)
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.ids import ChunkHandle

A, B = ChunkHandle(1), ChunkHandle(2)


def pattern(length: int) -> bytes:
    return bytes(range(251)) * (length // 251 + 1)


def test_one_sum_per_block_the_last_one_partial() -> None:
    data = pattern(2 * BLOCK + 5)[: 2 * BLOCK + 5]
    assert len(block_sums(data, handle=A, first_block=0)) == 3 * 8
    assert [block_count(n) for n in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]


def test_sums_of_a_piece_are_the_sums_of_those_blocks_in_the_whole() -> None:
    data = pattern(4 * BLOCK)[: 4 * BLOCK]
    table = block_sums(data, handle=A, first_block=0)
    piece = block_sums(data[2 * BLOCK :], handle=A, first_block=2)
    assert piece == table_slice(table, 2, 2 * BLOCK)


def test_a_sum_is_xxh3_of_the_block_seeded_by_its_place() -> None:
    seed = (5 * 0x9E3779B97F4A7C15 + 7) % 2**64
    expected = struct.pack("<Q", xxhash.xxh3_64_intdigest(b"abc", seed))
    assert block_sums(b"abc", handle=ChunkHandle(5), first_block=7) == expected


def test_the_same_bytes_have_another_sum_in_another_chunk_or_place() -> None:
    sums = {
        block_sums(b"same", handle=handle, first_block=block)
        for handle in (A, B)
        for block in range(4)
    }
    assert len(sums) == 8


def test_blocks_that_changed_places_are_bad() -> None:
    first, second = b"1" * BLOCK, b"2" * BLOCK
    table = block_sums(first + second, handle=A, first_block=0)
    assert first_bad_block(second + first, table, handle=A, first_block=0) == 0


@given(st.integers(0, 3 * BLOCK - 1), st.integers(1, 255))
def test_any_changed_byte_is_found_in_its_block(position: int, change: int) -> None:
    data = bytearray(pattern(3 * BLOCK)[: 3 * BLOCK])
    table = block_sums(data, handle=A, first_block=10)
    data[position] ^= change
    bad = first_bad_block(data, table, handle=A, first_block=10)
    assert bad == 10 + position // BLOCK


def test_missing_and_surplus_blocks_are_bad() -> None:
    data = pattern(2 * BLOCK)[: 2 * BLOCK]
    table = block_sums(data, handle=A, first_block=0)
    assert first_bad_block(data[:BLOCK], table, handle=A, first_block=0) == 1
    assert first_bad_block(data + b"x", table, handle=A, first_block=0) == 2
    assert first_bad_block(data[:-1], table, handle=A, first_block=0) == 1


def test_the_digest_changes_with_any_sum() -> None:
    table = block_sums(pattern(2 * BLOCK)[: 2 * BLOCK], handle=A, first_block=0)
    assert digest_of_table(table) != digest_of_table(table[:8])
    assert digest_of_table(table) != digest_of_table(table[8:] + table[:8])


@given(st.integers(0, 5 * BLOCK), st.integers(0, 5 * BLOCK), st.integers(0, 4 * BLOCK))
def test_widened_ranges_cover_what_was_asked_in_whole_blocks(
    offset: int, length: int, end: int
) -> None:
    start, stop = widen_to_blocks(offset, length, end)
    assert 0 <= start <= stop <= end
    assert start % BLOCK == 0 or start == end
    assert stop % BLOCK == 0 or stop == end
    assert start <= min(offset, end)
    assert stop >= min(offset + length, end)
    assert stop - start < length + 2 * BLOCK
