"""One replica of an open chunk: its file, the sums of its blocks, and the order of its mutations.

The file is a chunk file whose header says that it is not sealed, with two slots before the data
(see ``append_slots``). Acknowledged bytes are never written again. Sealing cuts what was never
acknowledged and writes the last sum; then the new header into a file of its own, the *intent*; and
then the header itself. A crash that tears it leaves an intent, from which it is written again.

Thread-safe: one lock makes mutations, freezing and sealing exclude each other; it is held over
disk writes, never over the network.
"""

import logging
import struct
import threading
from collections.abc import Sequence

from xxhash import xxh3_64, xxh3_64_intdigest

from minigfs.chunkserver.append_slots import (
    SLOT_BYTES,
    SLOTS_BYTES,
    Slot,
    decode_slot,
    encode_slot,
    slot_of,
)
from minigfs.chunkserver.checksum import (
    SUM_BYTES,
    block_hasher,
    block_sums,
    digest_of_table,
    first_bad_block,
)
from minigfs.chunkserver.chunk_file import (
    HEADER_BYTES_MAX,
    ChunkHeader,
    ChunkLayout,
    decode_header,
    encode_header,
    plan_layout,
)
from minigfs.chunkserver.mutations import Batch, Mutations
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkVersion, ClusterId
from minigfs.master.append_messages import InstallChunk
from minigfs.ports import Buffer, Disk, DiskFile

__all__ = ["INTENT_SUFFIX", "OpenReplica", "intent_path"]

logger = logging.getLogger(__name__)

INTENT_SUFFIX = ".sealing"
_SUM = struct.Struct("<Q")
_BLOCKS_AT_ONCE = 16


class OpenReplica:
    """``create`` and ``recover`` make one; ``close`` gives the file back."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        file: DiskFile,
        header: ChunkHeader,
        layout: ChunkLayout,
        mutations: Mutations,
        *,
        table: bytes = b"",
        partial_sum: int = 0,
        is_doubtful: bool = False,
    ) -> None:
        """``table`` has the sums of the whole blocks, ``partial_sum`` is that of the rest."""
        self.header = header
        self.is_doubtful = is_doubtful
        self._disk = disk
        self._path = path
        self._file = file
        self._layout = layout
        self._lock = threading.Lock()
        self._mutations = mutations
        self._table = bytearray(table)
        self._partial_sum = partial_sum
        self._hasher: xxh3_64 = block_hasher(header.handle, 0)  # of the block that is not whole

    @classmethod
    def create(
        cls, disk: Disk, path: str, order: InstallChunk, cluster_id: ClusterId
    ) -> "OpenReplica":
        """A fresh one, durable but for its name."""
        header = ChunkHeader(
            cluster_id=cluster_id,
            file_id=order.file_id,
            path_hint=order.path_hint,
            handle=order.handle,
            version=order.version,
            index=order.index,
            chunk_bytes=order.chunk_bytes,
            length_bytes=0,
            digest=0,
            sealed=False,
            has_slots=True,
        )
        layout = plan_layout(cluster_id, header.path_hint, header.chunk_bytes, has_slots=True)
        file = disk.open(path, create=True)
        try:
            file.truncate(0)
            file.write_at(0, encode_header(header))
            file.sync()
        except BaseException:
            file.close()
            raise
        mutations = Mutations(chunk_bytes=order.chunk_bytes)
        return cls(disk, path, file, header, layout, mutations)

    @classmethod
    def recover(cls, disk: Disk, path: str, cluster_id: ClusterId) -> "OpenReplica":
        """What a crash or a stop left, frozen. Raises ``CorruptChunk`` if that is nothing sound.

        It is doubtful if a newer mutation is not whole, or an older one any more: a crash that cut
        one off, before any member heard of it, looks like damage to one that all members have.
        """
        file = disk.open(path)
        try:
            _carry_out_intent(disk, path, file)
            header, layout = decode_header(file.read_at(0, HEADER_BYTES_MAX))
            if header.cluster_id != cluster_id or not header.has_slots:
                raise CorruptChunk(f"chunk {header.handle:x}: not an open chunk of this cluster")
            slot, is_newest = _last_sound_slot(file, header, layout)
            mutations = (
                Mutations(chunk_bytes=header.chunk_bytes, is_frozen=True)
                if slot is None
                else slot.mutations(header.chunk_bytes)
            )
            whole_bytes = mutations.length_bytes // CHECKSUM_BLOCK_BYTES * SUM_BYTES
            return cls(
                disk,
                path,
                file,
                header,
                layout,
                mutations,
                table=file.read_at(layout.table_offset, whole_bytes),
                partial_sum=0 if slot is None else slot.partial_sum,
                is_doubtful=not is_newest or not _is_sound_before(file, header, layout, slot),
            )
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def version(self) -> ChunkVersion:
        return self.header.version

    @property
    def length_bytes(self) -> int:
        return self._mutations.length_bytes

    @property
    def committed_bytes(self) -> int:
        return self._mutations.committed_bytes

    @property
    def is_frozen(self) -> bool:
        return self._mutations.is_frozen

    @property
    def mutations(self) -> Mutations:
        """To ask what comes next; whoever plans is the only one who applies."""
        return self._mutations

    def apply(self, batch: Batch, pieces: Sequence[Buffer], committed_bytes: int) -> None:
        """Make a mutation durable. After an error the replica is frozen and as it was before."""
        data = memoryview(b"".join(pieces))
        with self._lock:
            mutations = self._mutations
            mutations.check(batch)
            _check_records(batch, data)
            hasher, sums = self._extended_sums(data)
            before_bytes = mutations.length_bytes
            after = Mutations(
                chunk_bytes=mutations.chunk_bytes,
                serial=mutations.serial,
                length_bytes=before_bytes,
                committed_bytes=mutations.committed_bytes,
                last_records=dict(mutations.last_records),
            )
            after.apply(batch)
            after.commit(committed_bytes)
            partial_sum = hasher.intdigest() if after.length_bytes % CHECKSUM_BLOCK_BYTES else 0
            slot = slot_of(
                after,
                handle=self.header.handle,
                before_bytes=before_bytes,
                partial_sum=partial_sum,
            )
            try:
                self._file.write_at(self._layout.data_offset + before_bytes, data)
                if sums:
                    self._file.write_at(self._layout.table_offset + len(self._table), sums)
                self._write_slot(slot)
                self._file.sync()
            except BaseException:
                mutations.freeze()
                raise
            self._table += sums
            self._partial_sum, self._hasher, self._mutations = partial_sum, hasher, after

    def commit(self, committed_bytes: int) -> None:
        """Every member has these bytes."""
        with self._lock:
            self._mutations.commit(committed_bytes)

    def freeze(self) -> None:
        """Take no mutation any more; returns when none is under way."""
        with self._lock:
            self._mutations.freeze()

    def digest_at(self, length_bytes: int) -> int:
        """The digest that the first bytes have as a sealed chunk."""
        with self._lock:
            return digest_of_table(self._table_at(length_bytes))

    def seal(self, version: ChunkVersion, length_bytes: int, digest: int) -> None:
        """Make this, durably, a sealed chunk file of a frozen replica."""
        with self._lock:
            mutations = self._mutations
            handle = self.header.handle
            mutations.freeze()
            if not mutations.committed_bytes <= length_bytes <= mutations.length_bytes:
                raise CorruptChunk(
                    f"chunk {handle:x} cannot be sealed with {length_bytes} bytes: it has "
                    f"{mutations.length_bytes} here, {mutations.committed_bytes} acknowledged"
                )
            table = self._table_at(length_bytes)
            if digest_of_table(table) != digest:
                raise CorruptChunk(f"chunk {handle:x}: not the bytes that are to be sealed")
            partial_sum = _SUM.unpack(table[-SUM_BYTES:])[0]
            if length_bytes < mutations.length_bytes:
                self._cut(length_bytes, partial_sum)
            sealed = _sealed(self.header, version, length_bytes, digest)
            self._file.write_at(self._layout.table_offset, table)
            self._file.truncate(self._layout.data_offset + length_bytes)
            self._file.sync()
            self._write_intent(encode_header(sealed))
            self._file.write_at(0, encode_header(sealed))
            self._file.sync()
            self.header = sealed

    def read(self, offset_bytes: int, length_bytes: int) -> tuple[int, bytes, bytes]:
        """The blocks around a range as they are now: where they start, data and sums."""
        with self._lock:
            end = self._mutations.length_bytes
            table = self._table_at(end)
        start = min(offset_bytes, end) // CHECKSUM_BLOCK_BYTES * CHECKSUM_BLOCK_BYTES
        stop = -(-(offset_bytes + length_bytes) // CHECKSUM_BLOCK_BYTES) * CHECKSUM_BLOCK_BYTES
        stop = max(start, min(stop, end))
        data = self._file.read_at(self._layout.data_offset + start, stop - start)
        first = start // CHECKSUM_BLOCK_BYTES
        count = -(-(stop - start) // CHECKSUM_BLOCK_BYTES)
        sums = table[first * SUM_BYTES : (first + count) * SUM_BYTES]
        bad = first_bad_block(data, sums, handle=self.header.handle, first_block=first)
        if bad is not None:
            raise CorruptChunk(f"chunk {self.header.handle:x}: block {bad} has a wrong sum")
        return start, data, sums

    def _extended_sums(self, data: memoryview) -> tuple[xxh3_64, bytes]:
        """The hasher after more bytes, and the sums of the blocks that they make whole."""
        handle, hasher = self.header.handle, self._hasher.copy()
        end, position, sums = self._mutations.length_bytes, 0, bytearray()
        while position < len(data):
            room = CHECKSUM_BLOCK_BYTES - end % CHECKSUM_BLOCK_BYTES
            part = data[position : position + room]
            hasher.update(part)
            position, end = position + len(part), end + len(part)
            if end % CHECKSUM_BLOCK_BYTES == 0:
                sums += _SUM.pack(hasher.intdigest())
                hasher = block_hasher(handle, end // CHECKSUM_BLOCK_BYTES)
        return hasher, bytes(sums)

    def _table_at(self, length_bytes: int) -> bytes:
        assert length_bytes <= self._mutations.length_bytes
        whole, rest = divmod(length_bytes, CHECKSUM_BLOCK_BYTES)
        table = bytes(self._table[: whole * SUM_BYTES])
        if not rest:
            return table
        if length_bytes == self._mutations.length_bytes:
            return table + _SUM.pack(self._partial_sum)
        return table + self._sum_of_cut_block(whole, rest)

    def _sum_of_cut_block(self, block: int, kept_bytes: int) -> bytes:
        """The sum of the beginning of a block, whose old sum is verified first."""
        handle = self.header.handle
        start = block * CHECKSUM_BLOCK_BYTES
        stop = min(start + CHECKSUM_BLOCK_BYTES, self._mutations.length_bytes)
        data = self._file.read_at(self._layout.data_offset + start, stop - start)
        known = bytes(self._table[block * SUM_BYTES : (block + 1) * SUM_BYTES])
        expected = known or _SUM.pack(self._partial_sum)
        if block_sums(data, handle=handle, first_block=block) != expected:
            raise CorruptChunk(f"chunk {handle:x}: block {block} has a wrong sum")
        return block_sums(data[:kept_bytes], handle=handle, first_block=block)

    def _cut(self, length_bytes: int, partial_sum: int) -> None:
        """Forget, durably, what comes after; before anything that counts on the old end changes."""
        mutations = self._mutations
        mutations.cut(length_bytes)
        mutations.serial += 1
        if not length_bytes % CHECKSUM_BLOCK_BYTES:
            partial_sum = 0
        self._table = self._table[: length_bytes // CHECKSUM_BLOCK_BYTES * SUM_BYTES]
        self._partial_sum = partial_sum
        self._write_slot(
            slot_of(
                mutations,
                handle=self.header.handle,
                before_bytes=length_bytes,
                partial_sum=partial_sum,
            )
        )
        self._file.sync()

    def _write_intent(self, header: bytes) -> None:
        with self._disk.open(intent_path(self._path), create=True) as intent:
            intent.truncate(0)
            intent.write_at(0, header)
            intent.sync()
        self._disk.sync_dir(self._path.rpartition("/")[0])

    def _write_slot(self, slot: Slot) -> None:
        slots_offset = self._layout.data_offset - SLOTS_BYTES
        self._file.write_at(slots_offset + slot.serial % 2 * SLOT_BYTES, encode_slot(slot))


def intent_path(path: str) -> str:
    """Where the intent to seal the chunk in a file lies, if there is one."""
    return f"{path}{INTENT_SUFFIX}"


def _carry_out_intent(disk: Disk, path: str, file: DiskFile) -> None:
    """Write the header again that a crash may have torn. An intent that is torn itself came to
    nothing: the header is as it was."""
    if not disk.exists(intent_path(path)):
        return
    with disk.open(intent_path(path)) as intent:
        header = intent.read_at(0, HEADER_BYTES_MAX)
    try:
        decode_header(header)
    except CorruptChunk:
        return
    file.write_at(0, header)
    file.sync()


def _sealed(
    header: ChunkHeader, version: ChunkVersion, length_bytes: int, digest: int
) -> ChunkHeader:
    return ChunkHeader(
        cluster_id=header.cluster_id,
        file_id=header.file_id,
        path_hint=header.path_hint,
        handle=header.handle,
        version=version,
        index=header.index,
        chunk_bytes=header.chunk_bytes,
        length_bytes=length_bytes,
        digest=digest,
        sealed=True,
        has_slots=True,
    )


def _check_records(batch: Batch, data: memoryview) -> None:
    """Raise ``CorruptChunk`` unless the data are the records that their appenders sent."""
    position = 0
    for record in batch.records:
        part = data[position : position + record.length_bytes]
        if len(part) != record.length_bytes or xxh3_64_intdigest(part) != record.sum:
            raise CorruptChunk(f"a record of mutation {batch.serial} was damaged on its way here")
        position += len(part)
    if position != len(data):
        raise CorruptChunk(f"mutation {batch.serial} has {len(data)} bytes, not {position}")


def _last_sound_slot(
    file: DiskFile, header: ChunkHeader, layout: ChunkLayout
) -> tuple[Slot | None, bool]:
    """The newest state whose bytes are all there, None if nothing was ever durable; and whether
    nothing of a newer one is there."""
    slots_offset = layout.data_offset - SLOTS_BYTES
    places = [file.read_at(slots_offset + i * SLOT_BYTES, SLOT_BYTES) for i in (0, 1)]
    slots = [slot for place in places if (slot := decode_slot(place, header.handle)) is not None]
    is_newest = len(slots) == sum(any(place) for place in places)
    for slot in sorted(slots, key=lambda slot: slot.serial, reverse=True):
        if _is_sound(file, header, layout, slot):
            return slot, is_newest
        is_newest = False
        logger.warning("chunk %x: mutation %d was cut off", header.handle, slot.serial)
    if any(places[0]):  # it is written second: the first mutation was durable, and is not here
        raise CorruptChunk(f"chunk {header.handle:x}: neither slot is sound")
    return None, is_newest


def _is_sound(file: DiskFile, header: ChunkHeader, layout: ChunkLayout, slot: Slot) -> bool:
    """Whether the blocks that its mutation wrote are as it says."""
    first = slot.before_bytes // CHECKSUM_BLOCK_BYTES
    return _are_sound(
        file, header, layout, slot, first, -(-slot.length_bytes // CHECKSUM_BLOCK_BYTES)
    )


def _is_sound_before(
    file: DiskFile, header: ChunkHeader, layout: ChunkLayout, slot: Slot | None
) -> bool:
    """Whether the blocks that were whole before its mutation are as they were."""
    if slot is None:
        return True
    stop = slot.before_bytes // CHECKSUM_BLOCK_BYTES
    return all(
        _are_sound(file, header, layout, slot, first, min(first + _BLOCKS_AT_ONCE, stop))
        for first in range(0, stop, _BLOCKS_AT_ONCE)
    )


def _are_sound(
    file: DiskFile, header: ChunkHeader, layout: ChunkLayout, slot: Slot, first: int, stop: int
) -> bool:
    start, end = first * CHECKSUM_BLOCK_BYTES, min(stop * CHECKSUM_BLOCK_BYTES, slot.length_bytes)
    data = file.read_at(layout.data_offset + start, end - start)
    if len(data) != end - start:
        return False
    whole, rest = divmod(end, CHECKSUM_BLOCK_BYTES)
    table = file.read_at(layout.table_offset + first * SUM_BYTES, (whole - first) * SUM_BYTES)
    if rest:
        table += _SUM.pack(slot.partial_sum)
    return first_bad_block(data, table, handle=header.handle, first_block=first) is None
