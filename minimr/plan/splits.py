"""Input files to map tasks (MapReduce section 3.1, M pieces), and how many partitions to make.

A file is cut at multiples of the split size, so that with a size that divides the chunk size each
range lies in one chunk. Small files share a split until it is full. Compressed files, and those of
formats that must be read from their start, are never cut; compressed ones weigh what they probably
unpack to. The order of files and bytes is kept: all values of a key reach its reducer in that
order.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from minimr.errors import JobUsageError
from minimr.messages import FileRange, Split

__all__ = [
    "SPLIT_BYTES_MAX",
    "SPLIT_BYTES_MIN",
    "SPLIT_COUNT_MAX",
    "InputFile",
    "StoredRange",
    "default_partition_count",
    "default_split_bytes",
    "estimated_bytes",
    "plan_splits",
]

SPLIT_BYTES_MIN = 8 << 20  # below, a task costs more to hand out than to run
SPLIT_BYTES_MAX = 64 << 20  # one chunk of minigfs, the paper's upper bound as well
SPLIT_COUNT_MAX = 100_000  # a coordinator's memory and each decision grow with it

_SPLITS_PER_SLOT = 4  # at most, by default: slots that finish early take work from slow ones
_LAST_SPLIT_SLACK = 1.1  # a rest of less than a tenth joins the split before it, as in Hadoop
_PACKED_RATIO = 8  # logs and text pack 5 to 12 times
_OPEN_COST_BYTES = 64 << 10  # opening a file takes about as long as reading this much
_PARTITION_BYTES = 256 << 20  # input per reduce partition, when the user does not say
_HOSTS_MAX = 5  # locality hints past the replicas of a chunk say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRange:
    """Bytes ``[start, start + length)`` of a file have a copy on each of ``hosts``."""

    start: int
    length: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    url: str
    size_bytes: int  # as stored: packed, if compressed
    compression: str = ""
    is_cut: bool = True  # False: its format cannot begin to be read inside it
    name_start: int = 0  # where in ``url`` its path below its input begins
    stored: tuple[StoredRange, ...] = ()  # in order; empty: unknown, or the same for all workers


def default_split_bytes(total_bytes: int, slots: int) -> int:
    """A power of two, so that borders of splits fall on borders of chunks; rounded up, because each
    split costs a segment, and a bound on how many there are per slot is what is wanted."""
    wanted = -(-total_bytes // (max(slots, 1) * _SPLITS_PER_SLOT))
    return min(max(1 << (wanted - 1).bit_length(), SPLIT_BYTES_MIN), SPLIT_BYTES_MAX)


def default_partition_count(total_bytes: int, slots: int) -> int:
    return min(max(1, -(-total_bytes // _PARTITION_BYTES)), max(slots, 1))


def estimated_bytes(files: Sequence[InputFile]) -> int:
    """Input bytes as the job will see them: compressed files count what they probably unpack to."""
    return sum(map(_weight, files))


def plan_splits(
    files: Sequence[InputFile], *, split_bytes: int | None, slots: int
) -> tuple[Split, ...]:
    """At least one split, so that an empty input runs through the same code as any other.

    Parameters
    ----------
    files : sequence of InputFile
        In the order their records have.
    split_bytes : int, optional
        Default: a few splits per slot, 8 to 64 MiB each.
    slots : int
        Map tasks that can run at the same time.
    """
    if split_bytes is None:
        split_bytes = default_split_bytes(estimated_bytes(files), slots)
    if split_bytes < 1:
        raise JobUsageError(f"split size {split_bytes}: must be at least 1 byte")
    _check_split_count(files, split_bytes)
    pieces = list(_split_pieces(files, split_bytes)) or [[]]
    return tuple(_split(index, piece) for index, piece in enumerate(pieces))


def _check_split_count(files: Sequence[InputFile], split_bytes: int) -> None:
    cut_bytes = sum(file.size_bytes for file in files if _is_cut(file))
    if cut_bytes // split_bytes > SPLIT_COUNT_MAX:
        raise JobUsageError(
            f"split size {split_bytes}: makes {cut_bytes // split_bytes:,} map tasks, more than "
            f"{SPLIT_COUNT_MAX:,}: use at least {-(-cut_bytes // SPLIT_COUNT_MAX)} bytes"
        )


def _is_cut(file: InputFile) -> bool:
    return file.is_cut and not file.compression


_Piece = list[tuple[InputFile, FileRange]]


def _weight(file: InputFile) -> int:
    return file.size_bytes * (_PACKED_RATIO if file.compression else 1)


def _split_pieces(files: Iterable[InputFile], split_bytes: int) -> Iterator[_Piece]:
    group: _Piece = []
    group_weight = 0
    for file in files:
        if file.size_bytes == 0 and file.is_cut:
            continue  # it has no records
        ranges = _ranges(file, split_bytes)
        weight = _weight(file) + _OPEN_COST_BYTES
        if group and (len(ranges) > 1 or group_weight + weight > split_bytes):
            yield group
            group, group_weight = [], 0
        if len(ranges) > 1:
            yield from ([(file, piece)] for piece in ranges)
        else:
            group.append((file, ranges[0]))
            group_weight += weight
    if group:
        yield group


def _ranges(file: InputFile, split_bytes: int) -> list[FileRange]:
    size = file.size_bytes
    starts = [0]
    if _is_cut(file):
        while size - starts[-1] > split_bytes * _LAST_SPLIT_SLACK:
            starts.append(starts[-1] + split_bytes)
    ends = [*starts[1:], size]
    return [
        FileRange(
            url=file.url,
            start=start,
            length=end - start,
            file_bytes=size,
            compression=file.compression,
            name_start=file.name_start,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def _split(index: int, piece: _Piece) -> Split:
    return Split(
        index=index,
        ranges=tuple(file_range for _, file_range in piece),
        size_bytes=sum(file_range.length for _, file_range in piece),
        hosts=_hosts(piece),
    )


def _hosts(piece: _Piece) -> tuple[str, ...]:
    """Hosts that store most of the piece first; names decide ties, so that plans are stable."""
    bytes_by_host: dict[str, int] = {}
    for file, wanted in piece:
        wanted_end = wanted.start + wanted.length
        first = bisect_right(file.stored, wanted.start, key=attrgetter("start")) - 1
        for number in range(max(first, 0), len(file.stored)):
            stored = file.stored[number]
            if stored.start >= wanted_end:
                break
            overlap_start = max(stored.start, wanted.start)
            overlap = min(stored.start + stored.length, wanted_end) - overlap_start
            for host in stored.hosts if overlap > 0 else ():
                bytes_by_host[host] = bytes_by_host.get(host, 0) + overlap
    best_first = sorted(bytes_by_host, key=lambda host: (-bytes_by_host[host], host))
    return tuple(best_first[:_HOSTS_MAX])
