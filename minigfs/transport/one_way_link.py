"""One-way frames to one server, over a connection that is made again whenever it breaks.

::

    connect -> TLS -> token -> introduction -> welcome ->  frames ...
        ^                                                    |
        +--------- a pause, longer each time <--------- it breaks

Nothing is kept for a receiver that does not take it: while there is no connection, or too much
waits for a slow one, ``send`` refuses and the sender knows that the frame is lost. Short frames
that must be on time are sent before long ones that wait: the kernel is given little at once, so
that the queue is here, where it can be overtaken. A connection whose receiver vanished without a
goodbye is ended by the kernel (``TCP_USER_TIMEOUT``), not after minutes.
"""

import asyncio
import logging
import secrets
import socket
from collections import deque
from contextlib import suppress
from typing import Protocol, cast

from minigfs.config import TransportLimits
from minigfs.errors import MinigfsError, ProtocolError
from minigfs.transport.address import Address, TcpAddress, parse_address
from minigfs.transport.codec import (
    CONNECTION_CALL_ID,
    HEADER_BYTES,
    FrameKind,
    Header,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    error_of_body,
)
from minigfs.transport.handshake import (
    HANDSHAKE_LIMITS,
    NONCE_BYTES,
    Challenge,
    ClientHandshake,
)
from minigfs.transport.security import Security, client_context

__all__ = ["LinkOwner", "OneWayLink"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0  # from the first packet to the welcome
PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 0.5
VANISHED_MS = 2_000  # bytes the receiver's kernel does not acknowledge for so long
KERNEL_QUEUE_BYTES = 128 * 1024
WAITING_BYTES_MAX = 8 * 1024 * 1024
WAITING_COUNT_MAX = 10_000


class LinkOwner(Protocol):
    """What a link asks and tells whoever made it; all on the loop."""

    def introduce(self) -> bytes:
        """The first frame of a connection."""
        ...

    def welcomed(self, body: bytes) -> None:
        """The answer to it: from now on frames are sent. A ``MinigfsError`` ends the connection."""
        ...

    def lost(self) -> None:
        """The connection broke, and frames with it."""
        ...

    def refused(self, error: MinigfsError) -> None:
        """The receiver, or our own check of its welcome, says why it will not talk to us."""
        ...


class OneWayLink:
    """Belongs to a running loop, from its making to ``close``."""

    def __init__(
        self, address: Address, security: Security, owner: LinkOwner, limits: TransportLimits
    ) -> None:
        self.address = address
        self._security = security
        self._owner = owner
        self._limits = limits
        self._connection: _Connection | None = None
        self._last_failure = ""
        self._hurry = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._connect_for_ever())

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open

    def send(self, body: bytes, *, urgent: bool) -> bool:
        """Take a frame, to be sent by ``flush``; False if it is lost."""
        connection = self._connection
        return connection is not None and connection.put(body, urgent=urgent)

    def flush(self) -> None:
        """Send what was taken, as far as the receiver keeps up."""
        if self._connection is not None:
            self._connection.flush()

    def hurry(self) -> None:
        """The receiver is known to be there: if there is no connection, try now."""
        self._hurry.set()

    def move(self, address: Address) -> None:
        """The receiver listens elsewhere."""
        if address != self.address:
            self.address = address
            if self._connection is not None:
                self._connection.abort()
            self.hurry()

    def cancel(self) -> None:
        """End, in a moment."""
        self._task.cancel()

    async def close(self) -> None:
        """Return when it has ended."""
        self.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _connect_for_ever(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            self._hurry.clear()
            connection = _Connection(self._security, self._owner, self._limits)
            try:
                if await self._talk(connection):
                    pause_s = PAUSE_FIRST_S
            finally:
                self._connection = None
                connection.abort()
            # Not wait_for: up to Python 3.11 it forgets a cancel that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _talk(self, connection: "_Connection") -> bool:
        """One connection from its beginning to its end; whether frames were sent on it."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await _open(self.address, self._security, connection)
                self._connection = connection
                await connection.opened
        except MinigfsError as error:  # some are OSErrors as well
            self._owner.refused(error)
            return False
        except (OSError, TimeoutError) as error:
            if repr(error) != self._last_failure:
                self._last_failure = repr(error)
                logger.info("no connection to %s yet: %r", self.address, error)
            return False
        self._last_failure = ""
        await connection.ended
        self._owner.lost()
        return True


async def _open(address: Address, security: Security, connection: "_Connection") -> None:
    """Connect ``connection`` to ``address``; TLS on TCP only, as everywhere."""
    loop = asyncio.get_running_loop()
    where = parse_address(address)
    if not isinstance(where, TcpAddress):
        await loop.create_unix_connection(lambda: connection, where.path)
    elif security.tls is None:
        await loop.create_connection(lambda: connection, where.host, where.port)
    else:
        await loop.create_connection(
            lambda: connection,
            where.host,
            where.port,
            ssl=client_context(security.tls),
            server_hostname=where.host,
        )


def _note_error(opened: "asyncio.Future[None]") -> None:
    """Even if nobody waits for it any more."""
    if not opened.cancelled():
        opened.exception()


class _Connection(asyncio.Protocol):
    """One connection: proves the token, introduces itself, then only sends."""

    def __init__(self, security: Security, owner: LinkOwner, limits: TransportLimits) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(_note_error)
        self.ended: asyncio.Future[None] = loop.create_future()
        self._owner = owner
        self._limits = limits
        self._handshake = ClientHandshake(security, secrets.token_bytes(NONCE_BYTES))
        self._transport: asyncio.Transport | None = None
        self._proved = False
        self._received = bytearray()
        self._urgent: deque[bytes] = deque()
        self._patient: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_slow = False

    @property
    def is_open(self) -> bool:
        return self.opened.done() and not self.ended.done()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=KERNEL_QUEUE_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_QUEUE_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._write(FrameKind.HELLO, encode_body(self._handshake.hello()))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("closed in the handshake"))
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while (frame := self._next_frame()) is not None:
                self._act(*frame)
        except MinigfsError as error:
            self._give_up(error)

    def pause_writing(self) -> None:
        self._is_slow = True

    def resume_writing(self) -> None:
        self._is_slow = False
        self.flush()

    # What the link calls

    def put(self, body: bytes, *, urgent: bool) -> bool:
        is_full = self._waiting_bytes > (2 if urgent else 1) * WAITING_BYTES_MAX
        if not self.is_open or is_full or len(self._urgent) > WAITING_COUNT_MAX:
            return False
        header = encode_header(FrameKind.ONE_WAY, CONNECTION_CALL_ID, len(body), 0, self._limits)
        queue = self._urgent if urgent else self._patient
        queue.append(header + body)
        self._waiting_bytes += HEADER_BYTES + len(body)
        return True

    def flush(self) -> None:
        transport = self._transport
        if transport is None or not self.is_open:
            return
        while self._waiting_bytes and not self._is_slow:
            frames, frames_bytes = [], 0
            while frames_bytes < KERNEL_QUEUE_BYTES and (self._urgent or self._patient):
                frames.append((self._urgent or self._patient).popleft())
                frames_bytes += len(frames[-1])
            self._waiting_bytes -= frames_bytes
            transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # The handshake

    def _next_frame(self) -> tuple[Header, bytes] | None:
        received = self._received
        if len(received) < HEADER_BYTES:
            return None
        header = decode_header(received[:HEADER_BYTES], HANDSHAKE_LIMITS)
        end = HEADER_BYTES + header.body_bytes
        if len(received) < end:
            return None
        body = bytes(received[HEADER_BYTES:end])
        del received[:end]
        return header, body

    def _act(self, header: Header, body: bytes) -> None:
        match header.kind:
            case FrameKind.CHALLENGE if not self._proved:
                proof = self._handshake.answer(decode_body(body, Challenge))
                self._proved = True
                self._write(FrameKind.PROOF, encode_body(proof))
                self._write(FrameKind.ONE_WAY, self._owner.introduce())
            case FrameKind.ONE_WAY if self._proved and not self.opened.done():
                self._owner.welcomed(body)
                self.opened.set_result(None)
            case FrameKind.ERROR:
                raise error_of_body(body)
            case _:
                raise ProtocolError(f"{header.kind.name} out of turn")

    def _give_up(self, error: MinigfsError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        else:
            self._owner.refused(error)
        self.abort()

    def _write(self, kind: FrameKind, body: bytes) -> None:
        assert self._transport is not None
        header = encode_header(kind, CONNECTION_CALL_ID, len(body), 0, HANDSHAKE_LIMITS)
        self._transport.write(header + body)
