"""Keeping the master from discarding files that are being written.

One daemon thread per client process renews the leases of all open writers. Writers tell it what
they do through a queue that may be used in a finaliser, so a writer that is garbage collected
instead of closed has its temporary file discarded within moments rather than after its lease.
"""

import os
import queue
import threading
from contextlib import suppress
from enum import Enum, auto

from minigfs.client.masters import MasterCaller
from minigfs.errors import MinigfsError
from minigfs.ids import FileId
from minigfs.master.messages import DiscardFile, RenewWriters
from minigfs.ports import SystemClock

__all__ = ["WriterLeases"]

_RENEW_MS = 15_000  # a lease lasts 60 s: three renewals may be lost


class _Event(Enum):
    OPENED = auto()
    CLOSED = auto()
    ABANDONED = auto()


_Events = queue.SimpleQueue[tuple[_Event, FileId, threading.Event]]


class WriterLeases:
    """Thread-safe; after a fork the child starts anew, with the writers it opens itself."""

    def __init__(self, masters: MasterCaller) -> None:
        self._masters = masters
        self._events: _Events = queue.SimpleQueue()
        self._process_id = 0  # of the process that has the thread

    def opened(self, file_id: FileId) -> None:
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._events = queue.SimpleQueue()
            threading.Thread(
                target=_renew,
                args=(self._masters, self._events),
                name="minigfs-leases",
                daemon=True,
            ).start()
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

    def _put(self, event: _Event, file_id: FileId) -> threading.Event:
        handled = threading.Event()
        self._events.put((event, file_id, handled))
        return handled


def _renew(masters: MasterCaller, events: _Events) -> None:
    clock = SystemClock()
    open_ids: set[FileId] = set()
    renewed_ms = clock.monotonic_ms()
    while True:
        left_ms = max(0, renewed_ms + _RENEW_MS - clock.monotonic_ms()) if open_ids else None
        try:
            event, file_id, handled = events.get(
                timeout=None if left_ms is None else left_ms / 1000
            )
        except queue.Empty:
            with suppress(MinigfsError):  # a lost renewal is made up for by the next
                masters.call(RenewWriters(file_ids=tuple(sorted(open_ids))))
            renewed_ms = clock.monotonic_ms()
            continue
        if event is _Event.OPENED:
            renewed_ms = renewed_ms if open_ids else clock.monotonic_ms()
            open_ids.add(file_id)
            continue
        open_ids.discard(file_id)
        if event is _Event.ABANDONED:
            with suppress(MinigfsError):  # a lost discard is made up for by the end of the lease
                masters.change(DiscardFile(file_id=file_id))
        handled.set()
