"""One chunk on its way through a chain of chunkservers (GFS section 3.2).

::

    writer --> server 1 --> server 2 --> server 3        data: each forwards, then stores
    writer <-- server 1 <-- server 2 <-- server 3        answer: only when durable here and below

Whatever fails, here or below, is answered at once; what the sender still has under way is skipped
by the connection, so the answer is never lost in a reset. The answer names the server that failed,
so that the writer can ask for other servers and send the chunk again. This server's own copy is
then discarded or, if it was sealed already, is garbage that the master knows as such, because the
writer's next allocation abandons the handle.
"""

import logging

from msgspec.structs import replace as with_fields

from minigfs.chunkserver.downstream import Downstream
from minigfs.chunkserver.liveness import watch_server
from minigfs.chunkserver.messages import (
    ChainFailure,
    ChunkData,
    ChunkWritten,
    WriteChunk,
    chain_timeout_ms,
)
from minigfs.chunkserver.store import ChunkStore
from minigfs.errors import MinigfsError
from minigfs.ids import ChunkserverId
from minigfs.ports import Buffer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.metrics import Counters
from minigfs.transport.stream import Stream

__all__ = ["WriteChain"]

logger = logging.getLogger(__name__)

# A writer may be slow for as long as it lives; when it dies, or its machine does, the connection
# breaks. This only bounds what a fault of ours could keep open.
_WRITER_IDLE_MS_MAX = 24 * 3_600_000


class WriteChain:
    """Answers ``WriteChunk``: this server's link of a chain."""

    def __init__(
        self,
        store: ChunkStore,
        *,
        chunkserver_id: ChunkserverId,
        pool: ConnectionPool,
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._store = store
        self._chunkserver_id = chunkserver_id
        self._pool = pool

    def handle(self, request: WriteChunk, stream: Stream) -> None:
        """Errors raised are this server's own; those below it become a ``failure``."""
        try:
            written = self._receive(request, stream)
        except _BelowFailed as failed:
            logger.warning("chunk %x: %s", request.handle, failed)
            written = ChunkWritten(length_bytes=0, digest=0, replicas=(), failure=failed.failure)
        stream.send(written)

    def _receive(self, request: WriteChunk, stream: Stream) -> ChunkWritten:
        whole, payload = request.whole, stream.request_payload
        with (  # those below begin first: what creating a file takes is spent side by side
            _Below(self._pool, request, payload) as below,
            self._store.create(request) as incoming,
        ):
            if whole is not None:
                incoming.append(whole.offset_bytes, payload, whole.sums)
            last = whole is not None
            while not last:
                data, payload = stream.receive(ChunkData, timeout_ms=_WRITER_IDLE_MS_MAX)
                last = data.last
                below.forward(data, payload)
                incoming.append(data.offset_bytes, payload, data.sums)
            length_bytes, digest = incoming.seal()
            self._counters.add("minigfs_chunkserver_written_bytes_total", length_bytes)
            self._counters.add("minigfs_chunkserver_writes_total")
            return ChunkWritten(
                length_bytes=length_bytes,
                digest=digest,
                replicas=(self._chunkserver_id, *below.replicas()),
            )


class _BelowFailed(Exception):
    """A server after this one failed; ``failure`` says which and how."""

    def __init__(self, failure: ChainFailure) -> None:
        super().__init__(f"{failure.address} failed: {failure.message}")
        self.failure = failure


class _Below(Downstream):
    """The rest of the chain. All methods raise ``_BelowFailed``."""

    def __init__(self, pool: ConnectionPool, request: WriteChunk, payload: Buffer) -> None:
        super().__init__()
        if request.chain:
            self._address, *rest = request.chain
            self._begin(
                pool,
                self._address,
                with_fields(request, chain=tuple(rest)),
                timeout_ms=chain_timeout_ms(len(rest)),
                payload=payload,
                watch=watch_server(pool, self._address),
            )

    def forward(self, data: ChunkData, payload: Buffer) -> None:
        self._send(data, payload)

    def replicas(self) -> tuple[ChunkserverId, ...]:
        """Wait until the chunk is durable on all servers below; who they are."""
        written = self._answer(ChunkWritten)
        if written is None:
            return ()
        if written.failure is not None:
            raise _BelowFailed(written.failure)
        return written.replicas

    def _failed(self, error: MinigfsError) -> _BelowFailed:
        return _BelowFailed(
            ChainFailure(address=self._address, code=error.code, message=error.message)
        )
