"""Several changes of the tree that happen together or not at all (DESIGN 6.8).

::

    with client.transaction() as change:
        change.require_missing("/out/_SUCCESS")
        with change.open_writer("/out/part-0") as file: ...
        change.rename("/staging/index", "/out/index", replace=True)
    # here all of it has happened; after an exception in the block, nothing

Writers store their bytes as they are written; the names appear with the one change at the end. What
the block reads is the tree as it was before, and others may change it meanwhile: what the changes
rely on is said by ``require`` and its kind, and checked by the master in that one change.
"""

from types import TracebackType
from typing import Protocol, Self

from minigfs.client.blocks import AllOrNothing
from minigfs.client.writer import FileWriter
from minigfs.errors import OutcomeUnknown, UsageError
from minigfs.ids import FileId
from minigfs.master.messages import (
    FileStatus,
    MakeDirectory,
    Remove,
    Rename,
)
from minigfs.master.tree_messages import Condition, SetPolicy, Transact, Transacted
from minigfs.ports import Buffer

__all__ = ["Transaction", "TransactionWriter"]

_NOTHING = FileId(0)


class _Client(Protocol):
    def open_writer(
        self, path: str, *, exclusive: bool = False, replication: int | None = None
    ) -> FileWriter: ...

    def transact(self, request: Transact) -> Transacted: ...


class Transaction(AllOrNothing):
    """Made by ``MinigfsClient.transaction``; for one thread at a time."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._conditions: list[Condition] = []
        self._changes: list[MakeDirectory | FileWriter | Rename | Remove | SetPolicy] = []
        self._fence = ("", 0)
        self._is_over = False

    def require(self, status: FileStatus) -> None:
        """What had this status must be there and unchanged."""
        self._conditions.append(
            Condition(
                path=status.path,
                file_id=status.file_id,
                modified_ms=status.modified_ms,
                size_bytes=status.size_bytes,
            )
        )

    def require_missing(self, path: str) -> None:
        self._conditions.append(Condition(path=path, file_id=_NOTHING))

    def require_existing(self, path: str) -> None:
        self._conditions.append(Condition(path=path))

    def fence(self, path: str, token: int) -> None:
        """Nothing happens unless ``token`` is the latest that was taken of the directory."""
        self._fence = (path, token)

    def open_writer(
        self, path: str, *, exclusive: bool = False, replication: int | None = None
    ) -> "TransactionWriter":
        """A file that appears with the transaction."""
        writer = self._client.open_writer(path, exclusive=exclusive, replication=replication)
        self.publish(writer)
        return TransactionWriter(writer)

    def publish(self, writer: FileWriter) -> None:
        """Let a writer's file appear with the transaction, which closes the writer."""
        self._add(writer)

    def rename(self, source: str, target: str, *, replace: bool = False) -> None:
        self._add(Rename(source=source, target=target, replace=replace))

    def remove(self, path: str, *, recursive: bool = False, now: bool = False) -> None:
        self._add(Remove(path=path, recursive=recursive, now=now))

    def make_directory(self, path: str, *, parents: bool = False, exist_ok: bool = False) -> None:
        self._add(MakeDirectory(path=path, parents=parents, exist_ok=exist_ok))

    def set_policy(
        self, path: str, *, replication: int | None = None, retention_ms: int | None = None
    ) -> None:
        self._add(SetPolicy(path=path, replication=replication, retention_ms=retention_ms))

    def commit(self) -> tuple[FileStatus, ...]:
        """Make the changes, in the order in which they were added; the files that appeared.

        Raises what one of them is refused for, ``PreconditionFailed`` or ``WriterFenced``; then
        nothing happened. After ``OutcomeUnknown`` all of it has happened, or nothing.
        """
        if self._is_over:
            raise UsageError("the transaction is over: begin another")
        self._is_over = True
        try:
            changes = tuple(
                one.finish() if isinstance(one, FileWriter) else one for one in self._changes
            )
            if not changes and not self._conditions:
                return ()
            done = self._client.transact(
                Transact(
                    changes=changes,
                    conditions=tuple(self._conditions),
                    fence_path=self._fence[0],
                    fence_token=self._fence[1],
                )
            )
        except OutcomeUnknown:
            for writer in self._writers():
                writer.leave()
            raise
        except BaseException:
            self._discard()
            raise
        for writer, status in zip(self._writers(), done.published, strict=True):
            writer.published(status)
        return done.published

    def discard(self) -> None:
        """Let nothing happen. Allowed at any time, repeatedly."""
        if not self._is_over:
            self._is_over = True
            self._discard()

    def _complete(self) -> None:
        self.commit()

    def _add(self, change: MakeDirectory | FileWriter | Rename | Remove | SetPolicy) -> None:
        if self._is_over:
            raise UsageError("the transaction is over: begin another")
        self._changes.append(change)

    def _writers(self) -> list[FileWriter]:
        return [one for one in self._changes if isinstance(one, FileWriter)]

    def _discard(self) -> None:
        for writer in self._writers():
            writer.discard()


class TransactionWriter:
    """A file of a transaction, being written. Leaving its block leaves the name to the
    transaction; an exception in its block gives the file up, and with it the transaction."""

    def __init__(self, writer: FileWriter) -> None:
        self._writer = writer

    @property
    def path(self) -> str:
        return self._writer.path

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._writer.size_bytes

    def write(self, data: Buffer) -> int:
        """Take all of ``data``; see ``FileWriter.write``."""
        return self._writer.write(data)

    def flush(self) -> None:
        """Raise what went wrong so far."""
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._writer.discard()
