"""Answering ``VerifyChunk``: a replica held against its own sums, with every bad block named; and
``GetScrubTimes``: when that was done last."""

from contextlib import suppress

from minigfs.chunkserver.chunk_reads import PIECE_BYTES
from minigfs.chunkserver.messages import ChunksScrubbed, ChunkVerified, GetScrubTimes, VerifyChunk
from minigfs.chunkserver.scrub_times import ScrubTimes
from minigfs.chunkserver.sealed_chunk import OpenChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES
from minigfs.errors import CorruptChunk
from minigfs.transport.stream import Stream

__all__ = ["ChunkVerification"]

_BLOCKS_NAMED_MAX = 16


class ChunkVerification:
    """Reads with whatever speed the disk gives: somebody waits for the answer."""

    def __init__(self, store: ChunkStore, times: ScrubTimes) -> None:
        """``times`` are told of what was read whole."""
        self._store = store
        self._times = times

    def handle(self, request: VerifyChunk, stream: Stream) -> None:
        stream.send(self.verify(request))

    def tell_times(self, request: GetScrubTimes, stream: Stream) -> None:
        """Answer ``GetScrubTimes``."""
        stream.send(ChunksScrubbed(times_ms=tuple(map(self._times.of, request.handles))))

    def verify(self, request: VerifyChunk) -> ChunkVerified:
        known = self._store.find(request.handle)
        if known is None:
            return ChunkVerified(present=False, problem="not here")
        try:
            with self._store.open_chunk(known.handle, known.version) as chunk:
                bad_blocks = [] if request.quick else _bad_blocks(chunk)
                if not request.quick:
                    with suppress(CorruptChunk):  # no byte of a file; the master hears of it
                        chunk.read_slot()
                digest, table = chunk.header.digest, chunk.table
        except CorruptChunk as error:
            return ChunkVerified(
                present=self._store.find(request.handle) is not None,
                version=known.version,
                problem=error.message,
            )
        if not request.quick and not bad_blocks:
            self._times.note(request.handle)
        return ChunkVerified(
            present=True,
            version=known.version,
            length_bytes=known.length_bytes,
            digest=digest,
            problem=_problem(bad_blocks),
            bad_blocks=tuple(bad_blocks[:_BLOCKS_NAMED_MAX]),
            bad_block_count=len(bad_blocks),
            table=table if request.want_table else b"",
        )


def _problem(bad_blocks: list[int]) -> str:
    if not bad_blocks:
        return ""
    if len(bad_blocks) == 1:
        return f"block {bad_blocks[0]} has a wrong sum"
    return f"{len(bad_blocks)} blocks have wrong sums, the first is block {bad_blocks[0]}"


def _bad_blocks(chunk: OpenChunk) -> list[int]:
    length_bytes = chunk.header.length_bytes
    found: list[int] = []
    for start in range(0, length_bytes, PIECE_BYTES):
        end = min(start + PIECE_BYTES, length_bytes)
        try:
            chunk.read(start, end)
        except CorruptChunk:
            found += _bad_blocks_between(chunk, start, end)
    return found


def _bad_blocks_between(chunk: OpenChunk, start: int, end: int) -> list[int]:
    found: list[int] = []
    for block_start in range(start, end, CHECKSUM_BLOCK_BYTES):
        try:
            chunk.read(block_start, min(block_start + CHECKSUM_BLOCK_BYTES, end))
        except CorruptChunk:
            found.append(block_start // CHECKSUM_BLOCK_BYTES)
    return found
