"""Reads ranges of files as the tests of readers do."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from minimr.formats.readers import reader_of
from minimr.formats.records import Records
from minimr.formats.storage import Storage
from minimr.inputs import InputFormat
from minimr.messages import FileRange
from minimr.plan.naming import compression_of

__all__ = ["objects", "ranges_of", "read"]


def ranges_of(path: Path, cuts: Sequence[int] = ()) -> list[FileRange]:
    size = path.stat().st_size
    bounds = sorted({0, size, *(each for each in cuts if each < size)})
    return [
        FileRange(
            url=f"file://{path}",
            start=start,
            length=end - start,
            file_bytes=size,
            compression=compression_of(path.name),
            name_start=len(f"file://{path.parent}/"),
        )
        for start, end in pairwise(bounds)
    ]


def read(
    chosen: InputFormat, ranges: Sequence[FileRange], block_bytes: int = 1 << 20
) -> list[Records]:
    return list(reader_of(chosen).read(ranges, Storage(), block_bytes=block_bytes))


def objects(found: Sequence[Records]) -> list[Any]:
    for each in found:
        assert len(each.objects()) == each.record_count > 0
        assert each.extent()
    return [record for each in found for record in each.objects()]
