"""The chunk file: bytes that say by themselves what they are.

::

    0             header   magic, format, sizes, ids, length, digest, cluster id, path hint, sum
    table_offset  table    one 8-byte sum per checksum block that a chunk of this size can have,
                           or just one, in a *small* chunk, which has one block and will not grow
                  slots    of a chunk that was appended to (see ``append_slots``)
    data_offset   data     page-aligned; ``length_bytes`` of it are valid

The header's own sum covers the header, the digest in the header covers the table, the table covers
the data: every byte is covered, and a file that was cut, mixed up or written by somebody else is
told from a good one without asking the master. With the cluster id, file id, index and path hint a
file system can be put together again from chunk files alone.

The header is written last, when the chunk is sealed; a file without one is a write that never
ended and holds nothing that was acknowledged. Encoding and decoding are pure.
"""

import struct
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.append_slots import SLOTS_BYTES
from minigfs.chunkserver.checksum import (
    SUM_BYTES,
    block_count,
    digest_of_table,
)
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId, FileId
from minigfs.ports import Buffer

__all__ = [
    "HEADER_BYTES_MAX",
    "ChunkHeader",
    "ChunkLayout",
    "StoredChunk",
    "check_table",
    "decode_header",
    "encode_header",
    "plan_layout",
]

HEADER_BYTES_MAX = 4096  # one page holds any header, so one read finds it
_PAGE_BYTES = 4096
_PATH_HINT_BYTES_MAX = 1024
_CLUSTER_ID_BYTES_MAX = 256
_MAGIC = b"mgfschnk"
_FORMAT = 1
_SEALED = 1
_HAS_SLOTS = 2
_IS_SMALL = 4

_FIXED = struct.Struct("<8sHHIIQQQQQQQQHH")
_SUM = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLayout:
    """Where the parts of a chunk file lie, in bytes from its start."""

    table_offset: int
    data_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHeader:
    cluster_id: ClusterId
    file_id: FileId
    path_hint: str
    handle: ChunkHandle
    version: ChunkVersion
    index: int
    chunk_bytes: int
    length_bytes: int
    digest: int
    sealed: bool = True
    has_slots: bool = False  # of a chunk that was appended to (see ``append_slots``)
    is_small: bool = False  # all of it was known when its file was laid out: one block at most


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """What a chunkserver keeps in memory of each sealed chunk, and reports."""

    handle: ChunkHandle
    version: ChunkVersion
    length_bytes: int
    digest: int = 0  # 0: not known


def plan_layout(
    cluster_id: str, path_hint: str, room_bytes: int, *, has_slots: bool = False
) -> ChunkLayout:
    """Where things will lie in the file of a chunk that is about to be written, and that may come
    to hold ``room_bytes``.

    Slots, if there are any, lie right before the data.
    """
    header_bytes = (
        _FIXED.size
        + len(_encode_text(cluster_id, _CLUSTER_ID_BYTES_MAX))
        + len(_encode_text(path_hint, _PATH_HINT_BYTES_MAX))
        + _SUM.size
    )
    table_offset = _round_up(header_bytes, SUM_BYTES)
    table_bytes = block_count(room_bytes) * SUM_BYTES
    table_end = _round_up(table_offset + table_bytes, _PAGE_BYTES)
    return ChunkLayout(
        table_offset=table_offset, data_offset=table_end + (SLOTS_BYTES if has_slots else 0)
    )


def encode_header(header: ChunkHeader) -> bytes:
    """The header, padded to where the table begins."""
    cluster_id = _encode_text(header.cluster_id, _CLUSTER_ID_BYTES_MAX)
    path_hint = _encode_text(header.path_hint, _PATH_HINT_BYTES_MAX)
    layout = plan_layout(
        header.cluster_id,
        header.path_hint,
        CHECKSUM_BLOCK_BYTES if header.is_small else header.chunk_bytes,
        has_slots=header.has_slots,
    )
    fixed = _FIXED.pack(
        _MAGIC,
        _FORMAT,
        (_SEALED if header.sealed else 0)
        | (_HAS_SLOTS if header.has_slots else 0)
        | (_IS_SMALL if header.is_small else 0),
        CHECKSUM_BLOCK_BYTES,
        layout.table_offset,
        layout.data_offset,
        header.handle,
        header.version,
        header.file_id,
        header.index,
        header.chunk_bytes,
        header.length_bytes,
        header.digest,
        len(cluster_id),
        len(path_hint),
    )
    covered = fixed + cluster_id + path_hint
    encoded = covered + _SUM.pack(xxh3_64_intdigest(covered))
    assert len(encoded) <= layout.table_offset
    return encoded.ljust(layout.table_offset, b"\0")


def decode_header(prefix: Buffer) -> tuple[ChunkHeader, ChunkLayout]:
    """Header and layout of a chunk file, from its first ``HEADER_BYTES_MAX`` bytes.

    Raises ``CorruptChunk`` with the reason if these are not the first bytes of a chunk file.
    """
    prefix = bytes(prefix[:HEADER_BYTES_MAX])
    if len(prefix) < _FIXED.size or prefix[: len(_MAGIC)] != _MAGIC:
        raise CorruptChunk("not a chunk file, or one that was never sealed")
    fields = _FIXED.unpack_from(prefix)
    _, format_, flags, block_bytes, table_offset, data_offset = fields[:6]
    handle, version, file_id, index, chunk_bytes, length_bytes, digest = fields[6:13]
    cluster_id_end = _FIXED.size + fields[13]
    covered_end = cluster_id_end + fields[14]
    if format_ != _FORMAT or block_bytes != CHECKSUM_BLOCK_BYTES:
        raise CorruptChunk(f"chunk file of format {format_}, blocks of {block_bytes} bytes")
    stored_sum = prefix[covered_end : covered_end + _SUM.size]
    if stored_sum != _SUM.pack(xxh3_64_intdigest(prefix[:covered_end])):
        raise CorruptChunk("the header's sum is wrong")
    header = ChunkHeader(
        cluster_id=ClusterId(prefix[_FIXED.size : cluster_id_end].decode()),
        file_id=FileId(file_id),
        path_hint=prefix[cluster_id_end:covered_end].decode(),
        handle=ChunkHandle(handle),
        version=ChunkVersion(version),
        index=index,
        chunk_bytes=chunk_bytes,
        length_bytes=length_bytes,
        digest=digest,
        sealed=bool(flags & _SEALED),
        has_slots=bool(flags & _HAS_SLOTS),
        is_small=bool(flags & _IS_SMALL),
    )
    return header, ChunkLayout(table_offset=table_offset, data_offset=data_offset)


def check_table(header: ChunkHeader, table: Buffer) -> None:
    """Raise ``CorruptChunk`` unless ``table`` is the one the header was sealed with."""
    if len(table) != block_count(header.length_bytes) * SUM_BYTES:
        raise CorruptChunk(f"chunk {header.handle:x}: the table of sums is cut")
    if digest_of_table(table) != header.digest:
        raise CorruptChunk(f"chunk {header.handle:x}: the table of sums is damaged")


def _encode_text(text: str, bytes_max: int) -> bytes:
    """UTF-8, cut at the front to fit: the end of a path says more than its beginning."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return encoded
    return encoded[-bytes_max:].decode("utf-8", "ignore").encode()


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
