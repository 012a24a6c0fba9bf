"""Keeping the master from discarding files that are being written, as long as they are.

Two daemon threads per client process look after all open writers. One renews their leases, and
discards the temporary file of a writer that is garbage collected instead of closed. The other keeps
a call waiting at the master, whose connection ends with the process, however it ends: then the
master gives up within seconds what the process was writing. A process that ends in order says
goodbye.

A writer that opens or closes wakes neither thread, since most live for milliseconds: it enters
itself into a table, by single atomic steps that a finaliser may make, too.
"""

import atexit
import itertools
import os
import queue
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from minigfs.client.masters import MasterCaller
from minigfs.errors import MinigfsError
from minigfs.ids import FileId
from minigfs.master.messages import HOLD_MS, DiscardFile, HoldWriters, RenewWriters
from minigfs.ports import SystemClock

__all__ = ["WriterLeases"]

_RENEW_MS = 10_000  # a lease lasts 60 s: five renewals may be lost
_GOODBYE_WAIT_S = 0.5  # a living master answers in a few milliseconds
_SHORT_LIFE_S = 0.05  # writers that live no longer than this are not worth a connection
_RETRY_S = 0.5
_GONE = object()


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """Files that shall be discarded soon; ``told`` is set once the master was told, or could not
    be."""

    file_ids: tuple[FileId, ...]
    told: threading.Event = field(default_factory=threading.Event)


class WriterLeases:
    """Thread-safe; after a fork the child starts anew, with the writers it opens itself."""

    def __init__(self, masters: MasterCaller) -> None:
        self._masters = masters
        self._by_process: dict[int, _Process] = {}

    @property
    def holder(self) -> str:
        """The name under which this process opens writers."""
        return self._here().holder

    def opened(self, file_id: FileId) -> None:
        self._here().opened(file_id)

    def closed(self, file_id: FileId) -> None:
        """Safe in a finaliser."""
        process = self._by_process.get(os.getpid())
        if process is not None:
            process.closed(file_id)

    def abandoned(self, file_id: FileId) -> threading.Event:
        """Discard the file soon: set once the master was told, or could not be. Safe in a
        finaliser."""
        given_up = _GivenUp((file_id,))
        process = self._by_process.get(os.getpid())
        if process is None:
            given_up.told.set()  # the parent of this fork opened the file, and looks after it
        else:
            process.given_up.put(given_up)
        return given_up.told

    def _here(self) -> "_Process":
        process = self._by_process.get(os.getpid())
        if process is None:
            made = _Process(self._masters)
            process = self._by_process.setdefault(os.getpid(), made)
            if process is made:
                made.start()
        return process


class _Process:
    """The open writers of one process, and the threads that look after them."""

    def __init__(self, masters: MasterCaller) -> None:
        self._masters = masters
        self.holder = secrets.token_hex(8)
        # Each writer under a key of its own: appenders may share a file.
        self._open: dict[tuple[FileId, int], None] = {}
        self._numbers = itertools.count()
        self.given_up: queue.SimpleQueue[_GivenUp] = queue.SimpleQueue()
        self._writing = threading.Event()  # set by who opens, cleared by who looks

    def start(self) -> None:
        for name, run in (("leases", self._renew_for_ever), ("presence", self._hold_for_ever)):
            threading.Thread(target=run, name=f"minigfs-{name}", daemon=True).start()
        atexit.register(self._say_goodbye, os.getpid())

    def opened(self, file_id: FileId) -> None:
        self._open[file_id, next(self._numbers)] = None
        if not self._writing.is_set():
            self._writing.set()

    def closed(self, file_id: FileId) -> None:
        for key in list(self._open):
            # Another thread may take the same one out: then there is one more for this one.
            if key[0] == file_id and self._open.pop(key, _GONE) is not _GONE:
                return

    def _open_ids(self) -> tuple[FileId, ...]:
        return tuple(sorted({file_id for file_id, _ in list(self._open)}))

    def _say_goodbye(self, process_id: int) -> None:
        if process_id == os.getpid() and (self._open or not self.given_up.empty()):
            goodbye = _GivenUp(self._open_ids())
            self.given_up.put(goodbye)
            goodbye.told.wait(_GOODBYE_WAIT_S)

    def _renew_for_ever(self) -> None:
        clock = SystemClock()
        renew_ms = clock.monotonic_ms() + _RENEW_MS
        while True:
            left_ms = renew_ms - clock.monotonic_ms()
            if left_ms > 0:
                with suppress(queue.Empty):
                    self._discard(self.given_up.get(timeout=left_ms / 1000))
            else:
                self._renew()
                renew_ms = clock.monotonic_ms() + _RENEW_MS

    def _renew(self) -> None:
        file_ids = self._open_ids()
        if file_ids:
            with suppress(MinigfsError):  # a lost renewal is made up for by the next
                self._masters.call(RenewWriters(file_ids=file_ids, holder=self.holder))

    def _discard(self, given_up: _GivenUp) -> None:
        for file_id in given_up.file_ids:
            self.closed(file_id)
            # A lost discard is made up for by the end of the lease.
            with suppress(MinigfsError):
                self._masters.change(DiscardFile(file_id=file_id))
        given_up.told.set()

    def _hold_for_ever(self) -> None:
        request = HoldWriters(holder=self.holder)
        while True:
            self._writing.wait()
            # Nothing tells how long a writer will live: seeing one a little later does.
            time.sleep(_SHORT_LIFE_S)
            if not self._open:
                self._writing.clear()
                if not self._open:  # nor was any opened just now
                    continue
            try:
                self._masters.call(request, answer_ms=HOLD_MS)
            except MinigfsError:
                time.sleep(_RETRY_S)  # the masters are away, or at odds: asking again is the event
