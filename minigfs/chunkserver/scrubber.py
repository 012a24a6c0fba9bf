"""The thread that looks after what nobody reads: scrubs, and empties the trash (GFS 5.2).

A *scrub* reads every byte of every chunk and compares it with its sums (``scrub_schedule``), and
the table of records of what was appended to. What is found goes into the store's ledger, and with
the next heartbeat to the master. The trash gives up what has rested long enough. The thread takes a
small share of the time of one core, and of the disk what is left by others. What files say of
themselves is looked at more often (``inspector``).
"""

import logging
import threading
from contextlib import suppress

import msgspec

from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.chunkserver.chunk_reads import PIECE_BYTES
from minigfs.chunkserver.scrub_schedule import (
    CHUNK_COST_BYTES,
    RATE_MIN,
    SCRUB_BOUND_MS,
    ScrubRecord,
    ScrubSchedule,
)
from minigfs.chunkserver.scrub_times import ScrubTimes
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import CorruptChunk
from minigfs.ports import Clock, Disk, SystemClock

__all__ = ["Scrubber"]

logger = logging.getLogger(__name__)

_RECORD = "scrub.json"
_RECORD_INTERVAL_MS = 60_000
_TIMES_INTERVAL_MS = 600_000
_TRASH_INTERVAL_MS = 10_000
_IDLE_S = 1.0
_PUT_OFF_S = 10.0
_STOP_TIMEOUT_S = 3.0


class Scrubber:
    """Runs from ``start`` to ``stop``."""

    def __init__(
        self,
        store: ChunkStore,
        disk: Disk,
        *,
        bound_ms: int = SCRUB_BOUND_MS,
        rate_min: int = RATE_MIN,
        clock: Clock | None = None,
    ) -> None:
        """``rate_min``: bytes a second that are read at least, while a pass is under way."""
        self._store = store
        self._disk = disk
        self._clock: Clock = clock or SystemClock()
        self._schedule = ScrubSchedule(_read_record(disk), bound_ms=bound_ms, rate_min=rate_min)
        self.times = ScrubTimes(disk, self._clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="minigfs-scrubber", daemon=True)
        self._trash_due_ms = self._record_due_ms = self._times_due_ms = 0
        self.scrubbed_bytes = 0  # since the start

    @property
    def last_scrubbed_ms(self) -> int:
        """Everything that is here was read, or written, since then; 0 before the first pass."""
        return self._schedule.record.complete_ms

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)
        with suppress(OSError):  # it is for people to look at
            self._save_times()

    def _run(self) -> None:
        _take_what_others_leave()
        while not self._stopping.is_set():
            try:
                self._do_what_is_due()
            except OSError as error:  # a full disk, no descriptors left: both pass
                logger.warning("scrubbing is put off: %s", error)
                self._stopping.wait(_PUT_OFF_S)

    def _do_what_is_due(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._trash_due_ms:
            self._trash_due_ms = now_ms + _TRASH_INTERVAL_MS
            self._store.trash.purge()
        was_running = self._schedule.record.is_running
        if not self.scrub_next():
            self._stopping.wait(_IDLE_S)
        if was_running != self._schedule.record.is_running or now_ms >= self._record_due_ms:
            self._record_due_ms = now_ms + _RECORD_INTERVAL_MS
            self._write_record()
        if was_running != self._schedule.record.is_running or now_ms >= self._times_due_ms:
            self._times_due_ms = now_ms + _TIMES_INTERVAL_MS
            self._save_times()

    def scrub_next(self) -> bool:
        """Read the chunk whose turn it is; False if there is none for now."""
        chunk = self._schedule.next(self._store.known_chunks, self._clock.now_ms())
        if chunk is None:
            return False
        with suppress(CorruptChunk):
            self._scrub(chunk)
            if not self._stopping.is_set():
                self.times.note(chunk.handle)
        if not self._stopping.is_set():
            self._schedule.done(chunk.handle)
        return True

    def _scrub(self, chunk: StoredChunk) -> None:
        rate = self._schedule.rate(self._store.stored_bytes, self._store.chunk_count)
        if self._stopping.wait(CHUNK_COST_BYTES / rate):
            return
        with self._store.open_chunk(chunk.handle, chunk.version) as opened:
            for start in range(0, chunk.length_bytes, PIECE_BYTES):
                end = min(start + PIECE_BYTES, chunk.length_bytes)
                opened.read(start, end)
                self.scrubbed_bytes += end - start
                if self._stopping.wait((end - start) / rate):
                    return
            opened.read_slot()

    def _save_times(self) -> None:
        self.times.save(chunk.handle for chunk in self._store.known_chunks())

    def _write_record(self) -> None:
        part = f"{_RECORD}.part"
        with self._disk.open(part, create=True) as file:
            file.truncate(0)
            file.write_at(0, msgspec.json.encode(self._schedule.record))
            file.sync()
        self._disk.rename(part, _RECORD)


def _read_record(disk: Disk) -> ScrubRecord:
    """Lost or damaged, it costs a pass."""
    if not disk.exists(_RECORD):
        return ScrubRecord()
    with disk.open(_RECORD) as file:
        content = file.read_at(0, file.size_bytes())
    try:
        return msgspec.json.decode(content, type=ScrubRecord)
    except msgspec.DecodeError as error:
        logger.warning("%s cannot be read (%s): scrubbing begins anew", _RECORD, error)
        return ScrubRecord()


def _take_what_others_leave() -> None:
    """Of the disk's time, where its scheduler knows such a thing."""
    import psutil

    with suppress(psutil.Error, OSError):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
