"""``jsonl``: one JSON value a line."""

from collections.abc import Iterator, Sequence

import msgspec

from minimr.formats.blocks import Block, read_blocks
from minimr.formats.records import MalformedRecord, OnMalformed, Records, refuse
from minimr.formats.storage import Storage
from minimr.formats.table_records import ObjectRecords
from minimr.formats.text_input import split_lines
from minimr.messages import FileRange

__all__ = ["JsonLinesReader"]


class JsonLinesReader:
    """Lines of nothing but white space are no records."""

    def read(
        self,
        ranges: Sequence[FileRange],
        storage: Storage,
        *,
        block_bytes: int,
        on_malformed: OnMalformed = refuse,
    ) -> Iterator[Records]:
        for block in read_blocks(ranges, storage, block_bytes=block_bytes):
            records = _records(block, on_malformed)
            if records.record_count:
                yield records


def _records(block: Block, on_malformed: OnMalformed) -> ObjectRecords:
    decode = msgspec.json.decode
    objects, offsets, at = [], [], 0
    for line in split_lines(block):
        if line.strip():
            try:
                objects.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                url, offset = block.origin_of(at)
                on_malformed(
                    MalformedRecord(
                        f"this line is no JSON ({error})", url=url, offset=offset, record=line
                    )
                )
            else:
                offsets.append(at)
        at += len(line) + 1
    return BlockObjects(objects, offsets, block)


class BlockObjects(ObjectRecords):
    """Objects out of a block, which may hold lines of several files."""

    def __init__(self, objects: list[object], offsets: list[int], block: Block) -> None:
        super().__init__(objects, offsets, url="", stored_bytes=block.stored_bytes)
        self._block = block

    def place_of(self, index: int) -> tuple[str, int]:
        return self._block.origin_of(self._offsets[index])

    def extent(self) -> str:
        url, offset = self._block.origin_of(self._offsets[0])
        return f"{self.record_count} records from byte {offset} of {url} on"
