"""What a heartbeat says of the chunks: everything, or what changed (GFS sections 2.6.2, 4.4).

The ledger remembers what the master has not acknowledged yet. A report is *taken*, sent, and then
either *delivered*, which forgets what it said, or lost, in which case the next one says it again.
A chunk that is sealed while a report is under way is not in that report and so stays for the next
one. A full report is of the moment it was begun at, and comes in parts, since the master answers
nobody else while it takes one in. Damage is told apart: a damaged chunk is still here, a last
resort of readers, and a master that begins to know this server hears of all of it again. Pure; the
caller's lock guards it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.ids import ChunkHandle

__all__ = ["ChunkReport", "ReportLedger"]

_CHUNKS_PER_REPORT_MAX = 1_000  # a few milliseconds of the master; the rest goes next time


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """What one heartbeat says; the last four fields are those of ``Heartbeat``."""

    full: bool
    chunks: tuple[StoredChunk, ...]
    gone: tuple[ChunkHandle, ...]
    report: int = 0
    part: int = 0
    more: bool = False
    damaged: tuple[ChunkHandle, ...] = ()


class ReportLedger:
    """Changes since the last delivered report; starts out owing a full one."""

    def __init__(self, last_report: int = 0) -> None:
        """``last_report`` is no lower than the number of any full report of an earlier process,
        which the master may still remember: process ids repeat, in a container at every start."""
        self._owes_full_report = True
        self._listener: object = None
        self._report = last_report
        self._parts: list[tuple[StoredChunk, ...]] = []  # of the full report that is under way
        self._part = 0
        self._new: dict[ChunkHandle, StoredChunk] = {}
        self._gone: dict[ChunkHandle, None] = {}
        self._damaged: dict[ChunkHandle, None] = {}  # all that are
        self._damage_untold: dict[ChunkHandle, None] = {}

    @property
    def damaged_count(self) -> int:
        return len(self._damaged)

    def sealed(self, chunk: StoredChunk) -> None:
        self._sound(chunk.handle)
        self._gone.pop(chunk.handle, None)
        self._new[chunk.handle] = chunk

    def lost(self, handle: ChunkHandle) -> None:
        """Deleted: it cannot be read here any more."""
        self._sound(handle)
        self._new.pop(handle, None)
        self._gone[handle] = None

    def is_damaged(self, handle: ChunkHandle) -> bool:
        return handle in self._damaged

    def damaged(self, handle: ChunkHandle) -> bool:
        """Here, and not what was written; whether that is news."""
        if handle in self._damaged:
            return False
        self._damaged[handle] = self._damage_untold[handle] = None
        return True

    def _sound(self, handle: ChunkHandle) -> None:
        self._damaged.pop(handle, None)
        self._damage_untold.pop(handle, None)

    def owe_full_report(self) -> None:
        """Owe one from its start."""
        self._owes_full_report = True
        self._parts = []
        self._damage_untold = dict(self._damaged)

    def take(self, all_chunks: Iterable[StoredChunk]) -> ChunkReport:
        """The next report; ``all_chunks`` are the good ones here now (used if it begins a full
        one)."""
        damaged = tuple(self._damage_untold)[:_CHUNKS_PER_REPORT_MAX]
        if self._owes_full_report:
            if not self._parts:
                self._begin_full_report(tuple(all_chunks))
            return ChunkReport(
                full=True,
                chunks=self._parts[self._part],
                gone=(),
                report=self._report,
                part=self._part,
                more=self._part + 1 < len(self._parts),
                damaged=damaged,
            )
        return ChunkReport(
            full=False,
            chunks=tuple(self._new.values())[:_CHUNKS_PER_REPORT_MAX],
            gone=tuple(self._gone)[:_CHUNKS_PER_REPORT_MAX],
            damaged=damaged,
        )

    def _begin_full_report(self, chunks: tuple[StoredChunk, ...]) -> None:
        """It says all that happened before now."""
        self._report += 1
        self._part = 0
        size = _CHUNKS_PER_REPORT_MAX
        self._parts = [chunks[i : i + size] for i in range(0, len(chunks), size)] or [()]
        self._new = {}
        self._gone = {}

    def delivered(self, report: ChunkReport) -> None:
        """The master has it: forget what it said, but nothing that happened since it was taken."""
        for handle in report.damaged:
            self._damage_untold.pop(handle, None)
        if report.full:
            self._part_delivered(report)
            return
        for chunk in report.chunks:
            if self._new.get(chunk.handle) == chunk:
                del self._new[chunk.handle]
        for handle in report.gone:
            self._gone.pop(handle, None)

    def heard_by(self, listener: object) -> None:
        """Who took the last report. If that is not who took those before, it may have missed some,
        and those who come after it may miss this one: a master that does not know yet that it leads
        no more takes reports as well."""
        if self._listener not in (None, listener):
            self.owe_full_report()
        self._listener = listener

    def _part_delivered(self, report: ChunkReport) -> None:
        if not self._parts or (report.report, report.part) != (self._report, self._part):
            return  # a full report was asked for anew meanwhile
        self._part += 1
        if not report.more:
            self._owes_full_report = False
            self._parts = []
