"""Map outputs on their way to a reduce task: read from this host's disk, or fetched from a worker.

A request names a job, an attempt, the file's stem and a partition, never a path: the server makes
the path itself from names it has checked. The frames of a partition lie together in the file, so
the answer is that one range in pieces, with the part of the index that describes it; whoever reads
verifies. What is fetched stays in memory up to a bound for all outputs together, and goes to local
files beyond it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minigfs.errors import MinigfsError
from minigfs.transport.bulk_server import BulkHandler
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import Empty, Message, Request
from minigfs.transport.stream import Stream
from minimr.errors import SegmentDamaged, SegmentUnavailable
from minimr.ids import AttemptId
from minimr.messages import MapOutput
from minimr.pairs import Pairs
from minimr.shuffle.merge import SortedRun, run_of
from minimr.shuffle.places import segment_file
from minimr.shuffle.segment import (
    FrameRef,
    SegmentReader,
    check_space,
    decode_frame,
    decode_schema,
    verify_frame,
)

__all__ = [
    "FetchSegment",
    "FetchedPartition",
    "MapOutputsLost",
    "Missed",
    "SegmentFetcher",
    "SegmentHeader",
    "segment_handlers",
]

Missed = tuple[MapOutput, MinigfsError]
"""An output that could not be fetched, and why."""

PIECE_BYTES = 1 << 20
_READ_AT_ONCE_BYTES_MAX = 16 << 10
FETCH_THREAD_COUNT = 4  # enough to keep a disk and a network busy
FETCH_TIMEOUT_MS = 10_000  # for the next piece, not for all of them


class SegmentHeader(Message, frozen=True):
    schema: bytes
    frames: tuple[FrameRef, ...]
    compression: str


class FetchSegment(Request[SegmentHeader], frozen=True, tag="segment.fetch"):
    """One partition of one map output; pieces follow the header as payloads of ``Empty``.

    ``shared`` and ``start`` are as in `MapOutput`; ``size_bytes`` 0: up to the file's end.
    """

    attempt: AttemptId
    partition: int
    digest: str
    shared: str = ""
    start: int = 0
    size_bytes: int = 0


class MapOutputsLost(SegmentUnavailable):
    """Map outputs that cannot be had, by their attempts: exactly those maps must run again.

    ``damaged_count`` of them were there, with a wrong sum.
    """

    def __init__(
        self, message: str, attempts: tuple[AttemptId, ...] = (), damaged_count: int = 0
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.damaged_count = damaged_count


def segment_handlers(scratch: Path) -> Mapping[type[Request[Any]], BulkHandler]:
    """Handlers for a `BulkServer` that serves the segments below ``scratch``."""

    def fetch(request: FetchSegment, stream: Stream) -> None:
        attempt = request.attempt
        path = segment_file(scratch, attempt.task.job_id, request.shared or attempt.file_stem)
        with SegmentReader(path, request.start, request.size_bytes or None) as reader:
            if request.digest != reader.digest:
                raise SegmentDamaged(f"segment {path} is not the one that was committed")
            frames = reader.frames_of(request.partition)
            stream.send(
                SegmentHeader(
                    schema=reader.schema_message, frames=frames, compression=reader.compression
                )
            )
            for piece in reader.read_pieces(frames, PIECE_BYTES):
                stream.send(Empty(), piece)

    return {FetchSegment: fetch}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPartition:
    """One map output's part of a reduce partition, on this host; sums are checked while reading."""

    output: MapOutput
    header: SegmentHeader
    path: Path | None  # None: ``content`` holds the frames
    content: bytes = b""
    shift: int = 0  # where the first frame lies, in ``content`` or the file, is its offset - shift

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        return self.header.frames

    @property
    def size_bytes(self) -> int:
        return sum(frame.length for frame in self.frames)

    def as_run(self, on_read: Callable[[int], None]) -> SortedRun:
        """The sorted pairs; ``on_read`` is told the bytes of each frame."""
        return run_of(self.frames, self._read(on_read))

    def _read(self, on_read: Callable[[int], None]) -> Iterator[Pairs]:
        if not self.frames:
            return
        where = self.output.path
        try:
            schema = decode_schema(self.header.schema, where)
            for frame, content in self._contents():
                verify_frame(content, frame, where)
                pairs = decode_frame(content, frame, schema, self.header.compression, where)
                on_read(frame.length)
                yield pairs
        except SegmentUnavailable as error:
            raise MapOutputsLost(
                error.message, (self.output.attempt,), int(isinstance(error, SegmentDamaged))
            ) from error

    def _contents(self) -> Iterator[tuple[FrameRef, bytes]]:
        if self.path is None:
            for frame in self.frames:
                start = frame.offset - self.shift
                yield frame, self.content[start : start + frame.length]
            return
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.frames[0].offset - self.shift)
                for frame in self.frames:  # they lie one after the other
                    yield frame, file.read(frame.length)
        except OSError as error:
            raise SegmentUnavailable(f"segment {self.path}: {error.strerror}") from error


class SegmentFetcher:
    """Brings the map outputs of a partition to this host. Thread-safe.

    Parameters
    ----------
    host : str
        This host's label: outputs of the same host are read from the file.
    pool : ConnectionPool, optional
        Without one, only outputs on this host can be had.
    """

    def __init__(self, host: str, pool: ConnectionPool | None = None) -> None:
        self._host = host
        self._pool = pool

    def fetch(
        self,
        outputs: Sequence[MapOutput],
        partition: int,
        spill_directory: Path,
        *,
        memory_bytes: int,
        map_count: int,
        more: Callable[[Sequence[Missed]], Sequence[MapOutput]] | None = None,
    ) -> list[FetchedPartition]:
        """Those of all ``map_count`` maps, in the order of the maps. Up to ``memory_bytes`` of what
        comes from other hosts stay in memory.

        ``outputs`` are those that are known; ``more`` is told which of them could not be had, waits
        for others, or for new places of the same, and gives those.

        Raises
        ------
        MapOutputsLost
            There is no ``more``: names every output that cannot be had, not only the first.
        OSError
            This host's disk does not take what does not fit into memory.
        """
        found: dict[int, FetchedPartition] = {}
        with (
            closing(_Call(partition, spill_directory, memory_bytes)) as call,
            ThreadPoolExecutor(FETCH_THREAD_COUNT) as threads,
        ):
            while True:
                wanted = [output for output in outputs if output.map_index not in found]
                missed = self._fetch_known(wanted, call, threads, found)
                if len(found) == map_count:
                    return [found[index] for index in sorted(found)]
                if more is None:
                    raise _lost(missed, map_count)
                outputs = more(missed)

    def _fetch_known(
        self,
        outputs: Sequence[MapOutput],
        call: "_Call",
        threads: ThreadPoolExecutor,
        found: dict[int, FetchedPartition],
    ) -> list[Missed]:
        """Add to ``found`` what can be had; the others, and why."""
        call.dead.clear()
        tried = [
            output
            if output.host == self._host or self._pool is None
            else threads.submit(self._fetch_remote, output, call)
            for output in outputs
        ]
        missed: list[Missed] = []
        for output, each in zip(outputs, tried, strict=True):
            try:
                if isinstance(each, MapOutput):
                    found[output.map_index] = self._fetch_here(output, call)
                else:
                    found[output.map_index] = each.result()
            except MinigfsError as error:
                missed.append((output, error))
        return missed

    def _fetch_here(self, output: MapOutput, call: "_Call") -> FetchedPartition:
        try:
            return _read_here(output, call)
        except SegmentUnavailable:
            if self._pool is None or not output.address:
                raise
        # The same host label need not mean the same view of the disk.
        return self._fetch_remote(output, call)

    def _fetch_remote(self, output: MapOutput, call: "_Call") -> FetchedPartition:
        assert self._pool is not None
        if output.address in call.dead:
            raise SegmentUnavailable(call.dead[output.address])
        request = FetchSegment(
            attempt=output.attempt,
            partition=call.partition,
            digest=output.digest,
            shared=output.shared,
            start=output.start,
            size_bytes=output.size_bytes,
        )
        try:
            with self._pool.open_stream(
                output.address, request, timeout_ms=FETCH_TIMEOUT_MS
            ) as stream:
                return _receive(stream, output, call)
        except SegmentUnavailable:
            raise
        except MinigfsError as error:
            call.dead[output.address] = error.message
            raise


def _lost(missed: Sequence[Missed], map_count: int) -> MapOutputsLost:
    why = missed[0][1] if missed else "nobody says where they are"
    return MapOutputsLost(
        f"{len(missed)} of {map_count} map outputs cannot be had: {why}",
        tuple(output.attempt for output, _ in missed),
        sum(isinstance(error, SegmentDamaged) for _, error in missed),
    )


class _Call:
    """What the threads of one fetch share."""

    def __init__(self, partition: int, spill_directory: Path, memory_bytes: int) -> None:
        self.partition = partition
        self.dead: dict[str, str] = {}  # workers that do not answer are asked once
        self._spill_directory = spill_directory
        self._lock = threading.Lock()
        self._memory_bytes = memory_bytes
        self._files: dict[int, BinaryIO] = {}  # one a thread, however many outputs there are

    def spill_file(self) -> BinaryIO:
        """Where this thread puts what does not fit into memory, at its end."""
        thread = threading.get_ident()
        with self._lock:
            if thread not in self._files:
                path = self._spill_directory / f"fetch-{len(self._files)}"
                self._files[thread] = path.open("ab", buffering=0)
            return self._files[thread]

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def takes_memory(self, size_bytes: int) -> bool:
        """Reserve memory for one output; false if it must go to a file."""
        with self._lock:
            if size_bytes > self._memory_bytes:
                return False
            self._memory_bytes -= size_bytes
            return True


def _read_here(output: MapOutput, call: _Call) -> FetchedPartition:
    """Small ones at once, as each look at a file costs more than they do."""
    path = Path(output.path)
    with SegmentReader(path, output.start, output.size_bytes) as reader:
        if output.digest != reader.digest:
            raise SegmentDamaged(f"segment {path} is not the one that was committed")
        frames = reader.frames_of(call.partition)
        header = SegmentHeader(
            schema=reader.schema_message, frames=frames, compression=reader.compression
        )
        size_bytes = sum(frame.length for frame in frames)
        if size_bytes <= _READ_AT_ONCE_BYTES_MAX and call.takes_memory(size_bytes):
            content = b"".join(reader.read_pieces(frames, PIECE_BYTES))
            shift = frames[0].offset if frames else 0
            return FetchedPartition(
                output=output, header=header, path=None, content=content, shift=shift
            )
        return FetchedPartition(output=output, header=header, path=path, shift=-output.start)


def _receive(stream: Stream, output: MapOutput, call: _Call) -> FetchedPartition:
    header, _ = stream.receive(SegmentHeader, timeout_ms=FETCH_TIMEOUT_MS)
    left = sum(frame.length for frame in header.frames)
    shift = header.frames[0].offset if header.frames else 0
    if call.takes_memory(left):
        content = b"".join(_pieces(stream, left))
        return FetchedPartition(
            output=output, header=header, path=None, content=content, shift=shift
        )
    file = call.spill_file()
    check_space(Path(file.name).parent, left)
    start = file.tell()
    for piece in _pieces(stream, left):
        _write_all(file, piece)
    return FetchedPartition(output=output, header=header, path=Path(file.name), shift=shift - start)


def _write_all(file: BinaryIO, piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def _pieces(stream: Stream, left: int) -> Iterator[memoryview]:
    while left > 0:
        _, piece = stream.receive(Empty, timeout_ms=FETCH_TIMEOUT_MS)
        left -= len(piece)
        if not piece or left < 0:
            raise SegmentUnavailable(f"{stream.peer} sent another number of bytes than announced")
        yield piece
