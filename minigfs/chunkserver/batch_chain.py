"""The members after this one: a batch goes down the chain as it arrives, the answer comes up.

Deadlines shrink on the way down, so that a member that hangs is given up first by the one right
before it, which is then in time to name it.
"""

from types import TracebackType
from typing import Self

from msgspec.structs import replace as with_fields

from minigfs.chunkserver.append_messages import ApplyBatch, BatchApplied, BatchData
from minigfs.errors import MinigfsError, WriterFenced
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.stream import Stream

__all__ = ["BatchChain", "MemberFailed"]


class MemberFailed(Exception):
    """A member after this one failed; ``address`` says which, "" if it only was frozen."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class BatchChain:
    """The rest of the chain, which may be nobody. All methods raise ``MemberFailed``."""

    def __init__(self, pool: ConnectionPool, request: ApplyBatch) -> None:
        """``request`` as this member has it; the chain in it are those after this one."""
        self._stream: Stream | None = None
        if not request.chain:
            return
        self._address, *rest = request.chain
        self._timeout_ms = request.patience_ms * 4 // 5
        forwarded = with_fields(request, chain=tuple(rest), patience_ms=self._timeout_ms)
        try:
            self._stream = pool.open_stream(self._address, forwarded, timeout_ms=self._timeout_ms)
        except MinigfsError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.__exit__(exc_type, exc, traceback)

    def send(self, data: Buffer, *, last: bool) -> None:
        if self._stream is None:
            return
        try:
            self._stream.send(BatchData(last=last), data, timeout_ms=self._timeout_ms)
        except MinigfsError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Wait until the batch is durable on all members below."""
        if self._stream is None:
            return
        try:
            applied, _ = self._stream.receive(BatchApplied, timeout_ms=self._timeout_ms)
        except MinigfsError as error:
            raise self._failed(error) from error
        if applied.reason:
            raise MemberFailed(applied.failed, applied.reason)

    def _failed(self, error: MinigfsError) -> MemberFailed:
        is_fenced = isinstance(error, WriterFenced)
        return MemberFailed("" if is_fenced else self._address, error.message or error.code)
