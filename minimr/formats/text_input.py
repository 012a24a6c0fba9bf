"""Lines as records: blocks turned into what map functions take, and counted."""

import numpy as np
import pyarrow as pa

from minimr.errors import UnreadableInput
from minimr.formats.blocks import Block

__all__ = ["block_batch", "count_lines", "line_batch", "line_offset", "split_lines"]

_LF = 0x0A
_COUNTED_BYTES = 1 << 20  # at a time: the comparison's result stays in the cache
_LINE_BATCH_BYTES_MAX = (1 << 31) - 1  # Arrow's ``binary`` has 32-bit offsets


def count_lines(block: Block) -> int:
    """LFs, and one more for an unterminated last line."""
    content = np.frombuffer(block.buffer, np.uint8)
    return sum(
        int(np.count_nonzero(content[start : start + _COUNTED_BYTES] == _LF))
        for start in range(0, content.size, _COUNTED_BYTES)
    )


def split_lines(block: Block) -> list[bytes]:
    """The lines without their LFs."""
    lines: list[bytes] = block.buffer.to_pybytes().split(b"\n")
    lines.pop()
    return lines


def line_offset(lines: list[bytes], index: int) -> int:
    """Where line ``index`` begins in its block."""
    return sum(map(len, lines[:index])) + index


def line_batch(block: Block) -> pa.RecordBatch:
    """One row a line, column ``line: binary``, without LFs."""
    import pyarrow.compute as pc

    if block.buffer.size > _LINE_BATCH_BYTES_MAX:
        url, offset = block.origin_of(0)
        raise UnreadableInput(
            f"{url}: the line at byte {offset} is longer than 2 GiB: is this file text?"
        )
    content = np.frombuffer(block.buffer, np.uint8)
    ends = np.flatnonzero(content == _LF)
    offsets = np.zeros(ends.size + 1, np.int32)
    np.add(ends, 1, out=offsets[1:], casting="unsafe")
    with_ends = pa.Array.from_buffers(
        pa.binary(), ends.size, [None, pa.py_buffer(offsets), block.buffer]
    )
    return pa.RecordBatch.from_arrays([pc.binary_slice(with_ends, 0, -1)], names=["line"])


def block_batch(block: Block) -> pa.RecordBatch:
    """One row, column ``block: large_binary``, on the block's own memory."""
    offsets = np.array([0, block.size_bytes], np.int64)
    column = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(offsets), block.buffer]
    )
    return pa.RecordBatch.from_arrays([column], names=["block"])
