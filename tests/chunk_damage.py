"""What can befall a chunk file on disk, and whether one is still what was published."""

from dataclasses import replace
from pathlib import Path

from minigfs.chunkserver.append_slots import SLOT_BYTES
from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.chunk_file import decode_header, encode_header
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkVersion
from minigfs.master.messages import LocatedChunk

__all__ = ["chunk_file", "exchange", "flip", "flip_records", "forge", "is_sound"]


def chunk_file(directory: Path, handle: int) -> Path:
    """Where a chunkserver keeps a sealed chunk."""
    return directory / "chunks" / f"{handle:016x}.chunk"


def flip(path: Path, offset: int = -1) -> None:
    """One bit is another one."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def flip_records(path: Path) -> None:
    """One bit of each of the two tables of records of a chunk that was appended to."""
    _, layout = decode_header(path.read_bytes())
    for slot in (1, 2):
        flip(path, layout.data_offset - slot * SLOT_BYTES + 20)


def exchange(first: Path, second: Path) -> None:
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def forge(path: Path, *, change_from: int | None = None, version: int = 1) -> None:
    """Write a file in which every sum is right, of other bytes or another version: what a disk
    that was put back from an old copy may hold."""
    content = path.read_bytes()
    header, layout = decode_header(content)
    data = bytearray(content[layout.data_offset :])
    if change_from is not None:
        data[change_from:] = bytes(len(data) - change_from)
    table = block_sums(data, handle=header.handle, first_block=0)
    digest = digest_of_table(table)
    start = encode_header(replace(header, digest=digest, version=ChunkVersion(version))) + table
    path.write_bytes(start.ljust(layout.data_offset, b"\0") + data)


def is_sound(path: Path, chunk: LocatedChunk) -> bool:
    """Whether a file holds the chunk as the masters' log has it, to the last byte."""
    try:
        content = path.read_bytes()
        header, layout = decode_header(content)
    except (FileNotFoundError, CorruptChunk):
        return False
    data = content[layout.data_offset : layout.data_offset + header.length_bytes]
    told = (header.sealed, header.handle, header.version, header.length_bytes, header.digest)
    table = block_sums(data, handle=header.handle, first_block=0)
    stored = content[layout.table_offset : layout.table_offset + len(table)]
    return (
        told == (True, chunk.handle, chunk.version, chunk.length_bytes, chunk.digest)
        and stored == table
        and digest_of_table(table) == chunk.digest
    )
