"""One record of the write-ahead log, byte for byte, and the verdict on a log's last bytes.

::

    offset  bytes
    0       4   magic
    4       2   type          what the payload is; the log itself does not care
    6       2   format        1
    8       4   payload length
    12      4   crc32 of the header without magic and crc
    16      8   log index
    24      8   durable: every byte before this file offset was synced when this was written
    32      n   payload, then zeros up to a multiple of 8
    32+n'   8   chain: xxh3-64 of payload and header, seeded by the record before; top 2 bits set

Numbers are little-endian; records start at multiples of 8. The file is preallocated, so what was
never written reads as zeros, and a record's last byte is never zero, not even with a bit flipped.

A crash in the middle of an append leaves records that are cut short, or of which some sectors were
written and others not: a torn tail, acknowledged to nobody, and simply dropped. Damage to a record
that was acknowledged must stop the start instead. The two are told apart thus: a later record whose
``durable`` lies beyond the bad one proves that the bad one was whole once (damage); else a record
that misses its end, or one of its sectors, was never whole (torn); a record that is all there but
does not match its sums is damage, though it is the last.
"""

import struct
import zlib
from enum import Enum
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

__all__ = [
    "FIRST_CHAIN",
    "HEADER_BYTES",
    "PAYLOAD_BYTES_MAX",
    "Fault",
    "Record",
    "Tail",
    "decode_record",
    "encode_record",
    "expected_bytes",
    "judge_tail",
    "record_bytes",
]

PAYLOAD_BYTES_MAX = 64 * 1024 * 1024  # four times what one request may carry
FIRST_CHAIN = 0  # seeds the first record of a log

_MAGIC = b"mWL1"
_FORMAT = 1
_HEADER = struct.Struct("<4sHHIIQQ")
HEADER_BYTES = _HEADER.size
_CHECKED = struct.Struct("<HHIQQ")  # the header's fields that the crc covers
_CHAIN = struct.Struct("<Q")
_TOP_BITS = 0b11 << 62
_ZERO_PAGES = bytes(64 * 1024)
_SECTOR_BYTES = 512  # the smallest piece a disk writes whole or not at all


class Record(NamedTuple):
    type: int
    log_index: int
    payload: bytes


class Fault(Enum):
    INCOMPLETE = "the bytes end before the record does"
    BAD = "these bytes are no record that follows the one before"


class Tail(Enum):
    CLEAN = "nothing was written here"
    TORN = "an append was cut short"
    DAMAGED = "a record was here and is not as it was written"


class _Header(NamedTuple):
    type: int
    length: int
    log_index: int
    durable: int
    magic_is_right: bool
    crc_is_right: bool


def _read_header(buffer: bytes, at: int) -> _Header:
    magic, kind, version, length, crc, log_index, durable = _HEADER.unpack_from(buffer, at)
    expected = zlib.crc32(_CHECKED.pack(kind, version, length, log_index, durable))
    plausible = version == _FORMAT and length <= PAYLOAD_BYTES_MAX
    return _Header(kind, length, log_index, durable, magic == _MAGIC, plausible and crc == expected)


def record_bytes(payload_bytes: int) -> int:
    """What a record takes in the file."""
    return _HEADER.size + (payload_bytes + 7) // 8 * 8 + _CHAIN.size


def encode_record(record: Record, durable: int, chain: int) -> tuple[bytes, int]:
    """The record's bytes, and the chain that the next record goes on with."""
    kind, log_index, payload = record
    assert len(payload) <= PAYLOAD_BYTES_MAX
    crc = zlib.crc32(_CHECKED.pack(kind, _FORMAT, len(payload), log_index, durable))
    header = _HEADER.pack(_MAGIC, kind, _FORMAT, len(payload), crc, log_index, durable)
    chain = _link(header, payload, chain)
    padding = bytes(-len(payload) % 8)
    return b"".join((header, payload, padding, _CHAIN.pack(chain))), chain


def _link(header: bytes, payload: bytes, chain: int) -> int:
    return xxh3_64_intdigest(header, seed=xxh3_64_intdigest(payload, seed=chain)) | _TOP_BITS


def expected_bytes(buffer: bytes) -> int | Fault:
    """What the record that begins with this header takes, for reading one record at a time."""
    if len(buffer) < _HEADER.size:
        return Fault.INCOMPLETE
    header = _read_header(buffer, 0)
    if not (header.magic_is_right and header.crc_is_right):
        return Fault.BAD
    return record_bytes(header.length)


def decode_record(buffer: bytes, at: int, chain: int) -> tuple[Record, int, int] | Fault:
    """The record at a position that follows ``chain``, where it ends, and its own chain."""
    if len(buffer) - at < _HEADER.size:
        return Fault.INCOMPLETE
    header = _read_header(buffer, at)
    if not (header.magic_is_right and header.crc_is_right):
        return Fault.BAD
    end = at + record_bytes(header.length)
    if len(buffer) < end:
        return Fault.INCOMPLETE
    start = at + _HEADER.size
    payload = buffer[start : start + header.length]
    if buffer[start + header.length : end - _CHAIN.size].strip(b"\0"):
        return Fault.BAD
    (stored,) = _CHAIN.unpack_from(buffer, end - _CHAIN.size)
    if stored != _link(buffer[at:start], payload, chain):
        return Fault.BAD
    return Record(header.type, header.log_index, payload), end, stored


def judge_tail(rest: bytes, base: int) -> Tail:
    """What the bytes after the last good record are; ``base`` is their offset in the file."""
    written = _without_zeros(rest)
    if not written:
        return Tail.CLEAN
    if _has_later_proof(rest, base):
        return Tail.DAMAGED
    if len(written) < _HEADER.size:
        return Tail.TORN
    header = _read_header(rest, 0)
    if header.magic_is_right and header.crc_is_right:
        end = record_bytes(header.length)
        whole = len(rest) >= end and rest[end - 1] != 0 and not _misses_sector(rest, base, end)
        return Tail.DAMAGED if whole else Tail.TORN
    if _misses_sector(rest, base, _HEADER.size):
        return Tail.TORN
    # Bytes that never were a header are no record of ours, unless a whole file is not.
    was_header = header.magic_is_right or header.crc_is_right
    return Tail.DAMAGED if was_header or base == 0 else Tail.TORN


def _without_zeros(rest: bytes) -> bytes:
    """Cut the zeros at the end; by pages, because most of a preallocated segment is zeros."""
    end = len(rest)
    while rest.endswith(_ZERO_PAGES, 0, end):
        end -= len(_ZERO_PAGES)
    return rest[:end].rstrip(b"\0")


def _has_later_proof(rest: bytes, base: int) -> bool:
    """Whether a later record knows that what stands at ``base`` had been synced."""
    at = rest.find(_MAGIC, 1)
    while at != -1:
        if at % 8 == 0 and len(rest) - at >= _HEADER.size:
            header = _read_header(rest, at)
            if header.crc_is_right and base < header.durable <= base + at:
                return True
        at = rest.find(_MAGIC, at + 1)
    return False


def _misses_sector(rest: bytes, base: int, length: int) -> bool:
    """Whether a sector's share of the first ``length`` bytes is all zeros: it was never written."""
    start = 0
    while start < length:
        end = min(start + _SECTOR_BYTES - (base + start) % _SECTOR_BYTES, length)
        if not rest[start:end].strip(b"\0"):
            return True
        start = end
    return False
