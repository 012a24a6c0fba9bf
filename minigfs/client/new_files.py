"""Beginning files, and making a small one as a whole.

A small file's bytes are stored in about the time that the master takes for its leave to write, so
whoever has a spare file to store them in does both side by side. The leave brings a spare for the
next file. Therefore the first file of a process waits for the leave, and only with the second, soon
after, the process begins to keep a spare: one that writes a single file leaves nothing behind that
the master must discard.
"""

from contextlib import suppress

from minigfs.client.allocation import ChunkAllocator, NewFile
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.client.spare_files import SpareFile, SpareFiles
from minigfs.client.upload import UploadContext
from minigfs.client.writer import FileWriter
from minigfs.errors import ClusterError, MinigfsError, WriterFenced
from minigfs.master.messages import FileStatus, PrepareWrite, WriteTerms
from minigfs.ports import Buffer
from minigfs.transport.begun_call import BegunCall
from minigfs.transport.client import ConnectionPool

__all__ = ["NewFiles"]


class NewFiles:
    """Of one cluster. Thread-safe."""

    def __init__(
        self,
        masters: MasterCaller,
        leases: WriterLeases,
        spares: SpareFiles,
        *,
        pool: ConnectionPool,
        timeout_ms: int,
    ) -> None:
        self._masters = masters
        self._leases = leases
        self._spares = spares
        self._pool = pool
        self._timeout_ms = timeout_ms

    def open_writer(self, path: str, exclusive: bool, replication: int | None) -> FileWriter:
        """With the master's leave to write, which says what of it would be refused."""
        return self._writer(self._prepared(path, exclusive, replication))

    def write_small(
        self, path: str, data: Buffer, *, exclusive: bool, replication: int | None
    ) -> FileStatus:
        """A whole file, of a block at most; what may be raised is that of a writer."""
        are_wanted = self._spares.are_wanted()
        spare = self._spares.take()
        if spare is not None:
            file = NewFile(
                path=path,
                exclusive=exclusive,
                replication=replication,
                chunk_bytes=spare.created.chunk_bytes,
                spare=spare,
            )
        else:
            file = self._prepared(path, exclusive, replication)
            spare = file.spare if are_wanted else None
        status = None if spare is None else self._write_while_asking(file, spare, data)
        if status is not None:
            return status
        if spare is not None:
            file = self._prepared(path, exclusive, replication)
        with self._writer(file) as writer:
            writer.write(data)
            return writer.close()

    def _write_while_asking(
        self, file: NewFile, spare: SpareFile, data: Buffer
    ) -> FileStatus | None:
        """None if it came to nothing: a file at this path has another number of replicas than the
        spare, or the master has given the spare up, as it does when the connections of a process
        break."""
        asked_ms = self._spares.now_ms()
        request = PrepareWrite(
            path=file.path,
            exclusive=file.exclusive,
            replication=file.replication,
            holder=self._leases.holder,
        )
        writer = self._writer(file)
        try:
            with self._masters.begin(request) as asked:
                try:
                    writer.write(data)
                    writer.finish()
                except MinigfsError:
                    with suppress(ClusterError):
                        self._answer(asked, asked_ms)  # a refusal says more than this
                    raise
                terms = self._answer(asked, asked_ms)
            if terms.replication != spare.created.replication:
                writer.discard()
                return None
            return writer.close()
        except WriterFenced:
            writer.discard()
            self._spares.forget()  # what was given before is in doubt as well
            return None
        except BaseException:
            writer.discard()
            raise

    def _answer(self, asked: BegunCall[WriteTerms], asked_ms: int) -> WriteTerms:
        """A spare that comes with it is for the next file."""
        terms = asked.answer()
        if terms.spare is not None:
            self._spares.given(terms.spare, asked_ms).put_back()
        return terms

    def _writer(self, file: NewFile) -> FileWriter:
        context = UploadContext(
            pool=self._pool,
            allocator=ChunkAllocator(self._masters, self._leases, file),
            path=file.path,
            chunk_bytes=file.chunk_bytes,
            timeout_ms=self._timeout_ms,
        )
        return FileWriter(context, file=file, masters=self._masters, leases=self._leases)

    def _prepared(self, path: str, exclusive: bool, replication: int | None) -> NewFile:
        """The master's leave to write, with a spare file to write into if there is one."""
        spare, asked_ms = self._spares.take(), self._spares.now_ms()
        request = PrepareWrite(
            path=path,
            exclusive=exclusive,
            replication=replication,
            holder="" if spare is not None else self._leases.holder,
        )
        try:
            terms = self._masters.call(request)
        except BaseException:
            if spare is not None:
                spare.put_back()
            raise
        if terms.spare is not None:
            spare = self._spares.given(terms.spare, asked_ms)
        elif spare is not None and spare.created.replication != terms.replication:
            spare.put_back()
            spare = None
        return NewFile(
            path=path,
            exclusive=exclusive,
            replication=replication,
            chunk_bytes=terms.chunk_bytes,
            spare=spare,
        )
