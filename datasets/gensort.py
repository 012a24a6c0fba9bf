"""Records of the sort benchmark, byte for byte those of ``gensort`` 1.5 (and of 1.1).

A record has 100 bytes, the first 10 of them are its key. Record ``n`` is made of ``R(n)``, the
state of a linear congruential generator after ``n + 1`` steps: ``X' = A X + C`` modulo ``2**128``.

- ``binary``: ten blocks of ten bytes; block ``j`` is the top 80 bits of ``R(n + j)``, but for a
  mask that is the same in all records.
- ``ascii``: printable keys, the record's number in hexadecimal, a filler, CR and LF.
- ``v1.1``: the keys of ``binary`` in the layout of release 1.1, which Hadoop's TeraGen writes.

``skew`` makes keys with common beginnings: as many leading bits (bytes for ``ascii``) as the state
says are replaced by those of the record whose number is the bit length of ``n``.

Theory of operation: ``j`` steps from any state are one multiplication and one addition, with
factors that depend on ``j`` alone. With these factors in a table, all states of a batch come from
its first one by vectorised arithmetic on two 64-bit halves. As block ``j`` of a record is block 0
of the ``j``-th record after it, a binary record is 100 bytes out of one long array of blocks.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["FORMATS", "KEY_BYTES", "RECORD_BYTES", "Format", "generate", "pieces", "write"]

RECORD_BYTES = 100
KEY_BYTES = 10

Format = Literal["binary", "ascii", "v1.1"]
FORMATS: tuple[Format, ...] = ("binary", "ascii", "v1.1")

Octets: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint64]

_A = 0x2360ED051FC65DA44385DF649FCCF645
_C = 0x4A696D47726179524950202020202001
_MODULUS = 1 << 128
_LOW_64 = (1 << 64) - 1
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

_BATCH_RECORDS = 1 << 13  # its arrays stay in the processor's cache
_PIECE_BATCHES = 10  # 8 MB at a time are handed on

_BLOCK_COUNT = 10
_BLOCK_BYTES = 10
_MASKS = (
    "00000000000000000000", "F0E8E4E2E1D8D4D2D1CC", "CAC9C6C5C3B8B4B2B1AC", "AAA9A6A5A39C9A999695",
    "938E8D8B87787472716C", "6A696665635C5A595655", "534E4D4B473C3A393635", "332E2D2B271E1D1B170F",
    "C8C4C2C1989492918CE0", "170F332E2D2B271E1D1B",
)  # fmt: skip
_MASK = np.frombuffer(bytes.fromhex("".join(_MASKS)), np.uint8)
_BLOCK = np.dtype([("high", ">u8"), ("low", ">u2")])

_HEX = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_HEX_PAIRS = np.frombuffer("".join(f"{byte:02X}" for byte in range(256)).encode(), np.uint16)
_POWERS = np.array([1 << bit for bit in range(64)], np.uint64)
_SKEW_BITS_MAX = 48
_SKEW_BYTES = 6


def generate(first: int, count: int, form: Format = "binary", *, skew: bool = False) -> Octets:
    """Records ``first`` to ``first + count - 1``, one row each. All numbers must fit 64 bits."""
    records = np.empty((count, RECORD_BYTES), np.uint8)
    for start in range(0, count, _BATCH_RECORDS):
        end = min(start + _BATCH_RECORDS, count)
        _fill(records[start:end], first + start, form, skew=skew)
    return records


def pieces(
    first: int, count: int, form: Format = "binary", *, skew: bool = False, threads: int = 0
) -> Iterator[Octets]:
    """The same records in order, some megabytes at a time, made by threads (0: one a processor)."""
    threads = threads or len(os.sched_getaffinity(0))
    size = _BATCH_RECORDS * _PIECE_BATCHES
    ready: deque[Future[Octets]] = deque()
    with ThreadPoolExecutor(threads, "gensort") as pool:
        for start in range(0, count, size):
            if len(ready) > threads:
                yield ready.popleft().result()
            ready.append(
                pool.submit(generate, first + start, min(size, count - start), form, skew=skew)
            )
        while ready:
            yield ready.popleft().result()


def write(
    url: str, *, records: int, first: int = 0, form: Format = "binary", skew: bool = False
) -> int:
    """Write records to a local path or any fsspec URL; its size in bytes.

    Missing directories above it are made.
    """
    import fsspec

    file_system, path = fsspec.url_to_fs(url)
    parent = path.rstrip("/").rpartition("/")[0]
    if parent:
        file_system.makedirs(parent, exist_ok=True)
    with file_system.open(path, "wb") as file:
        for piece in pieces(first, records, form, skew=skew):
            file.write(piece.data.cast("B"))
    return records * RECORD_BYTES


def _fill(records: Octets, first: int, form: Format, *, skew: bool) -> None:
    count = len(records)
    high, low = _states(first, count + (_BLOCK_COUNT - 1 if form == "binary" else 0))
    numbers = np.uint64(first) + np.arange(count, dtype=np.uint64)
    if form == "binary":
        blocks = np.empty(len(high), _BLOCK)
        blocks["high"], blocks["low"] = high, low >> np.uint64(48)
        overlapping = as_strided(blocks.view(np.uint8), (count, RECORD_BYTES), (_BLOCK_BYTES, 1))
        np.bitwise_xor(overlapping, _MASK, out=records)
        high, low = high[:count], low[:count]
    elif form == "ascii":
        _fill_ascii(records, numbers, high, low)
    else:
        _fill_old(records, numbers, high, low)
    if skew and form == "ascii":
        _skew_ascii(records, numbers, low)
    elif skew:
        _skew_binary(records, numbers, high, low)


def _fill_ascii(records: Octets, numbers: Words, high: Words, low: Words) -> None:
    for columns, state in ((range(8), high), (range(8, 10), low)):
        rest = state
        for column in columns:
            rest, digit = np.divmod(rest, np.uint64(95))
            records[:, column] = digit + np.uint64(0x20)
    records[:, 10:12] = records[:, 44:46] = 0x20
    records[:, 12:44] = _hexadecimal(numbers)
    _fill_digits(records[:, 46:98], low, 13)
    records[:, 98], records[:, 99] = 0x0D, 0x0A


def _fill_old(records: Octets, numbers: Words, high: Words, low: Words) -> None:
    keys = np.empty(len(records), _BLOCK)
    keys["high"], keys["low"] = high, low >> np.uint64(48)
    records[:, :KEY_BYTES] = keys.view(np.uint8).reshape(-1, KEY_BYTES)
    records[:, 10], records[:, 11] = 0x00, 0x11
    records[:, 12:44] = _hexadecimal(numbers)
    records[:, 44:48] = np.frombuffer(bytes.fromhex("8899AABB"), np.uint8)
    _fill_digits(records[:, 48:96], low, 12)
    records[:, 96:] = np.frombuffer(bytes.fromhex("CCDDEEFF"), np.uint8)


def _hexadecimal(numbers: Words) -> Octets:
    """32 digits of each number."""
    digits = np.full((len(numbers), 32), ord("0"), np.uint8)
    octets = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)
    digits[:, 16:] = _HEX_PAIRS[octets].view(np.uint8)
    return digits


def _fill_digits(columns: Octets, low: Words, count: int) -> None:
    """The last ``count`` hexadecimal digits of each state, each four times."""
    for index in range(count):
        digit = (low >> np.uint64(4 * (count - 1 - index))) & np.uint64(15)
        columns[:, 4 * index : 4 * index + 4] = _HEX[digit][:, np.newaxis]


def _skew_binary(records: Octets, numbers: Words, high: Words, low: Words) -> None:
    bits = (low >> _32) & np.uint64(63)
    bits[bits > _SKEW_BITS_MAX] = 0
    # A shift by 64 is not defined, so the mask's first bit is made apart.
    kept = np.where(bits > 0, (np.uint64(_LOW_64 >> 1)) >> (bits - np.minimum(bits, 1)), _LOW_64)
    prefixes = _prefixes("binary").view(">u8").ravel().astype(np.uint64)[_bit_lengths(numbers)]
    skewed = (high & kept) | (prefixes & ~kept)
    records[:, :8] = skewed.astype(">u8").view(np.uint8).reshape(-1, 8)


def _skew_ascii(records: Octets, numbers: Words, low: Words) -> None:
    count = (low >> _32) & np.uint64(7)
    count[count > _SKEW_BYTES] = 0
    is_replaced = np.arange(_SKEW_BYTES, dtype=np.uint64) < count[:, np.newaxis]
    prefixes = _prefixes("ascii")[_bit_lengths(numbers), :_SKEW_BYTES]
    np.copyto(records[:, :_SKEW_BYTES], prefixes, where=is_replaced)


def _bit_lengths(numbers: Words) -> NDArray[np.int64]:
    return np.searchsorted(_POWERS, numbers, side="right")


@cache
def _prefixes(form: Format) -> Octets:
    """The first eight key bytes of the records whose numbers are bit lengths."""
    return np.ascontiguousarray(generate(0, 65, form)[:, :8])


def _states(first: int, count: int) -> tuple[Words, Words]:
    """``R(first)``, ``R(first + 1)``, ...: their upper and lower halves."""
    table = _steps()
    state = _state_after(first + 1)
    high, low = _times(
        (table.factor_high[:count], table.factor_low[:count]), (_word(state >> 64), _word(state))
    )
    return _plus((high, low), (table.term_high[:count], table.term_low[:count]))


def _state_after(steps: int) -> int:
    state, factor, term = 0, _A, _C
    while steps:
        if steps & 1:
            state = (factor * state + term) % _MODULUS
        factor, term = factor * factor % _MODULUS, (factor * term + term) % _MODULUS
        steps >>= 1
    return state


class _Steps:
    """``j`` steps from ``X`` lead to ``factor[j] * X + term[j]``, for all ``j`` of a batch."""

    def __init__(self, count: int) -> None:
        one, zero = np.ones(1, np.uint64), np.zeros(1, np.uint64)
        factors, terms = (zero, one), (zero, zero)
        factor, term = _A, _C  # of as many steps as the table has
        while len(factors[0]) < count:
            by = (_word(factor >> 64), _word(factor))
            plus = (_word(term >> 64), _word(term))
            more_factors = _times(factors, by)
            more_terms = _plus(_times(terms, by), plus)
            factors = _joined(factors, more_factors)
            terms = _joined(terms, more_terms)
            factor, term = factor * factor % _MODULUS, (factor * term + term) % _MODULUS
        self.factor_high, self.factor_low = factors
        self.term_high, self.term_low = terms


@cache
def _steps() -> _Steps:
    return _Steps(_BATCH_RECORDS + _BLOCK_COUNT)


Pair: TypeAlias = tuple[Words, Words]  # upper and lower halves of 128-bit integers


def _word(number: int) -> Words:
    return np.array([number & _LOW_64], np.uint64)


def _joined(first: Pair, second: Pair) -> Pair:
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _plus(one: Pair, other: Pair) -> Pair:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < other[1]), low


def _times(one: Pair, other: Pair) -> Pair:
    """Products modulo ``2**128``: the lower halves in pieces of 32 bits, as they need 128."""
    (one_high, one_low), (other_high, other_low) = one, other
    a, b = one_low >> _32, one_low & _LOW_32
    c, d = other_low >> _32, other_low & _LOW_32
    ad, bc, bd = a * d, b * c, b * d
    middle = (bd >> _32) + (ad & _LOW_32) + (bc & _LOW_32)
    carried = a * c + (ad >> _32) + (bc >> _32) + (middle >> _32)
    return carried + one_high * other_low + one_low * other_high, one_low * other_low
