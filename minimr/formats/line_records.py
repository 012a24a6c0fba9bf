"""Formats whose records are lines: ``lines``, ``blocks``, ``keyvalue``."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa

from minimr.formats.blocks import Block, read_blocks
from minimr.formats.records import OnMalformed, Place, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.text_input import (
    block_batch,
    count_lines,
    line_batch,
    line_offset,
    split_lines,
)
from minimr.messages import FileRange

__all__ = ["BlockRecords", "KeyValueReader", "LineReader", "LineRecords"]


class BlockRecords:
    """Whole lines as one block."""

    def __init__(self, block: Block) -> None:
        self.block = block

    @property
    def record_count(self) -> int:
        return count_lines(self.block)

    @property
    def stored_bytes(self) -> int:
        return self.block.stored_bytes

    def objects(self) -> list[Any]:
        return split_lines(self.block)

    def batch(self) -> pa.RecordBatch:
        return block_batch(self.block)

    def place_of(self, index: int) -> Place:
        return self.block.origin_of(line_offset(split_lines(self.block), index))

    def extent(self) -> str:
        url, offset = self.block.origin_of(0)
        last_url, last = self.block.origin_of(self.block.size_bytes - 1)
        if url == last_url:
            return f"bytes {offset} to {last} of {url}"
        return f"{len(self.block.origins)} files from {url} to {last_url}"


class LineRecords(BlockRecords):
    """The lines of a block."""

    def batch(self) -> pa.RecordBatch:
        return line_batch(self.block)


class KeyValueRecords(LineRecords):
    """The lines of a block, cut in two."""

    def __init__(self, block: Block, separator: bytes) -> None:
        super().__init__(block)
        self._separator = separator

    def objects(self) -> list[Any]:
        separator = self._separator
        return [
            (key, value)
            for key, _, value in (line.partition(separator) for line in split_lines(self.block))
        ]

    def batch(self) -> pa.RecordBatch:
        keys, values = zip(*self.objects(), strict=True)
        return pa.record_batch(
            {"key": pa.array(keys, pa.binary()), "value": pa.array(values, pa.binary())}
        )


class LineReader:
    """``lines``, or ``blocks`` of them."""

    def __init__(self, form: Literal["lines", "blocks"]) -> None:
        self._records = LineRecords if form == "lines" else BlockRecords

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        return map(self._records, read_blocks(ranges, storage, block_bytes=block_bytes))


class KeyValueReader:
    """``keyvalue``."""

    def __init__(self, separator: str) -> None:
        self._separator = separator.encode()

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for block in read_blocks(ranges, storage, block_bytes=block_bytes):
            yield KeyValueRecords(block, self._separator)
