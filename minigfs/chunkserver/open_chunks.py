"""The open chunks of one chunkserver, below ``open/``: each is sealed once, or given up.

Only a replica that was installed since this process started takes mutations. After a restart all
are frozen: what happened to the others meanwhile is not known here, and the master will say what to
keep. One that is not what was sealed elsewhere is set aside, or the copy that repair makes of the
chunk would never be read. Thread-safe.
"""

import logging
import threading
from bisect import bisect_right
from collections.abc import Iterable

from minigfs.chunkserver.incoming_chunk import file_name
from minigfs.chunkserver.open_replica import INTENT_SUFFIX, OpenReplica, intent_path
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import CorruptChunk, ProtocolError, WriterFenced
from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.master.append_messages import ChunkMember, InstallChunk
from minigfs.master.heartbeat_messages import ReplicaReport, SealOrder
from minigfs.ports import Disk

__all__ = ["OpenChunks"]

logger = logging.getLogger(__name__)

_OPEN = "open"
_REPORTED_MAX = 1_000  # at a time: a heartbeat stays small
_BARRED_MAX = 10_000  # an order that is so many chunks late does not come any more


class OpenChunks:
    """Call ``open`` before anything else, and after the store's."""

    def __init__(self, disk: Disk, store: ChunkStore) -> None:
        self._disk = disk
        self._store = store
        self._lock = threading.Lock()  # over installing and removing, not over mutations
        self._replicas: dict[ChunkHandle, OpenReplica] = {}
        self._members: dict[ChunkHandle, tuple[ChunkMember, ...]] = {}
        self._reported_up_to = ChunkHandle(0)
        self._barred: dict[ChunkHandle, None] = {}  # said not to be here, the latest last

    def open(self) -> None:
        """Find what the last process left; what is not sound is set aside."""
        self._disk.make_dirs(_OPEN)
        self._disk.sync_dir("")
        names = self._disk.list(_OPEN)
        for name in names:
            path = f"{_OPEN}/{name}"
            if name.endswith(INTENT_SUFFIX):
                continue
            try:
                replica = OpenReplica.recover(self._disk, path, self._store.cluster_id)
            except FileNotFoundError:
                logger.error("%s is gone: its file was removed while this server started", name)
                continue
            except OSError as error:
                self._store.quarantine.keep(path, name, error)
                continue
            handle = replica.header.handle
            if replica.header.sealed:
                replica.close()
                self._store.take_over(path, handle)
            elif self._store.find(handle) is not None:  # a copy of what was sealed elsewhere
                replica.close()
                self._store.trash.put(path, handle)
            else:
                self._replicas[handle] = replica
        for name in names:
            if name.endswith(INTENT_SUFFIX):  # it was carried out, or came to nothing
                self._disk.remove(f"{_OPEN}/{name}")

    def close(self) -> None:
        """Give the files back; nothing is lost by it."""
        with self._lock:
            for handle in list(self._replicas):
                self._forget(handle)

    def install(self, order: InstallChunk) -> None:
        """Make a replica and take part in its mutations."""
        with self._lock:
            known = self._replicas.get(order.handle)
            if known is not None:
                if self._members.get(order.handle) != order.members or known.is_frozen:
                    raise WriterFenced(f"chunk {order.handle:x} was open here before")
                return
            if order.handle in self._barred:
                raise WriterFenced(f"chunk {order.handle:x} was given up meanwhile")
            if order.handle <= 0 or not order.members:
                raise ProtocolError(f"chunk {order.handle} cannot be opened")
            self._store.check_free_space()
            path = _path(order.handle)
            replica = OpenReplica.create(self._disk, path, order, self._store.cluster_id)
            self._disk.sync_dir(_OPEN)
            self._replicas[order.handle] = replica
            self._members[order.handle] = order.members

    def find(self, handle: ChunkHandle) -> OpenReplica | None:
        return self._replicas.get(handle)

    def find_or_bar(self, handle: ChunkHandle) -> OpenReplica | None:
        """The replica; if there is none, there never will be: an order to install it that is
        still under way is refused, since the master is about to give the chunk up."""
        replica = self._replicas.get(handle)
        if replica is None:
            with self._lock:  # which an installation holds until it is through
                replica = self._replicas.get(handle)
                if replica is None:
                    self._barred[handle] = None
                    while len(self._barred) > _BARRED_MAX:
                        del self._barred[next(iter(self._barred))]
        return replica

    def get(self, handle: ChunkHandle, version: ChunkVersion) -> OpenReplica:
        """Raises ``WriterFenced`` if the chunk is not open here in this version."""
        replica = self._replicas.get(handle)
        if replica is None or replica.version != version:
            raise WriterFenced(f"chunk {handle:x} is not open here in version {version}")
        return replica

    def members(self, handle: ChunkHandle) -> tuple[ChunkMember, ...]:
        """The primary first; none if this process has not installed the replica."""
        return self._members.get(handle, ())

    def seal(self, order: SealOrder) -> None:
        """Keep of a replica what the log says, as a sealed chunk. Repeated, it is no error."""
        with self._lock:
            replica = self._replicas.get(order.handle)
            if replica is None:
                return
            replica.seal(order.version, order.length_bytes, order.digest)
            self._store.take_over(_path(order.handle), order.handle)
            self._disk.remove(intent_path(_path(order.handle)))
            self._forget(order.handle)

    def delete(self, handle: ChunkHandle) -> None:
        """No file has the chunk; an unknown handle is no error."""
        with self._lock:
            replica = self._replicas.get(handle)
            if replica is not None:
                replica.freeze()
                self._store.trash.put(_path(handle), handle)
                self._forget(handle)

    def carry_out(self, orders: Iterable[SealOrder]) -> None:
        """Of a heartbeat's reply. A replica that is not what was sealed is set aside."""
        for order in orders:
            replica = self._replicas.get(order.handle)
            if replica is not None and replica.length_bytes < order.length_bytes:
                logger.warning("chunk %x was sealed without this server", order.handle)
                self.delete(order.handle)
                continue
            try:
                self.seal(order)
            except CorruptChunk as error:
                self._quarantine(order.handle, error)

    def reports(self) -> tuple[ReplicaReport, ...]:
        """Of as many open replicas as fit into a heartbeat; of those behind them the next time."""
        with self._lock:
            handles = sorted(self._replicas)
            first = bisect_right(handles, self._reported_up_to)
            turn = (handles[first:] + handles[:first])[:_REPORTED_MAX]
            self._reported_up_to = turn[-1] if turn else ChunkHandle(0)
            replicas = [self._replicas[handle] for handle in turn]
        return tuple(
            ReplicaReport(
                handle=replica.header.handle,
                version=replica.version,
                length_bytes=replica.length_bytes,
            )
            for replica in replicas
        )

    def _quarantine(self, handle: ChunkHandle, reason: CorruptChunk) -> None:
        with self._lock:
            self._store.quarantine.keep(_path(handle), file_name(handle), reason)
            self._forget(handle)

    def _forget(self, handle: ChunkHandle) -> None:
        self._replicas.pop(handle).close()
        self._members.pop(handle, None)


def _path(handle: ChunkHandle) -> str:
    return f"{_OPEN}/{file_name(handle)}"
