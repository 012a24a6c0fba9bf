"""Order and hash of keys against Python's own."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.ordered_bytes import encode, encode_all
from minimr.pairs import from_python
from minimr.shuffle.keys import (
    group_starts,
    partition_bounds,
    partition_order,
    partitions_of,
    sort_order,
    stable_hash,
)

EXAMPLES = settings(max_examples=150)
MASK = (1 << 64) - 1
LONG_PREFIX = st.sampled_from([b"", b"ab", b"/images/", b"/images/x", b"\0" * 9, b"p" * 130])
BYTES = st.builds(bytes.__add__, LONG_PREFIX, st.binary(max_size=10))
TIES = [
    b"a", b"a\0", b"a\0\0", b"aaaaaaaa", b"aaaaaaaa\0", b"aaaaaaaab", b"aaaaaaaaa", b"b" * 16,
    b"b" * 16 + b"\0", b"b" * 17, b"b" * 24 + b"x", b"b" * 32, b"b" * 32 + b"\0", b"b" * 33,
    b"b" * 40,
]  # fmt: skip
KEYS = st.one_of(
    st.lists(st.sampled_from([b"c" * 8 + b"1", b"c" * 8 + b"2"]), min_size=2),
    st.lists(BYTES),
    st.lists(st.text(max_size=12)),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.floats(allow_nan=False).map(lambda number: number + 0.0)),
    st.lists(st.booleans()),
    st.lists(st.dates()),
    st.lists(st.times()),
    st.lists(st.datetimes()),
    st.lists(st.tuples(st.sampled_from([b"", b"\0", b"longer than 8"]), st.integers(-2, 2))),
    st.lists(st.none()).map(lambda nones: nones[:1]),
    st.lists(st.sampled_from(TIES)),
)


def column(keys: list[Any]) -> pa.Array:
    """The keys as the shuffle carries them, as a slice of something longer."""
    if not keys:
        return from_python(keys, keys).column(0)
    return from_python([keys[0], *keys, keys[-1]], [0] * (len(keys) + 2)).column(0)[1:-1]


@EXAMPLES
@given(keys=KEYS)
def test_sorting_is_pythons_and_stable(keys: list[Any]) -> None:
    assert sort_order([column(keys)]).tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@EXAMPLES
@given(keys=KEYS, partition_count=st.integers(1, 9))
def test_rows_are_in_order_of_partition_then_key(keys: list[Any], partition_count: int) -> None:
    array = column(keys)
    partitions = partitions_of(array, partition_count)
    order = partition_order([array], partitions, partition_count)
    want = sorted(range(len(keys)), key=lambda row: (partitions[row], keys[row]))
    assert order.tolist() == want
    bounds = partition_bounds(partitions[order], partition_count)
    for partition in range(partition_count):
        rows = order[bounds[partition] : bounds[partition + 1]]
        assert (partitions[rows] == partition).all()
    assert bounds[-1] == len(keys)


@EXAMPLES
@given(keys=KEYS)
def test_groups_begin_where_the_key_changes(keys: list[Any]) -> None:
    keys = sorted(keys)
    want = [row for row, key in enumerate(keys) if row == 0 or key != keys[row - 1]]
    assert group_starts(column(keys)).tolist() == want


def _octets(key: Any) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, tuple):
        return encode_all(key)
    ordered = encode(key)
    if key is None:
        return ordered
    return struct.pack("<q", int.from_bytes(ordered[1:]) - (1 << 63))


def reference_hash(key: Any) -> int:
    """The definition, one key at a time."""
    if isinstance(key, int):
        octets = struct.pack("<q", key)
    elif isinstance(key, float):
        octets = struct.pack("<d", key)
    else:
        octets = key if isinstance(key, bytes) else _octets(key)
    state = (0x6D696E696D720001 + len(octets) * 0x9E3779B185EBCA87) & MASK
    if len(octets) > 128:
        words = [xxhash.xxh3_64_intdigest(octets)]
    else:
        padded = octets + bytes(-len(octets) % 8)
        words = list(struct.unpack(f"<{len(padded) // 8}Q", padded))
    for word in words:
        product = word * 0xC2B2AE3D27D4EB4F & MASK
        state = ((state ^ product ^ product >> 32) * 0x165667B19E3779F9) & MASK
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK
    return state ^ state >> 31


@EXAMPLES
@given(keys=KEYS)
def test_the_hash_is_its_definition(keys: list[Any]) -> None:
    hashes = list(map(reference_hash, keys))
    assert stable_hash(column(keys)).tolist() == hashes
    if keys:
        assert stable_hash(column(keys * 9)).tolist() == hashes * 9  # few are hashed in another way


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (b"", 0x8BE40A5C398D64E4),
        (b"a", 0x3D59E9A7F71C6586),
        ("ü", 0xF1D38B34132C408C),
        (b"/index.html", 0x603B7B756C082FCA),
        (b"x" * 128, 0x1A414FF635C9C370),
        (b"x" * 129, 0xB8F9D42F17CCC5B3),
        (0, 0x7A4C8FC80C208AA1),
        (-1, 0x04BFCCFB3DEF0D35),
        (0.5, 0x63B14865D6AA875B),
    ],
)
def test_the_hash_never_changes(key: Any, digest: int) -> None:
    """Golden: the partition of a key is part of the data format."""
    assert int(stable_hash(column([key]))[0]) == digest


def test_partitions_are_even() -> None:
    keys = column([b"/item/%d" % number for number in range(20_000)])
    counts = np.bincount(partitions_of(keys, 16), minlength=16)
    assert counts.min() > 0.9 * 20_000 / 16
    assert counts.max() < 1.1 * 20_000 / 16
