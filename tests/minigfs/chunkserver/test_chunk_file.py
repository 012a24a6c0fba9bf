"""A chunk file says what it is, and nothing else passes for one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.chunkserver.checksum import SUM_BYTES, block_count, block_sums, digest_of_table
from minigfs.chunkserver.chunk_file import (
    HEADER_BYTES_MAX,
    ChunkHeader,
    check_table,
    decode_header,
    encode_header,
    plan_layout,
)
from minigfs.config import CHECKSUM_BLOCK_BYTES, DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId, FileId


def header(
    path_hint: str = "/logs/a.log",
    *,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    length_bytes: int = 100,
    digest: int = 7,
) -> ChunkHeader:
    return ChunkHeader(
        cluster_id=ClusterId("c1"),
        file_id=FileId(3),
        path_hint=path_hint,
        handle=ChunkHandle(2**63 - 1),
        version=ChunkVersion(1),
        index=2**40,
        chunk_bytes=chunk_bytes,
        length_bytes=length_bytes,
        digest=digest,
    )


@given(st.text(max_size=1500), st.integers(MIN_CHUNK_BYTES, 2**40), st.integers(0, 2**64 - 1))
def test_a_header_comes_back_as_it_was(path: str, chunk_bytes: int, digest: int) -> None:
    written = header(path, chunk_bytes=chunk_bytes, digest=digest)
    encoded = encode_header(written)
    assert len(encoded) <= HEADER_BYTES_MAX
    read, layout = decode_header(encoded)
    assert layout == plan_layout("c1", path, chunk_bytes)
    assert len(encoded) == layout.table_offset
    hint = path.encode("utf-8", "replace").decode()
    assert hint.endswith(read.path_hint)
    assert read.path_hint == hint or len(hint.encode()) > 1000
    assert (read.digest, read.chunk_bytes, read.handle, read.index) == (
        digest,
        chunk_bytes,
        written.handle,
        written.index,
    )


@given(st.integers(MIN_CHUNK_BYTES, 2**40))
def test_data_is_page_aligned_and_the_table_has_room(chunk_bytes: int) -> None:
    layout = plan_layout("cluster", "/a", chunk_bytes)
    assert layout.data_offset % 4096 == 0
    assert layout.table_offset % 8 == 0
    assert layout.data_offset - layout.table_offset >= 8 * block_count(chunk_bytes)


def test_a_small_chunk_costs_one_page_of_overhead() -> None:
    assert plan_layout("c" * 16, "/some/path", MIN_CHUNK_BYTES).data_offset == 4096


def test_a_chunk_of_one_block_that_came_whole_has_one_page_of_overhead_in_any_cluster() -> None:
    written = replace(header("/a/path", chunk_bytes=2**40), is_small=True)
    read, layout = decode_header(encode_header(written))
    assert read.is_small
    assert layout.data_offset == 4096
    assert layout.data_offset - layout.table_offset >= SUM_BYTES


@given(st.data())
def test_a_changed_byte_in_the_header_is_found(data: st.DataObject) -> None:
    encoded = bytearray(encode_header(header()))
    covered = len(encoded.rstrip(b"\0"))
    position = data.draw(st.integers(0, covered - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptChunk):
        decode_header(bytes(encoded))


@pytest.mark.parametrize("prefix", [b"", b"mgfschnk", bytes(4096), b"x" * 4096])
def test_other_files_are_not_chunk_files(prefix: bytes) -> None:
    with pytest.raises(CorruptChunk):
        decode_header(prefix)


def test_the_table_must_be_the_one_the_chunk_was_sealed_with() -> None:
    data = b"x" * (CHECKSUM_BLOCK_BYTES + 1)
    table = block_sums(data, handle=ChunkHandle(2**63 - 1), first_block=0)
    sealed = header(length_bytes=len(data), digest=digest_of_table(table))
    check_table(sealed, table)
    for bad in (table[:8], table + bytes(8), bytes(16)):
        with pytest.raises(CorruptChunk):
            check_table(sealed, bad)
