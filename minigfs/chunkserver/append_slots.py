"""What makes an open chunk file whole after a crash: two slots, written in turn (DESIGN 6.3).

::

    header | table | slot 0 | slot 1 | data
                       ^        ^
                mutations 2, 4, ...  1, 3, ...

A mutation writes its data behind all acknowledged bytes, the sums of the blocks it completed into
the table, and one slot: serial, length, the sum of the last, partial block, and the last record of
each appender; then one sync makes all of it durable. The other slot still describes the state
before, which was durable already. So after a crash the newer slot counts if its own sum and the
blocks of its mutation are right, else the older one: nothing acknowledged is ever damaged, and
what a crash leaves behind the valid length was never acknowledged.

A sealed chunk file keeps its slots: the one of the length that was sealed answers for good whether
a record is in it, and goes with every copy of the chunk. A copy that was made when nobody had it
any more has zeros there. Pure.
"""

import struct
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.mutations import APPENDERS_MAX, LastRecord, Mutations
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle
from minigfs.ports import Buffer

__all__ = [
    "SLOTS_BYTES",
    "SLOT_BYTES",
    "Slot",
    "decode_slot",
    "encode_slot",
    "sealed_slot",
    "slot_of",
]

SLOT_BYTES = 64 * 1024
SLOTS_BYTES = 2 * SLOT_BYTES
_MAGIC = b"mgfsslot"
_FIXED = struct.Struct("<8sIIQQQQQQ")
_ENTRY = struct.Struct("<QQQQ")
_SUM = struct.Struct("<Q")
assert _FIXED.size + APPENDERS_MAX * _ENTRY.size + _SUM.size <= SLOT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The state after one mutation."""

    handle: ChunkHandle
    serial: int
    before_bytes: int  # the length before this mutation
    length_bytes: int
    committed_bytes: int
    partial_sum: int  # of the last block, if it is not whole
    last_records: dict[int, LastRecord]

    def mutations(self, chunk_bytes: int) -> Mutations:
        """A replica that stands there, frozen: it is not known what the others did since."""
        return Mutations(
            chunk_bytes=chunk_bytes,
            serial=self.serial,
            length_bytes=self.length_bytes,
            committed_bytes=self.committed_bytes,
            last_records=dict(self.last_records),
            is_frozen=True,
        )


def slot_of(
    mutations: Mutations, *, handle: ChunkHandle, before_bytes: int, partial_sum: int
) -> Slot:
    """The slot of a state that ``mutations`` is in, or will be."""
    return Slot(
        handle=handle,
        serial=mutations.serial,
        before_bytes=before_bytes,
        length_bytes=mutations.length_bytes,
        committed_bytes=mutations.committed_bytes,
        partial_sum=partial_sum,
        last_records=mutations.last_records,
    )


def encode_slot(slot: Slot) -> bytes:
    fixed = _FIXED.pack(
        _MAGIC,
        1,
        len(slot.last_records),
        slot.handle,
        slot.serial,
        slot.before_bytes,
        slot.length_bytes,
        slot.committed_bytes,
        slot.partial_sum,
    )
    entries = [
        _ENTRY.pack(appender_id, last.sequence, last.offset_bytes, last.length_bytes)
        for appender_id, last in slot.last_records.items()
    ]
    covered = fixed + b"".join(entries)
    return covered + _SUM.pack(xxh3_64_intdigest(covered))


def decode_slot(encoded: Buffer, handle: ChunkHandle) -> Slot | None:
    """The slot, or None if these bytes are none of this chunk: never written, or torn."""
    encoded = bytes(encoded)
    if len(encoded) < _FIXED.size + _SUM.size or not encoded.startswith(_MAGIC):
        return None
    _, format_, count, of_handle, serial, before, length, committed, partial = _FIXED.unpack_from(
        encoded
    )
    end = _FIXED.size + count * _ENTRY.size
    if format_ != 1 or of_handle != handle or count > APPENDERS_MAX:
        return None
    covered = encoded[:end]
    if encoded[end : end + _SUM.size] != _SUM.pack(xxh3_64_intdigest(covered)):
        return None
    entries = _ENTRY.iter_unpack(covered[_FIXED.size :])
    return Slot(
        handle=handle,
        serial=serial,
        before_bytes=before,
        length_bytes=length,
        committed_bytes=committed,
        partial_sum=partial,
        last_records={appender: LastRecord(*rest) for appender, *rest in entries},
    )


def sealed_slot(slots: Buffer, handle: ChunkHandle, length_bytes: int) -> Slot | None:
    """Of both slots of a sealed chunk, the one of what was sealed; None if there never was one.
    Every mutation has another length; the slot before would deny the records of the last one.

    Raises ``CorruptChunk`` if it is damaged.
    """
    slots = bytes(slots)
    for place in (slots[:SLOT_BYTES], slots[SLOT_BYTES:]):
        slot = decode_slot(place, handle)
        if slot is not None and slot.length_bytes == length_bytes:
            return slot
    if any(slots):
        raise CorruptChunk("the table of its records is damaged")
    return None
