"""Is a file of sort-benchmark records in order? As ``valsort`` 1.5 says it.

A range of records is summed up by its first and last record, how many there are, how many are
smaller than the one before (unordered) or equal to it (duplicates), and a checksum: the sum of the
CRC-32 of each record, which does not depend on their order. So equal checksums of a sort's input
and output say that nothing was lost, added or changed. Summaries of ranges that follow each other
join to that of both, which lets ranges be looked at in parallel, and parts on their own.

Records have 100 bytes; keys, their first 10, compare as unsigned bytes.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimr.datasets.gensort import KEY_BYTES, RECORD_BYTES
from minimr.errors import UnreadableInput

__all__ = ["Summary", "checksum", "join", "read_summaries", "report", "summarize", "validate"]

Octets: TypeAlias = NDArray[np.uint8]

_CHUNK_RECORDS = 1 << 15
_RANGE_BYTES = 64 << 20  # looked at by one process at a time
_PARALLEL_BYTES_MIN = 256 << 20  # below, starting processes takes longer than looking
_SUMMARY_BYTES = 280
_FIVE_NUMBERS = struct.Struct("<10Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of at least one record. ``first_unordered`` counts from 0; 0 says that there is none."""

    first_unordered: int
    unordered_count: int
    record_count: int
    duplicate_count: int
    checksum: int
    first_record: bytes
    last_record: bytes

    def to_bytes(self) -> bytes:
        """The 280 bytes that ``valsort -o`` writes."""
        numbers = (
            self.first_unordered, self.unordered_count, self.record_count,
            self.duplicate_count, self.checksum,
        )  # fmt: skip
        halves = [half for number in numbers for half in (number >> 64, number & (1 << 64) - 1)]
        return _FIVE_NUMBERS.pack(*halves) + self.first_record + self.last_record

    @classmethod
    def from_bytes(cls, content: bytes) -> "Summary":
        """What `to_bytes` wrote."""
        halves = _FIVE_NUMBERS.unpack_from(content)
        numbers = [high << 64 | low for high, low in zip(halves[0::2], halves[1::2], strict=True)]
        first_unordered, unordered_count, record_count, duplicate_count, total = numbers
        at = _FIVE_NUMBERS.size
        return cls(
            first_unordered=first_unordered,
            unordered_count=unordered_count,
            record_count=record_count,
            duplicate_count=duplicate_count,
            checksum=total,
            first_record=content[at : at + RECORD_BYTES],
            last_record=content[at + RECORD_BYTES :],
        )


def summarize(records: Octets) -> Summary:
    """Of the rows of an array; at least one."""
    upper = np.ascontiguousarray(records[:, :8]).view(">u8").ravel().astype(np.uint64)
    lower = np.ascontiguousarray(records[:, 8:KEY_BYTES]).view(">u2").ravel()
    is_same = upper[1:] == upper[:-1]
    unordered = upper[1:] < upper[:-1]
    unordered |= is_same & (lower[1:] < lower[:-1])
    duplicates = is_same & (lower[1:] == lower[:-1])
    unordered_count = int(np.count_nonzero(unordered))
    return Summary(
        first_unordered=int(unordered.argmax()) + 1 if unordered_count else 0,
        unordered_count=unordered_count,
        record_count=len(records),
        duplicate_count=int(np.count_nonzero(duplicates)),
        checksum=checksum(records),
        first_record=records[0].tobytes(),
        last_record=records[-1].tobytes(),
    )


def checksum(records: Octets) -> int:
    """The sum of the CRC-32 of each row."""
    rows: list[bytes] = np.ascontiguousarray(records).view(f"V{RECORD_BYTES}").ravel().tolist()
    return sum(map(zlib.crc32, rows))


def join(one: Summary, other: Summary) -> Summary:
    """Of the records of ``one``, then those of ``other``."""
    before, after = one.last_record[:KEY_BYTES], other.first_record[:KEY_BYTES]
    first_unordered = one.first_unordered
    if not first_unordered and after < before:
        first_unordered = one.record_count
    if not first_unordered and other.first_unordered:
        first_unordered = one.record_count + other.first_unordered
    return Summary(
        first_unordered=first_unordered,
        unordered_count=one.unordered_count + other.unordered_count + (after < before),
        record_count=one.record_count + other.record_count,
        duplicate_count=one.duplicate_count + other.duplicate_count + (after == before),
        checksum=one.checksum + other.checksum,
        first_record=one.first_record,
        last_record=other.last_record,
    )


def validate(url: str, *, processes: int = 0) -> Summary:
    """Of a file, or of all parts of a job's output in order of name; local or any fsspec URL.

    Big inputs are looked at by processes, 0 says: one a processor.

    Raises
    ------
    UnreadableInput
        There is no record at all, or a file that does not hold whole records.
    """
    ranges = [each for path, size in _files_of(url) for each in _ranges(path, size)]
    if not ranges:
        raise UnreadableInput(f"{url} holds no records")
    total_bytes = sum(length for _, _, length in ranges)
    processes = processes or len(os.sched_getaffinity(0))
    if processes == 1 or total_bytes < _PARALLEL_BYTES_MIN:
        return reduce(join, map(_summarize_range, ranges))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return reduce(join, pool.map(_summarize_range, ranges))


def read_summaries(content: bytes) -> Summary:
    """Joins the summaries of parts, in the order of the parts (``valsort -s``)."""
    if not content or len(content) % _SUMMARY_BYTES:
        raise UnreadableInput(
            f"{len(content)} bytes are no summaries: each has {_SUMMARY_BYTES} bytes"
        )
    starts = range(0, len(content), _SUMMARY_BYTES)
    return reduce(join, (Summary.from_bytes(content[at : at + _SUMMARY_BYTES]) for at in starts))


_Range = tuple[str, int, int]  # URL, start, length


def _files_of(url: str) -> Iterator[tuple[str, int]]:
    """URL and size of the file, or of what is visible in the directory, sorted by name."""
    import fsspec

    file_system, path = fsspec.url_to_fs(url)
    if file_system.isfile(path):
        yield url, file_system.size(path)
        return
    names = sorted(
        info["name"].rpartition("/")[2]
        for info in file_system.ls(path, detail=True)
        if info["type"] == "file"
    )
    for name in names:
        if not name.startswith(("_", ".")):
            yield f"{url.rstrip('/')}/{name}", file_system.size(f"{path.rstrip('/')}/{name}")


def _ranges(url: str, size: int) -> Iterable[_Range]:
    if size % RECORD_BYTES:
        raise UnreadableInput(
            f"{url} has {size} bytes: {size % RECORD_BYTES} of them are behind its last whole "
            f"record of {RECORD_BYTES}"
        )
    step = _RANGE_BYTES // RECORD_BYTES * RECORD_BYTES
    return [(url, start, min(step, size - start)) for start in range(0, size, step)]


def _summarize_range(wanted: _Range) -> Summary:
    import fsspec

    url, start, length = wanted
    file_system, path = fsspec.url_to_fs(url)
    with file_system.open(path, "rb", block_size=_CHUNK_RECORDS * RECORD_BYTES) as file:
        file.seek(start)
        return reduce(join, _summaries(file, length, url))


def _summaries(file: IO[bytes], length: int, url: str) -> Iterator[Summary]:
    left = length
    while left:
        content: Any = file.read(min(left, _CHUNK_RECORDS * RECORD_BYTES))
        if not content or len(content) % RECORD_BYTES:
            raise UnreadableInput(f"{url} became shorter while it was read")
        left -= len(content)
        yield summarize(np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES))


def report(found: Summary) -> Sequence[str]:
    """What ``valsort`` prints: the last line says whether all records are in order."""
    lines = []
    if found.unordered_count:
        lines.append(f"First unordered record is record {found.first_unordered}")
    lines += [
        f"Records: {found.record_count}",
        f"Checksum: {found.checksum:x}",
        f"Duplicate keys: {found.duplicate_count}",
    ]
    if found.unordered_count:
        return [*lines, f"ERROR - there are {found.unordered_count} unordered records"]
    return [*lines, "SUCCESS - all records are in order"]
