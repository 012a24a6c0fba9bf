"""What a heartbeat says of the chunks: everything, or what changed (GFS sections 2.6.2, 4.4).

The ledger remembers what the master has not acknowledged yet. A report is *taken*, sent, and then
either *delivered*, which forgets what it said, or lost, in which case the next one says it again.
A chunk that is sealed while a report is under way is not in that report and so stays for the next
one. Pure; the caller's lock guards it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.ids import ChunkHandle

__all__ = ["ChunkReport", "ReportLedger"]

_CHANGES_PER_REPORT_MAX = 50_000  # about 1 MB on the wire; the rest goes with the next heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    full: bool
    chunks: tuple[StoredChunk, ...]
    gone: tuple[ChunkHandle, ...]


class ReportLedger:
    """Changes since the last delivered report; starts out owing a full one."""

    def __init__(self) -> None:
        self._owes_full_report = True
        self._new: dict[ChunkHandle, StoredChunk] = {}
        self._gone: dict[ChunkHandle, None] = {}

    def sealed(self, chunk: StoredChunk) -> None:
        self._gone.pop(chunk.handle, None)
        self._new[chunk.handle] = chunk

    def lost(self, handle: ChunkHandle) -> None:
        """Deleted: it cannot be read here any more."""
        self._new.pop(handle, None)
        self._gone[handle] = None

    def owe_full_report(self) -> None:
        self._owes_full_report = True

    def take(self, all_chunks: Iterable[StoredChunk]) -> ChunkReport:
        """The next report; ``all_chunks`` are the good ones here now (used if it is a full one)."""
        if self._owes_full_report:
            return ChunkReport(full=True, chunks=tuple(all_chunks), gone=())
        return ChunkReport(
            full=False,
            chunks=tuple(self._new.values())[:_CHANGES_PER_REPORT_MAX],
            gone=tuple(self._gone)[:_CHANGES_PER_REPORT_MAX],
        )

    def delivered(self, report: ChunkReport) -> None:
        """The master has it: forget what it said, but nothing that happened since it was taken."""
        if report.full:
            self._owes_full_report = False
            known = {chunk.handle for chunk in report.chunks}
            # A loss of something the full report still listed happened after it was taken.
            self._gone = {handle: None for handle in self._gone if handle in known}
        for chunk in report.chunks:
            if self._new.get(chunk.handle) == chunk:
                del self._new[chunk.handle]
        for handle in report.gone:
            self._gone.pop(handle, None)
