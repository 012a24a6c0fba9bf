"""The members after this one: a batch goes down the chain as it arrives, the answer comes up.

Deadlines shrink on the way down, so that a member that hangs is given up first by the one right
before it, which is then in time to name it.
"""

from msgspec.structs import replace as with_fields

from minigfs.chunkserver.append_messages import ApplyBatch, BatchApplied, BatchData
from minigfs.chunkserver.downstream import Downstream
from minigfs.errors import MinigfsError, WriterFenced
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool

__all__ = ["BatchChain", "MemberFailed"]


class MemberFailed(Exception):
    """A member after this one failed; ``address`` says which, "" if it only was frozen."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class BatchChain(Downstream):
    """The rest of the chain. All methods raise ``MemberFailed``."""

    def __init__(self, pool: ConnectionPool, request: ApplyBatch) -> None:
        """``request`` as this member has it; the chain in it are those after this one."""
        super().__init__()
        if request.chain:
            self._address, *rest = request.chain
            timeout_ms = request.patience_ms * 4 // 5
            forwarded = with_fields(request, chain=tuple(rest), patience_ms=timeout_ms)
            self._begin(pool, self._address, forwarded, timeout_ms=timeout_ms)

    def send(self, data: Buffer, *, last: bool) -> None:
        self._send(BatchData(last=last), data)

    def finish(self) -> None:
        """Wait until the batch is durable on all members below."""
        applied = self._answer(BatchApplied)
        if applied is not None and applied.reason:
            raise MemberFailed(applied.failed, applied.reason)

    def _failed(self, error: MinigfsError) -> MemberFailed:
        is_fenced = isinstance(error, WriterFenced)
        return MemberFailed("" if is_fenced else self._address, error.message or error.code)
