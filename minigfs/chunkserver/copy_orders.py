"""The copies a master has ordered: carried out by two threads, reported by heartbeats.

The orders of a heartbeat's reply are all that stand: what has not begun and is not among them is
forgotten, so that nobody carries out what a master of yesterday wanted. A copy that is done stays
in the reports until a master has heard of it. All copies together keep to the order's bytes a
second, so that readers and writers have the rest (GFS section 4.3).
"""

import logging
import threading
from collections.abc import Callable, Sequence

from minigfs.chunkserver.replica_copy import CopyWithdrawn, ReplicaCopy
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import MinigfsError
from minigfs.ids import ChunkHandle
from minigfs.master.heartbeat_messages import CopyOrder, CopyReport
from minigfs.ports import Clock, SystemClock
from minigfs.transport.client import ConnectionPool

__all__ = ["CopyOrders"]

logger = logging.getLogger(__name__)

_THREAD_COUNT = 2  # one syncs its file while the other one receives
_BURST_MS = 250  # what was not used for so long may be made up for
_STOP_TIMEOUT_S = 3.0


class CopyOrders:
    """Runs from ``start`` to ``stop``. Thread-safe."""

    def __init__(
        self,
        store: ChunkStore,
        *,
        pool: ConnectionPool,
        disk_failed: Callable[[OSError], None],
        clock: Clock | None = None,
    ) -> None:
        """``disk_failed`` is told what a read or write of the disk raised."""
        self._store = store
        self._pool = pool
        self._disk_failed = disk_failed
        self._pace = _Pace(clock or SystemClock())
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._waiting: dict[ChunkHandle, CopyOrder] = {}
        self._running: set[ChunkHandle] = set()
        self._reports: dict[ChunkHandle, CopyReport] = {}
        self._all_done: Callable[[], None] = lambda: None
        self._threads = [
            threading.Thread(target=self._run, name=f"minigfs-copies-{n}", daemon=True)
            for n in range(_THREAD_COUNT)
        ]

    def start(self, all_done: Callable[[], None]) -> None:
        """``all_done`` is called whenever the last of the orders is carried out."""
        self._all_done = all_done
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_STOP_TIMEOUT_S)

    def take(self, orders: Sequence[CopyOrder]) -> None:
        """The orders that stand now, the most urgent first."""
        with self._changed:
            self._waiting = {
                order.handle: order
                for order in orders
                if order.handle not in self._running and order.handle not in self._reports
            }
            if self._waiting:
                self._changed.notify_all()

    def reports(self) -> tuple[CopyReport, ...]:
        """What has ended and no master has heard of yet."""
        with self._changed:
            return tuple(self._reports.values())

    def delivered(self, reports: Sequence[CopyReport]) -> None:
        with self._changed:
            for report in reports:
                if self._reports.get(report.handle) is report:
                    del self._reports[report.handle]

    def _run(self) -> None:
        while (order := self._next()) is not None:
            report = self._carry_out(order)
            with self._changed:
                self._running.discard(order.handle)
                if report is not None:
                    self._reports[order.handle] = report
                is_last = not self._waiting and not self._running
            if is_last:
                self._all_done()

    def _next(self) -> CopyOrder | None:
        with self._changed:
            while not self._waiting and not self._is_stopping.is_set():
                self._changed.wait()
            if self._is_stopping.is_set():
                return None
            handle = next(iter(self._waiting))
            order = self._waiting.pop(handle)
            self._running.add(handle)
            return order

    def _carry_out(self, order: CopyOrder) -> CopyReport | None:
        def pay(count: int) -> None:
            if self._is_stopping.wait(self._pace.delay_s(count, order.bytes_per_second)):
                raise CopyWithdrawn

        copy = ReplicaCopy(order, store=self._store, pool=self._pool, pay=pay)
        failure = ""
        try:
            copied_bytes = copy.make_sound()
            logger.info("chunk %x is whole here; %d bytes copied", order.handle, copied_bytes)
        except CopyWithdrawn:
            return None
        except MinigfsError as error:
            logger.warning("chunk %x could not be copied: %s", order.handle, error)
            failure = f"{error.code}: {error.message}"
        except OSError as error:
            logger.error("chunk %x could not be copied: %s", order.handle, error)
            self._disk_failed(error)
            failure = str(error)
        return CopyReport(
            handle=order.handle,
            version=order.version,
            failure=failure,
            damaged_sources=tuple(copy.damaged_sources),
        )


class _Pace:
    """When the next bytes may be asked for, if all that ask keep to a rate. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free_us = 0

    def delay_s(self, count: int, bytes_per_second: int) -> float:
        """How long to wait before asking for ``count`` bytes."""
        with self._lock:
            now_us = self._clock.monotonic_ms() * 1000
            begin_us = max(self._free_us, now_us - _BURST_MS * 1000)
            self._free_us = begin_us + count * 1_000_000 // max(bytes_per_second, 1)
            return max(begin_us - now_us, 0) / 1_000_000
