"""Keeping the master from discarding files that are being written, as long as they are.

Two daemon threads per client process look after all open writers. One renews their leases; writers
tell it what they do through a queue that may be used in a finaliser, so a writer that is garbage
collected instead of closed has its temporary file discarded within moments. The other keeps a call
waiting at the master, whose connection ends with the process, however it ends: then the master
gives up within seconds what the process was writing. A process that ends in order says goodbye.
"""

import atexit
import os
import queue
import secrets
import threading
import time
from collections import Counter
from contextlib import suppress
from enum import Enum, auto

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


class _Event(Enum):
    OPENED = auto()
    CLOSED = auto()
    ABANDONED = auto()
    GOODBYE = auto()


_Events = queue.SimpleQueue[tuple[_Event, FileId, threading.Event]]


class WriterLeases:
    """Thread-safe; after a fork the child starts anew, with the writers it opens itself."""

    def __init__(self, masters: MasterCaller) -> None:
        self._masters = masters
        self._events: _Events = queue.SimpleQueue()
        self._process_id = 0  # of the process that has the threads
        self._holder = ""

    @property
    def holder(self) -> str:
        """The name under which this process opens writers."""
        if self._process_id != os.getpid():
            self._begin()
        return self._holder

    def opened(self, file_id: FileId) -> None:
        """To be told after ``holder`` was asked for."""
        self._put(_Event.OPENED, file_id)

    def closed(self, file_id: FileId) -> None:
        self._put(_Event.CLOSED, file_id)

    def abandoned(self, file_id: FileId) -> threading.Event:
        """Discard the file soon: set once the master was told, or could not be. Safe in a
        finaliser."""
        if self._process_id == os.getpid():
            return self._put(_Event.ABANDONED, file_id)
        told = threading.Event()
        told.set()  # the parent of this fork opened the file, and looks after it
        return told

    def _begin(self) -> None:
        self._process_id = os.getpid()
        self._events = queue.SimpleQueue()
        self._holder = secrets.token_hex(8)
        writing = threading.Event()
        for name, run in (
            ("minigfs-leases", _Renewals(self._masters, self._holder, self._events, writing).run),
            ("minigfs-presence", _Presence(self._masters, self._holder, writing).run),
        ):
            threading.Thread(target=run, name=name, daemon=True).start()
        atexit.register(self._say_goodbye, self._process_id)

    def _say_goodbye(self, process_id: int) -> None:
        if process_id == os.getpid() == self._process_id:
            self._put(_Event.GOODBYE, _NO_FILE).wait(_GOODBYE_WAIT_S)

    def _put(self, event: _Event, file_id: FileId) -> threading.Event:
        handled = threading.Event()
        self._events.put((event, file_id, handled))
        return handled


_NO_FILE = FileId(0)


class _Renewals:
    """The thread that knows which writers are open."""

    def __init__(
        self, masters: MasterCaller, holder: str, events: _Events, writing: threading.Event
    ) -> None:
        self._masters = masters
        self._holder = holder
        self._events = events
        self._writing = writing
        self._clock = SystemClock()
        self._open_counts: Counter[FileId] = Counter()  # of writers; appenders may share a file
        self._renewed_ms = 0

    def run(self) -> None:
        while True:
            left_s = None
            if self._open_counts:
                left_ms = self._renewed_ms + _RENEW_MS - self._clock.monotonic_ms()
                if left_ms <= 0:
                    self._renew()
                    continue
                left_s = left_ms / 1000
            with suppress(queue.Empty):
                event, file_id, handled = self._events.get(timeout=left_s)
                self._note(event, file_id)
                handled.set()

    def _renew(self) -> None:
        with suppress(MinigfsError):  # a lost renewal is made up for by the next
            self._masters.call(
                RenewWriters(file_ids=tuple(sorted(self._open_counts)), holder=self._holder)
            )
        self._renewed_ms = self._clock.monotonic_ms()

    def _note(self, event: _Event, file_id: FileId) -> None:
        if event is _Event.OPENED:
            if not self._open_counts:
                self._renewed_ms = self._clock.monotonic_ms()
                self._writing.set()
            self._open_counts[file_id] += 1
            return
        given_up = sorted(self._open_counts) if event is _Event.GOODBYE else [file_id]
        for one in given_up:
            self._open_counts[one] -= 1
            if event is not _Event.CLOSED or self._open_counts[one] <= 0:
                del self._open_counts[one]
        if not self._open_counts:
            self._writing.clear()
        if event is not _Event.CLOSED:
            for one in given_up:
                # A lost discard is made up for by the end of the lease.
                with suppress(MinigfsError):
                    self._masters.change(DiscardFile(file_id=one))


class _Presence:
    """The thread that keeps a call waiting as long as there are open writers."""

    def __init__(self, masters: MasterCaller, holder: str, writing: threading.Event) -> None:
        self._masters = masters
        self._request = HoldWriters(holder=holder)
        self._writing = writing

    def run(self) -> None:
        while True:
            self._writing.wait()
            # Nothing tells how long a writer will live: seeing it again a little later does.
            time.sleep(_SHORT_LIFE_S)
            if not self._writing.is_set():
                continue
            try:
                self._masters.call(self._request, answer_ms=HOLD_MS)
            except MinigfsError:
                time.sleep(_RETRY_S)  # the masters are away, or at odds: asking again is the event
