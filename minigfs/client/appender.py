"""Appending records to a file, each exactly once (GFS section 3.3, DESIGN 6.6).

::

    append(record) -> primary of the file's open chunk: on every replica, durable: its offset
                   -> no room, or no answer: the master seals that chunk and names the next one
                      no answer: was the record in the sealed chunk?  yes: its offset
                                                                      no: to the next chunk

An appender numbers its records, and every replica remembers the last of each appender in a chunk. A
record is tried in one chunk at a time, and in the next one only when it is certain that the one
before, sealed for ever, does not have it. So it is in the file once, whatever failed. If that
cannot be found out until the deadline, the caller is told ``OutcomeUnknown``.

Records of one appender stand in the order they were appended; those of several are mixed. No record
is torn, and there is no padding: a chunk ends where a record does.
"""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.append_messages import AppendRecord, ResolveAppend
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.patience import Patience
from minigfs.errors import (
    ClusterError,
    MinigfsError,
    OutcomeUnknown,
    ProtocolError,
    SecurityError,
    Unreachable,
    UsageError,
    WriterFenced,
)
from minigfs.ids import ChunkHandle, FileId
from minigfs.master.append_messages import AppendTarget, EndAppend, GetAppendTarget, SettledChunk
from minigfs.master.messages import FileStatus, Stat
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool

__all__ = ["Appender"]

RECORDS_PER_CHUNK_MIN = 4  # GFS section 3.3: what the end of a chunk may waste is bounded
_FIRST_TRY_MS = 1_500  # with the master's own tries, a server that hangs costs less than 3 s
_TRY_MS_MAX = 8_000
_RESOLVE_MS = 400  # at first: the next server knows as well
_MASTER_MS = 1_500  # what it takes the master to find that a server hangs, on top of its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What one try came to. Without an offset and a failure, the chunk is full."""

    offset_bytes: int | None = None  # in the chunk; None unless the record is surely in it
    failure: MinigfsError | None = None
    suspects: tuple[str, ...] = ()  # the addresses of servers that failed
    may_be_in: bool = False


class Appender:
    """Made by ``MinigfsClient.open_appender``. Thread-safe: one record at a time.

    Appending holds nothing back: when ``append`` returns, the record is durable on every replica.
    An appender that is not closed is ended by the master some seconds after its process.
    """

    def __init__(
        self,
        path: str,
        file_id: FileId,
        chunk_bytes: int,
        *,
        pool: ConnectionPool,
        masters: MasterCaller,
        leases: WriterLeases,
        timeout_ms: int,
    ) -> None:
        self.path = path
        self._file_id = file_id
        self._chunk_bytes = chunk_bytes
        self._pool = pool
        self._masters = masters
        self._leases = leases
        self._timeout_ms = timeout_ms
        self._appender_id = int.from_bytes(os.urandom(8), "little") >> 1
        self._sequence = 0
        self._target: AppendTarget | None = None
        self._lock = threading.Lock()
        self._is_open = True

    @property
    def record_bytes_max(self) -> int:
        """A quarter of a chunk."""
        return self._chunk_bytes // RECORDS_PER_CHUNK_MIN

    def append(self, record: Buffer) -> int:
        """Add a record at the end of the file, exactly once; its offset in the file, in bytes.

        Raises
        ------
        UsageError
            The record is empty, or longer than ``record_bytes_max``.
        OutcomeUnknown
            The record may be in the file or not; look before appending it again.
        FileMissing
            The file was removed or replaced.
        NotEnoughChunkservers, Unreachable, NoQuorum, NoSpace
            The record is not in the file.
        """
        data = memoryview(record).cast("B")
        if not 0 < len(data) <= self.record_bytes_max:
            raise UsageError(
                f"{self.path}: a record has 1 to {self.record_bytes_max} bytes, a quarter of a "
                f"chunk, not {len(data)}"
            )
        with self._lock:
            self._check_open()
            self._sequence += 1
            return self._append(data, Patience(self._timeout_ms))

    def close(self) -> FileStatus:
        """End appending; seals the file if nobody else appends. Its status. May be repeated."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            if was_open and self._target is not None:
                self._leases.closed(self._file_id)
                end = EndAppend(appender_id=self._appender_id, file_id=self._file_id)
                return self._masters.call(end)
        return self._masters.call(Stat(path=self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            with suppress(MinigfsError):  # what went wrong first says more
                self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False) and self._target is not None:
            self._leases.closed(self._file_id)  # only a queue is touched

    def _check_open(self) -> None:
        if not self._is_open:
            raise WriterFenced(f"{self.path}: the appender is closed")

    def _append(self, data: memoryview, patience: Patience) -> int:
        checksum = xxh3_64_intdigest(data)
        try_ms = _FIRST_TRY_MS
        target = self._target or self._next_target(None, (), patience)
        while True:
            tried = self._try(target, data, checksum, try_ms)
            if tried.offset_bytes is not None:
                return target.start_bytes + tried.offset_bytes
            try:
                target = self._next_target(target, tried.suspects, patience)
            except ClusterError as error:
                if tried.may_be_in:
                    raise self._unknown(str(error)) from error
                raise
            if tried.may_be_in:
                offset = self._resolve(target.before, patience)
                if offset is not None:
                    return offset
                try_ms = min(2 * try_ms, _TRY_MS_MAX)
            # While we pause, others may fill one chunk after the other: only trouble is waited out.
            was_overtaken = isinstance(tried.failure, WriterFenced) and patience.has_time
            if tried.failure is not None and not was_overtaken and not patience.pause():
                raise Unreachable(
                    f"{self.path}: the record is not in the file: no chunk could be appended to in "
                    f"time; last error: {tried.failure}"
                ) from tried.failure

    def _try(self, target: AppendTarget, data: memoryview, checksum: int, try_ms: int) -> "_Tried":
        primary = target.replicas[0].address if target.replicas else ""
        request = AppendRecord(
            handle=target.handle,
            version=target.version,
            appender_id=self._appender_id,
            sequence=self._sequence,
            sum=checksum,
            patience_ms=try_ms * 4 // 5,
        )
        try:
            if not primary:
                raise Unreachable("no server of the chunk is known")
            reply = self._pool.call(primary, request, timeout_ms=try_ms, payload=data)
        except (SecurityError, ProtocolError):
            raise
        except WriterFenced as error:
            return _Tried(failure=error)
        except MinigfsError as error:
            may_be_in = not isinstance(error, Unreachable)
            return _Tried(failure=error, suspects=(primary,), may_be_in=may_be_in)
        if reply.is_full:
            return _Tried()
        if reply.reason:
            suspects = (reply.failed,) if reply.failed else ()
            failure = Unreachable(f"{reply.failed or primary}: {reply.reason}")
            return _Tried(failure=failure, suspects=suspects, may_be_in=True)
        return _Tried(offset_bytes=reply.offset_bytes)

    def _next_target(
        self, before: AppendTarget | None, suspects: tuple[str, ...], patience: Patience
    ) -> AppendTarget:
        """Where to append now, which is not the chunk ``before``."""
        after = before.handle if before is not None else ChunkHandle(0)
        while True:
            try:
                target = self._ask_for_target(after, suspects)
            except ClusterError:
                if not patience.pause():
                    raise
            else:
                if self._target is None:
                    self._leases.opened(self._file_id)
                self._target = target
                return target

    def _ask_for_target(self, after: ChunkHandle, suspects: tuple[str, ...] = ()) -> AppendTarget:
        request = GetAppendTarget(
            appender_id=self._appender_id,
            file_id=self._file_id,
            after=after,
            suspects=suspects,
            holder=self._leases.holder,
        )
        return self._masters.call(request, answer_ms=_MASTER_MS)

    def _resolve(self, settled: SettledChunk | None, patience: Patience) -> int | None:
        """Where the record stands in a chunk that is sealed now; None if it is not in it."""
        timeout_ms = _RESOLVE_MS
        while True:
            if settled is None or not settled.is_known:
                raise self._unknown("the chunk it was sent to is gone")
            if settled.length_bytes == 0:
                return None
            request = ResolveAppend(
                handle=settled.handle,
                version=settled.version,
                appender_id=self._appender_id,
                sequence=self._sequence,
            )
            reason = "no server that knows is alive"
            for replica in settled.replicas:
                try:
                    found = self._pool.call(replica.address, request, timeout_ms=timeout_ms)
                except SecurityError:
                    raise
                except MinigfsError as error:
                    reason = str(error)
                    continue
                if found.offset_bytes < 0:
                    return None
                return settled.start_bytes + found.offset_bytes
            if not patience.pause():
                raise self._unknown(reason)
            timeout_ms = min(2 * timeout_ms, _TRY_MS_MAX)
            with suppress(ClusterError):  # a master that has just begun to lead knows few servers
                settled = self._ask_for_target(settled.handle).before

    def _unknown(self, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.path}: record {self._sequence} of this appender may have been appended or not "
            f"({reason}): look at the end of the file before appending it again"
        )
