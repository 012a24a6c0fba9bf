"""The chunkserver as a process: a directory, a socket, a thread that sends heartbeats.

Everything it knows is on its disk or comes from the master, so it is stopped by killing it and
started by starting it (GFS section 5.1.1). A disk that fails a write or a sync ends the process:
what it holds can then be trusted no more than the disk can, and the other replicas take over.
"""

import errno
import logging
import os
import queue
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minigfs.chunkserver.append_service import AppendService
from minigfs.chunkserver.catalogue import Catalogue
from minigfs.chunkserver.chunk_reads import ChunkReads, lending_address
from minigfs.chunkserver.copy_orders import CopyOrders
from minigfs.chunkserver.heartbeats import Heartbeats, as_replica_reports
from minigfs.chunkserver.identity import lock_directory, open_identity
from minigfs.chunkserver.inspector import Inspector
from minigfs.chunkserver.messages import (
    GetScrubTimes,
    OpenChunkFile,
    PingChunkserver,
    ReadChunk,
    VerifyChunk,
    WriteChunk,
)
from minigfs.chunkserver.metrics import COUNTERS, chunkserver_metrics
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.placement_hint import spread_below
from minigfs.chunkserver.reports import ChunkReport
from minigfs.chunkserver.scrub_schedule import RATE_MIN, SCRUB_BOUND_MS
from minigfs.chunkserver.scrubber import Scrubber
from minigfs.chunkserver.seen_history import SeenHistory
from minigfs.chunkserver.store import ChunkStore
from minigfs.chunkserver.verification import ChunkVerification
from minigfs.chunkserver.write_chain import WriteChain
from minigfs.errors import MinigfsError, WriterFenced
from minigfs.master.heartbeat_messages import Heartbeat
from minigfs.ports import Disk, RealDisk, SystemClock
from minigfs.transport.address import Address, advertised
from minigfs.transport.bulk_server import BulkHandler, BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.memory import keep_freed_memory
from minigfs.transport.messages import Empty, Request
from minigfs.transport.metrics import Counters, Metric
from minigfs.transport.security import Security, check_listen_address
from minigfs.transport.stream import Stream

if TYPE_CHECKING:
    from minigfs.transport.metrics_http import MetricsServer

__all__ = ["Chunkserver", "ChunkserverOptions", "serve_chunkserver"]

logger = logging.getLogger(__name__)

ReadT = TypeVar("ReadT", ReadChunk, OpenChunkFile, VerifyChunk)

_DISK_FAILURES = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkserverOptions:
    directory: Path
    listen: Address
    masters: tuple[Address, ...]
    security: Security
    advertise: Address = ""  # what others connect to; "" for where it listens
    host: str = ""  # label for placement and locality; "" for this machine's name
    rack: str = ""
    insecure: bool = False  # listen beyond loopback without TLS
    metrics: Address = ""  # where to serve figures for Prometheus; "" for nowhere
    scrub_bound_ms: int = SCRUB_BOUND_MS  # every byte here is read again within this time
    scrub_bytes_per_second: int = RATE_MIN  # or more, if the bound asks for it


class Chunkserver:
    """One running chunkserver, from ``start`` to ``stop``; both are called once."""

    def __init__(self, options: ChunkserverOptions, *, disk: Disk | None = None) -> None:
        """``disk`` holds the chunks; by default the options' directory does."""
        check_listen_address(options.listen, options.security, options.insecure)
        self._options = options
        self._lock = lock_directory(options.directory)
        spread_below(options.directory)
        try:
            self.identity = open_identity(options.directory, options.security.cluster_id)
        except BaseException:
            os.close(self._lock)
            raise
        disk = disk or RealDisk(options.directory)
        self._store = ChunkStore(disk, cluster_id=self.identity.cluster_id)
        self._scrubber = Scrubber(
            self._store,
            disk,
            bound_ms=options.scrub_bound_ms,
            rate_min=options.scrub_bytes_per_second,
        )
        self._inspector = Inspector(self._store)
        self._pool = ConnectionPool(options.security)
        counters = Counters(COUNTERS)
        self._chain = WriteChain(
            self._store,
            chunkserver_id=self.identity.chunkserver_id,
            pool=self._pool,
            counters=counters,
        )
        self._copies = CopyOrders(
            self._store, pool=self._pool, disk_failed=self._end_if_disk_failed
        )
        self._catalogue = Catalogue(options.directory)
        self._open_chunks = OpenChunks(disk, self._store)
        self._heartbeats = Heartbeats(
            self._store,
            self._open_chunks,
            pool=self._pool,
            masters=options.masters,
            describe=self._describe,
            history=SeenHistory(disk, SystemClock()),
            copies=self._copies,
            catalogue=self._catalogue,
            disk_failed=self._end_if_disk_failed,
        )
        appends = AppendService(
            self._store,
            self._open_chunks,
            chunkserver_id=self.identity.chunkserver_id,
            pool=self._pool,
            silence_ms=lambda: self._heartbeats.silence_ms,
        )
        reads = ChunkReads(self._store, counters)
        verification = ChunkVerification(self._store, self._scrubber.times)
        self._lender = BulkServer(
            {OpenChunkFile: self._of_sealed(reads.lend)},
            options.security,
            name="chunkserver-lender",
        )
        self._lending_address: Address = ""
        self._server = BulkServer(
            {
                ReadChunk: self._of_sealed(reads.handle),
                WriteChunk: self._guarded(self._chain.handle),
                VerifyChunk: self._of_sealed(verification.handle),
                GetScrubTimes: verification.tell_times,
                PingChunkserver: _ping,
                **{kind: self._guarded(handle) for kind, handle in appends.handlers().items()},
            },
            options.security,
            name="chunkserver",
        )
        self._metrics = self._metrics_server(counters)
        self._address: Address = options.advertise
        self.disk_failure: OSError | None = None
        # A queue, not an Event: a signal handler may run while this thread holds an Event's lock.
        self._stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> Address:
        """Find the chunks, listen, and begin to send heartbeats; the bound address."""
        self._store.open()
        self._open_chunks.open()
        bound = self._server.start(self._options.listen)
        self._address = advertised(self._options.advertise, bound)
        self._lending_address = self._start_lending()
        self._copies.start(self._heartbeats.beat_now)
        self._heartbeats.start()
        self._scrubber.start()
        self._inspector.start()
        self._store.blanks.start(self._end_if_disk_failed)
        if self._metrics is not None:
            self._metrics.start(self._options.directory)
        return bound

    def stop(self) -> None:
        if self._metrics is not None:
            self._metrics.stop()
        self._inspector.stop()
        self._scrubber.stop()
        self._heartbeats.stop()
        self._catalogue.close()
        self._lender.stop()
        self._copies.stop()
        self._server.stop()
        self._store.blanks.stop()
        self._open_chunks.close()
        self._pool.close()
        os.close(self._lock)

    def request_stop(self) -> None:
        """From any thread or signal handler."""
        self._stop_requests.put(None)

    def wait_for_stop_request(self) -> None:
        self._stop_requests.get()

    def _metrics_server(self, counters: Counters) -> "MetricsServer | None":
        options = self._options
        if not options.metrics:
            return None
        from minigfs.transport.metrics_http import MetricsServer

        def collect() -> Iterator[Metric]:
            silence_s = self._heartbeats.silence_ms / 1000
            return chunkserver_metrics(
                self._store, self._scrubber, counters, last_heard_s=silence_s
            )

        return MetricsServer(collect, options.metrics, options.security, insecure=options.insecure)

    def _start_lending(self) -> Address:
        """Where it lends files to this machine's processes; "" if it cannot, which is no harm."""
        address = lending_address(self._options.directory, self.identity.chunkserver_id)
        if not address:
            logger.warning(
                "%s is too long a path for a Unix socket: readers of this machine use TCP",
                self._options.directory,
            )
            return ""
        try:
            return self._lender.start(address)
        except (MinigfsError, OSError) as error:
            logger.warning("readers of this machine use TCP: %s", error)
            return ""

    def _of_sealed(self, handle: Callable[[ReadT, Stream], None]) -> BulkHandler:
        """A handler that reads sealed chunks: one that is about to be sealed is not damaged."""

        def of_sealed(request: ReadT, stream: Stream) -> None:
            if self._open_chunks.find(request.handle) is not None:
                raise WriterFenced(f"chunk {request.handle:x} is open, or being sealed")
            handle(request, stream)

        return of_sealed

    def _guarded(self, handle: BulkHandler) -> BulkHandler:
        """A handler that writes: a disk that fails ends the process."""

        def guarded(request: Request[Any], stream: Stream) -> None:
            try:
                handle(request, stream)
            except OSError as error:
                self._end_if_disk_failed(error)
                raise

        return guarded

    def _end_if_disk_failed(self, error: OSError) -> None:
        is_of_disk = not isinstance(error, MinigfsError)  # damage has an errno as well
        if is_of_disk and error.errno in _DISK_FAILURES:
            logger.critical("the disk of %s failed: %s", self._options.directory, error)
            self.disk_failure = error
            self.request_stop()

    def _describe(self, report: ChunkReport) -> Heartbeat:
        return Heartbeat(
            chunkserver_id=self.identity.chunkserver_id,
            cluster_id=self.identity.cluster_id,
            address=self._address,
            host=self._options.host or os.uname().nodename,
            rack=self._options.rack,
            pid=os.getpid(),
            directory=str(self._options.directory),
            capacity_bytes=self._store.capacity_bytes,
            free_bytes=self._store.free_bytes,
            chunk_count=self._store.chunk_count,
            stored_bytes=self._store.stored_bytes,
            full=report.full,
            chunks=as_replica_reports(report.chunks),
            gone=report.gone,
            report=report.report,
            part=report.part,
            more=report.more,
            damaged=report.damaged,
            damaged_count=self._store.damaged_count,
            last_scrubbed_ms=self._scrubber.last_scrubbed_ms,
            scrub_bound_ms=self._options.scrub_bound_ms,
            lending_address=self._lending_address,
            open_chunks=self._open_chunks.reports(),
            set_aside=self._store.quarantine.reports(),
            set_aside_count=self._store.quarantine.count,
        )


def serve_chunkserver(options: ChunkserverOptions, *, ready: Callable[[Address], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called with the bound address.

    Raises the disk's ``OSError`` if a write or sync failed. For the main thread only.
    """
    keep_freed_memory()
    server = Chunkserver(options)
    previous = {
        number: signal.signal(number, lambda *_: server.request_stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        ready(server.start())
        server.wait_for_stop_request()
    finally:
        server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if server.disk_failure is not None:
        raise server.disk_failure


def _ping(_request: PingChunkserver, stream: Stream) -> None:
    stream.send(Empty())
