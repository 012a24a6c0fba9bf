"""The chunks of one chunkserver, as files on one disk.

::

    incoming/   chunks being written; whatever a start finds here was never acknowledged
    blank/      files made ahead for small chunks (see ``blank_files``)
    chunks/     sealed chunks, one file each, named by the handle; never changed in place
    trash/      deleted chunks, for a while (see ``trash``)
    quarantine/ files a start could not make sense of, and replicas of versions that were never
                given (see ``set_aside``), kept for a person to look at

A chunk is sealed by: header and table written, file synced, renamed into ``chunks/``, directory
synced; only then may anybody be told that it is there. So a crash leaves either nothing or a whole
chunk. A small one is written into a file that has a durable name already. What is in memory is a
table of the sealed chunks and the ledger of what to report.

A chunk found damaged stays where it is and its good blocks stay readable: with every replica
damaged in another place, they are all there is. The next heartbeat tells the master, which has it
replaced. A chunk whose file is gone is reported as gone. Thread-safe: one lock guards the table
and the ledger and is never held over I/O.
"""

import errno
import itertools
import logging
import threading
from functools import partial

from minigfs.chunkserver.blank_files import BLANKS, BlankFiles
from minigfs.chunkserver.checksum import SUM_BYTES
from minigfs.chunkserver.chunk_file import HEADER_BYTES_MAX, StoredChunk, decode_header
from minigfs.chunkserver.incoming_chunk import (
    CHUNKS,
    INCOMING,
    IncomingChunk,
    chunk_path,
    file_name,
)
from minigfs.chunkserver.messages import WriteChunk
from minigfs.chunkserver.reports import ChunkReport, ReportLedger
from minigfs.chunkserver.sealed_chunk import OpenChunk, stored_chunk
from minigfs.chunkserver.set_aside import QUARANTINE, SetAside
from minigfs.chunkserver.trash import Trash
from minigfs.config import MIN_CHUNK_BYTES
from minigfs.errors import CorruptChunk, NoSpace, ProtocolError, Unsupported
from minigfs.ids import ChunkHandle, ChunkVersion, ClusterId
from minigfs.master.heartbeat_messages import AheadReplica
from minigfs.ports import Clock, Disk, SystemClock

__all__ = ["ChunkStore", "IncomingChunk", "chunk_path"]

logger = logging.getLogger(__name__)

# Below this much free space no chunk is begun, so that the master (on the same disk in a small
# cluster) can still write its log and delete files.
_FREE_SPACE_KEPT_PERCENT = 5
_CHUNK_BYTES_MAX = 1 << 40
_HANDLE_MAX = (1 << 63) - 1


class ChunkStore:
    """All chunks below one directory. Call ``open`` before anything else."""

    def __init__(self, disk: Disk, *, cluster_id: ClusterId, clock: Clock | None = None) -> None:
        self._disk = disk
        clock = clock or SystemClock()
        self.trash = Trash(disk, clock)
        self.quarantine = SetAside(disk, clock)
        self._cluster_id = cluster_id
        self._lock = threading.Lock()
        self._sealed: dict[ChunkHandle, StoredChunk] = {}
        self._stored_bytes = 0
        self._ledger = ReportLedger(clock.now_ms())
        self._incoming_numbers = itertools.count(1)
        self.blanks = BlankFiles(
            disk,
            has_room=self._has_room,
            sync_names=partial(disk.sync_dir, CHUNKS),
            clock=clock,
        )
        self.damage_found_count = 0  # since the start

    def open(self) -> None:
        """Find the sealed chunks, remove what was never sealed, set aside what is not a chunk."""
        for directory in (INCOMING, CHUNKS, QUARANTINE, BLANKS):
            self._disk.make_dirs(directory)
        self.trash.open()
        self.quarantine.look()
        self._disk.sync_dir("")
        for name in self._disk.list(INCOMING):
            self._disk.remove(f"{INCOMING}/{name}")
        for name in self._disk.list(CHUNKS):
            self._take_in(name)
        blanks = self._disk.list(BLANKS)
        if blanks:  # a process that was killed may have left second names that no sync has seen
            self._disk.sync_dir(CHUNKS)
        for name in blanks:
            self._take_in_blank(name)

    def _take_in_blank(self, name: str) -> None:
        """A chunk, if a crash came before its own name was durable; else nobody was told of it."""
        path = f"{BLANKS}/{name}"
        try:
            with self._disk.open(path) as file:
                header, _ = decode_header(file.read_at(0, HEADER_BYTES_MAX))
        except CorruptChunk:
            self._disk.remove(path)
            return
        except OSError as error:
            self.quarantine.keep(path, name, error)
            return
        if header.cluster_id == self._cluster_id and header.handle in self._sealed:
            self._disk.remove(path)
            return
        try:
            with OpenChunk(self._cluster_id, self._disk.open(path)) as chunk:
                chunk.read(0, header.length_bytes)
        except OSError as error:  # torn and never acknowledged, or damaged since: it does not say
            self.quarantine.keep(path, file_name(header.handle), error)
        else:
            self.take_over(path, header.handle)

    def _take_in(self, name: str) -> bool:
        """Know the chunk in a file, or set the file aside."""
        try:
            self.admit(self._read_description(name))
        except FileNotFoundError:  # somebody removed it just now: a chunk that is not here
            logger.error("%s is gone: its file was removed while this server started", name)
            return False
        except OSError as error:
            self.quarantine.keep(f"{CHUNKS}/{name}", name, error)
            return False
        return True

    def create(
        self,
        request: WriteChunk,
        *,
        replaces: bool = False,
        slot: bytes | None = None,
        is_small: bool = False,
    ) -> "IncomingChunk":
        """Begin a chunk. Raises ``NoSpace`` when the disk is nearly full.

        ``replaces``: once it is sealed it takes the place of one that is here, at one stroke.
        ``slot``: of a chunk that was appended to, encoded; empty if that is not known any more.
        ``is_small``: known to be a block at most, which will come in one piece.
        """
        if not 0 < request.handle <= _HANDLE_MAX:
            raise ProtocolError(f"chunk handle {request.handle} is out of range")
        if not MIN_CHUNK_BYTES <= request.chunk_bytes <= _CHUNK_BYTES_MAX:
            raise ProtocolError(f"chunk size {request.chunk_bytes} is out of range")
        if request.handle in self._sealed and not replaces:
            raise ProtocolError(f"chunk {request.handle:x} is already sealed here")
        is_small = is_small or (slot is None and _is_one_block(request))
        blank = self.blanks.take() if is_small and not replaces else None
        if blank is None:
            self.check_free_space()
        return IncomingChunk(
            self._disk,
            request,
            next(self._incoming_numbers),
            cluster_id=self._cluster_id,
            blanks=self.blanks,
            sealed=self.admit,
            slot=slot,
            is_small=is_small,
            blank=blank,
        )

    def open_chunk(self, handle: ChunkHandle, version: ChunkVersion) -> "OpenChunk":
        """A sealed chunk for reading. Raises ``CorruptChunk`` if it is not here, or not whole."""
        known = self._sealed.get(handle)
        if known is None:
            raise CorruptChunk(f"chunk {handle:x} is not here")
        if known.version != version:
            raise CorruptChunk(f"chunk {handle:x} has version {known.version}, not {version}")
        try:
            return OpenChunk(
                self._cluster_id,
                self._disk.open(chunk_path(handle)),
                expected=known,
                on_damage=partial(self._found_damage, known),
            )
        except OSError as error:
            raise self._found_damage(known, handle, error) from error

    def _found_damage(self, known: StoredChunk, handle: ChunkHandle, error: OSError) -> OSError:
        """What a failed read means: damage of this chunk, which the master is to hear of, or
        trouble of the whole process."""
        is_damage = isinstance(error, CorruptChunk)
        if not is_damage and error.errno not in (errno.EIO, errno.ENOENT):
            return error
        if self._sealed.get(handle) is not known:  # another file has its place by now, or none
            return CorruptChunk(f"chunk {handle:x} was replaced or deleted meanwhile")
        if error.errno == errno.ENOENT and not is_damage:
            self._forget(handle)
            self.damage_found_count += 1
            logger.error("chunk %x is gone: its file was removed", handle)
        else:
            with self._lock:
                is_news = handle in self._sealed and self._ledger.damaged(handle)
            if is_news:
                self.damage_found_count += 1
                logger.error("damaged chunk %x: %s", handle, error)
        return CorruptChunk(f"chunk {handle:x}: {error}")

    def found_sound(self, handle: ChunkHandle) -> None:
        """All of it was read just now, and is what was written: what was said of it before was a
        passing trouble."""
        with self._lock:
            known = self._sealed.get(handle)
            if known is not None and self._ledger.is_damaged(handle):
                self._ledger.sealed(known)

    def find(self, handle: ChunkHandle) -> StoredChunk | None:
        return self._sealed.get(handle)

    def known_chunks(self) -> list[StoredChunk]:
        """Those here now, by handle."""
        with self._lock:
            chunks = list(self._sealed.values())
        return sorted(chunks, key=lambda chunk: chunk.handle)

    @property
    def damaged_count(self) -> int:
        return self._ledger.damaged_count

    def admit(self, chunk: StoredChunk) -> None:
        """Know a chunk whose file is durable in its place (``IncomingChunk.seal`` calls this)."""
        with self._lock:
            replaced = self._sealed.get(chunk.handle)
            if replaced is not None:
                self._stored_bytes -= replaced.length_bytes
            self._sealed[chunk.handle] = chunk
            self._stored_bytes += chunk.length_bytes
            self._ledger.sealed(chunk)

    def delete(self, handle: ChunkHandle, *, at_once: bool = False) -> None:
        """Forget a chunk and move its file to the trash, or remove it; an unknown handle is no
        error."""
        path = chunk_path(handle)
        if not self._forget(handle) or not self._disk.exists(path):
            return
        if at_once:
            self._disk.remove(path)
        else:
            self.trash.put(path, handle)

    def set_aside(self, order: AheadReplica) -> None:
        """Serve a chunk no more, and keep its file, if it is in that version or a later one."""
        known = self._sealed.get(order.handle)
        if known is not None and known.version >= order.version:
            self._forget(order.handle)
            self.quarantine.put(chunk_path(order.handle), AheadReplica(order.handle, known.version))

    def restore(self, handle: ChunkHandle) -> bool:
        """Take a chunk back out of the trash; whether it is here now."""
        if handle in self._sealed:
            return True
        if not self.trash.restore(handle, chunk_path(handle)):
            return False
        self._disk.sync_dir(CHUNKS)
        return self._take_in(file_name(handle))

    def version_of(self, handle: ChunkHandle) -> ChunkVersion | None:
        known = self._sealed.get(handle)
        return None if known is None else known.version

    def take_over(self, path: str, handle: ChunkHandle) -> None:
        """Know a chunk whose file, sealed and durable, lies elsewhere on the disk.

        It has two names until the new one is durable: a crash may lose both ends of a rename.
        """
        try:
            self._disk.link(path, chunk_path(handle))
        except FileExistsError:  # a process died after it had linked it
            self._disk.sync_dir(CHUNKS)
            self._disk.rename(path, chunk_path(handle))
        except Unsupported:
            self._disk.rename(path, chunk_path(handle))
        self._disk.sync_dir(CHUNKS)
        if self._disk.exists(path):
            self._disk.remove(path)
        self._take_in(file_name(handle))

    def _forget(self, handle: ChunkHandle) -> bool:
        with self._lock:
            known = self._sealed.pop(handle, None)
            if known is not None:
                self._stored_bytes -= known.length_bytes
            self._ledger.lost(handle)
        return known is not None

    def take_report(self) -> ChunkReport:
        with self._lock:
            return self._ledger.take(self._sealed.values())

    def report_delivered(self, report: ChunkReport, listener: object) -> None:
        """``listener`` is told from any other master, and from itself in another term."""
        with self._lock:
            self._ledger.delivered(report)
            self._ledger.heard_by(listener)

    def owe_full_report(self) -> None:
        with self._lock:
            self._ledger.owe_full_report()

    @property
    def chunk_count(self) -> int:
        return len(self._sealed)

    @property
    def stored_bytes(self) -> int:
        return self._stored_bytes

    @property
    def cluster_id(self) -> ClusterId:
        return self._cluster_id

    @property
    def capacity_bytes(self) -> int:
        return self._disk.capacity_bytes()

    @property
    def free_bytes(self) -> int:
        return self._disk.free_bytes()

    def check_free_space(self) -> None:
        free_bytes, capacity_bytes = self._disk.free_bytes(), self._disk.capacity_bytes()
        if free_bytes * 100 < capacity_bytes * _FREE_SPACE_KEPT_PERCENT:
            raise NoSpace(
                f"the chunkserver's disk has {free_bytes} of {capacity_bytes} bytes free, less"
                f" than the {_FREE_SPACE_KEPT_PERCENT} % it keeps: remove files or add a disk"
            )

    def _has_room(self) -> bool:
        try:
            self.check_free_space()
        except NoSpace:
            return False
        return True

    def _read_description(self, name: str) -> StoredChunk:
        with OpenChunk(self._cluster_id, self._disk.open(f"{CHUNKS}/{name}")) as chunk:
            header = chunk.header
            if name != file_name(header.handle) or not header.sealed:
                raise CorruptChunk(f"the file says that it is chunk {header.handle:x}")
            return stored_chunk(header)


def _is_one_block(request: WriteChunk) -> bool:
    """All of it has come, and it is not much."""
    return request.whole is not None and len(request.whole.sums) == SUM_BYTES
