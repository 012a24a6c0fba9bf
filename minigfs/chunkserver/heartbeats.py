"""The thread that tells the leading master what this server is and has, and takes orders.

Twice a second, or at once when the master asks for a full report, which it does when it does not
know this server: after either of them has restarted, or another master leads. The parts of such a
report follow each other with short pauses, in which the master serves others. Deleting stops after
a while and goes on after the next heartbeat (the master repeats what it has not heard to be gone),
so that a large order does not make the server look dead. A master that begins to know this server
also hears what lies in the trash, and asks for what should never have gone there. A master whose
log lacks what this server has seen is not obeyed (``seen_history``).
"""

import logging
import threading
from collections.abc import Callable, Container, Sequence

from msgspec.structs import replace as with_fields

from minigfs.chunkserver.catalogue import Catalogue
from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.chunkserver.copy_orders import CopyOrders
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.reports import ChunkReport
from minigfs.chunkserver.seen_history import SeenHistory
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import MinigfsError
from minigfs.ids import ChunkHandle
from minigfs.master.heartbeat_messages import Heartbeat, HeartbeatReply, ReplicaReport
from minigfs.ports import Clock, SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller

__all__ = ["Heartbeats"]

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.5  # a new leader places no chunk on a server before it has heard of it
_RETRY_SECONDS = 0.1  # while no master answers: a starting cluster is whole as soon as one does
_NEXT_PART_SECONDS = 0.01
_TIMEOUT_MS = 1_200  # one silent leader, and a look at who leads now
_STOP_TIMEOUT_S = 3.0
_DELETING_MS_MAX = 500
_TRASHED_PER_BEAT_MAX = 2_000

Describe = Callable[[ChunkReport], Heartbeat]


class Heartbeats:
    """Runs from ``start`` to ``stop``."""

    def __init__(
        self,
        store: ChunkStore,
        open_chunks: OpenChunks,
        *,
        copies: CopyOrders,
        pool: ConnectionPool,
        masters: Sequence[str],
        describe: Describe,
        history: SeenHistory,
        catalogue: Catalogue,
        disk_failed: Callable[[OSError], None],
        clock: Clock | None = None,
    ) -> None:
        """``describe`` makes the heartbeat around a report: who and where this server is.
        ``disk_failed`` is told what the disk raised when an order was carried out."""
        self._store = store
        self._history = history
        self._copies = copies
        self._catalogue = catalogue
        self._open_chunks = open_chunks
        self._masters = GroupCaller(pool, masters)
        self._describe = describe
        self._disk_failed = disk_failed
        self._clock: Clock = clock or SystemClock()
        self._heard_ms = self._clock.monotonic_ms()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._is_connected = True
        self._trash_untold: tuple[ChunkHandle, ...] = ()
        self._thread = threading.Thread(target=self._run, name="minigfs-heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat_now(self) -> None:
        """There is something to say that the master waits for."""
        self._woken.set()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    @property
    def silence_ms(self) -> int:
        """How long ago a master answered that is believed; at first, since this server started."""
        return self._clock.monotonic_ms() - self._heard_ms

    def _run(self) -> None:
        pause = 0.0
        while not self._stops_in(pause):
            report = self._store.take_report()
            reply = self._beat(report)
            if reply is None:
                pause = _RETRY_SECONDS
                continue
            pause = _NEXT_PART_SECONDS if report.more else _INTERVAL_SECONDS
            if reply.send_full_report:
                self._store.owe_full_report()
                self._trash_untold = self._store.trash.handles()
                pause = 0.0
            try:
                self._obey(reply)
            except OSError as error:  # the master repeats what it does not hear to be done
                logger.error("an order of the master cannot be carried out: %s", error)
                self._disk_failed(error)

    def _obey(self, reply: HeartbeatReply) -> None:
        if reply.catalogue is not None:
            self._catalogue.store(reply.catalogue)
        for handle in reply.restore:
            self._store.restore(handle)
        self._open_chunks.carry_out(reply.seal)
        self._delete(reply.delete, frozenset(reply.delete_at_once))
        for order in reply.set_aside:
            self._store.set_aside(order)
        self._copies.take(reply.copy)

    def _stops_in(self, seconds: float) -> bool:
        self._woken.wait(seconds)
        self._woken.clear()
        return self._stopping.is_set()

    def _beat(self, report: ChunkReport) -> HeartbeatReply | None:
        """One heartbeat to the master that leads; None if none takes it."""
        trashed = self._trash_untold[:_TRASHED_PER_BEAT_MAX]
        seen = self._history.newest
        copied = self._copies.reports()
        beat = with_fields(
            self._describe(report),
            trashed=trashed,
            seen=seen,
            copied=copied,
            catalogue_stamp=self._catalogue.stored_stamp,
        )
        try:
            reply = self._masters.call(beat, timeout_ms=_TIMEOUT_MS, once=True)
            self._masters.know(reply.masters)
        except MinigfsError as error:
            log = logger.warning if self._is_connected else logger.debug
            log("no master takes the heartbeat: %s", error)
            self._is_connected = False
            return None
        if not self._is_connected:
            logger.info("the master at %s leads", self._masters.leader)
        self._is_connected = True
        self._store.report_delivered(report, _tenure_of(reply))
        self._trash_untold = self._trash_untold[len(trashed) :]
        self._copies.delivered(copied)
        if not self._history.believes(reply, seen, self._masters.leader):
            return HeartbeatReply(send_full_report=reply.send_full_report, delete=())
        self._heard_ms = self._clock.monotonic_ms()
        return reply

    def _delete(self, handles: Sequence[ChunkHandle], at_once: Container[ChunkHandle]) -> None:
        until_ms = self._clock.monotonic_ms() + _DELETING_MS_MAX
        for handle in handles:
            self._open_chunks.delete(handle)
            self._store.delete(handle, at_once=handle in at_once)
            if self._stopping.is_set() or self._clock.monotonic_ms() > until_ms:
                return


def _tenure_of(reply: HeartbeatReply) -> tuple[int, int]:
    """Whose reply it is: a term, and the number that its leader drew. An impostor has none."""
    position = reply.position
    return (0, 0) if position is None else (position.term, position.nonce)


def as_replica_reports(chunks: Sequence[StoredChunk]) -> tuple[ReplicaReport, ...]:
    return tuple(
        ReplicaReport(
            handle=c.handle, version=c.version, length_bytes=c.length_bytes, digest=c.digest
        )
        for c in chunks
    )
