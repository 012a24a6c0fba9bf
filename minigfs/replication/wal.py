"""The write-ahead log: what was appended and synced is there after any crash.

One preallocated file of checksummed, chained records (``wal_format``). ``append`` writes, ``sync``
makes durable; only after ``sync`` may anybody be told. There is one caller, and at most one sync
under way.

A full disk refuses an append and changes nothing. Any other error of a write or a sync leaves it
unknown what the disk holds, and a second sync may wrongly succeed; it is raised as it came, and the
process must end.
"""

import errno
import logging
from collections.abc import Iterator, Sequence

from minigfs.errors import CorruptLog, NoSpace
from minigfs.ports import Disk, DiskFile
from minigfs.replication.wal_format import (
    FIRST_CHAIN,
    Fault,
    Record,
    Tail,
    decode_record,
    encode_record,
    judge_tail,
)

__all__ = ["LOG_FILE_NAME", "Record", "WriteAheadLog"]

logger = logging.getLogger(__name__)

LOG_FILE_NAME = "wal.log"
PREALLOCATED_BYTES = 4 * 1024 * 1024  # syncs then rarely change the file's size
_PAGE_BYTES = 4096
_READ_BYTES = 4 * 1024 * 1024


class WriteAheadLog:
    """The log in ``directory`` of ``disk``; read it to its end once, then append."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._path = f"{directory}/{LOG_FILE_NAME}"
        self._file: DiskFile | None = None
        self._is_read = False
        self._end = 0  # where the next record goes
        self._chain = FIRST_CHAIN
        self._durable_end = 0
        self._durable_chain = FIRST_CHAIN
        self._allocated = 0

    def read_all(self) -> Iterator[Record]:
        """Every record in order; after the last, the log is ready for ``append``.

        A torn tail is cut off. Raises ``CorruptLog`` where a record that was durable once does not
        read back; the file is left as it is.
        """
        assert not self._is_read, "a log is read once"
        file = self._open()
        buffer, at = b"", 0
        while True:
            piece = file.read_at(self._end + len(buffer) - at, _READ_BYTES)
            buffer, at = buffer[at:] + piece, 0
            decoded = decode_record(buffer, at, self._chain)
            while not isinstance(decoded, Fault):
                record, end, self._chain = decoded
                self._end += end - at
                at = end
                yield record
                decoded = decode_record(buffer, at, self._chain)
            if decoded is Fault.BAD or not piece:
                break
        self._end_reading(file)

    def _open(self) -> DiskFile:
        self._disk.make_dirs(self._directory)
        self._file = self._disk.open(self._path, create=True)
        # At every start: the one that made the file may have died before its name was durable.
        self._disk.sync_dir(self._directory)
        self._disk.sync_dir("")
        return self._file

    def _end_reading(self, file: DiskFile) -> None:
        rest = file.read_at(self._end, file.size_bytes() - self._end)
        tail = judge_tail(rest, self._end)
        if tail is Tail.DAMAGED:
            raise CorruptLog(
                f"{self._path}: the record at offset {self._end} is damaged, and it had been "
                "acknowledged: bring the file back from a copy, nothing was changed"
            )
        if tail is Tail.TORN:
            torn_bytes = len(rest.rstrip(b"\0"))
            logger.warning("%s: dropped %d bytes of a cut append", self._path, torn_bytes)
            file.truncate(self._end)
        # What was read may never have been synced; records to come will say that it was.
        file.sync()
        self._allocated = file.size_bytes()
        self._durable_end, self._durable_chain = self._end, self._chain
        self._is_read = True

    def append(self, records: Sequence[Record]) -> None:
        """Write records after the last. On ``NoSpace`` the log is as it was."""
        file = self._ready()
        encoded: list[bytes] = []
        chain = self._chain
        for record in records:
            record_bytes, chain = encode_record(record, self._durable_end, chain)
            encoded.append(record_bytes)
        joined = b"".join(encoded)
        try:
            self._reserve(file, self._end + len(joined))
            file.write_at(self._end, joined)
        except NoSpace:
            self._cut(file, self._end)
            raise
        self._end += len(joined)
        self._chain = chain

    def sync(self) -> None:
        """Return when everything appended is durable. On ``NoSpace`` none of it is, nor will be."""
        file = self._ready()
        try:
            file.sync()
        except NoSpace:
            self._cut(file, self._durable_end)
            self._end, self._chain = self._durable_end, self._durable_chain
            raise
        self._durable_end, self._durable_chain = self._end, self._chain

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _ready(self) -> DiskFile:
        assert self._is_read, "read the log to its end before appending"
        assert self._file is not None
        return self._file

    def _reserve(self, file: DiskFile, end: int) -> None:
        """Have disk space up to ``end``: a step ahead if there is room, else just enough."""
        if end <= self._allocated:
            return
        for step in (PREALLOCATED_BYTES, _PAGE_BYTES):
            allocated = (end + step - 1) // step * step
            try:
                file.preallocate(allocated)
            except NoSpace:
                if step == _PAGE_BYTES:
                    raise
            else:
                self._allocated = allocated
                return

    def _cut(self, file: DiskFile, end: int) -> None:
        """Durably remove what lies after ``end``: what was refused must not be there one day."""
        try:
            file.truncate(end)
            file.sync()
        except NoSpace as error:
            raise OSError(errno.EIO, f"{self._path} cannot be cut back: {error}") from error
        self._allocated = end
