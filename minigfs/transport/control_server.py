"""The server for control calls: asyncio protocols, many calls of one connection at a time.

Each request runs as a task of its own, so one that waits (a long poll) holds up nobody; replies go
back in the order they are ready, joined by call id, and those of one turn of the loop leave in one
write. A connection stops being read while its peer takes no replies or has too many requests
running, so neither can fill our memory. When a connection ends, its running handlers are cancelled.

A server may also take one-way frames, which no task stands behind: each is handed over in the turn
of the loop that received it, before any request that waits to run.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, Protocol, TypeAlias, cast

from minigfs.config import TransportLimits
from minigfs.errors import MinigfsError, ProtocolError
from minigfs.transport.address import Address
from minigfs.transport.codec import (
    CONNECTION_CALL_ID,
    HEADER_BYTES,
    INTERNAL_CODE,
    FrameKind,
    Header,
    RequestDecoder,
    WireError,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
)
from minigfs.transport.handshake import (
    HANDSHAKE_LIMITS,
    NONCE_BYTES,
    Hello,
    Proof,
    ServerHandshake,
)
from minigfs.transport.messages import Message, Request
from minigfs.transport.network import AsyncListener, Network, RealNetwork
from minigfs.transport.security import Security

__all__ = [
    "ControlConnection",
    "ControlHandler",
    "ControlServer",
    "OneWayReceiver",
    "OneWaySender",
    "current_connection",
]

ControlHandler: TypeAlias = Callable[[Any], Awaitable[Message]]


class OneWaySender(Protocol):
    """The other end of a connection on which one-way frames came."""

    @property
    def peer(self) -> str:
        """Its network address, for messages."""
        ...

    def send_one_way(self, body: bytes) -> None: ...

    def abort(self) -> None:
        """End the connection now; ``OneWayReceiver.ended`` follows."""
        ...


class OneWayReceiver(Protocol):
    """Takes the one-way frames of one connection, on the loop, without waiting for anything."""

    def received(self, body: bytes) -> None:
        """A ``MinigfsError`` is told to the sender and ends the connection."""
        ...

    def ended(self) -> None: ...


logger = logging.getLogger(__name__)

_current: ContextVar["ControlConnection | None"] = ContextVar("control_connection", default=None)


def current_connection() -> "ControlConnection | None":
    """In a handler: the connection that its request came on; None if it came on none."""
    return _current.get()


STOP_TIMEOUT_S = 2.0  # for replies on their way to peers that do not read


class ControlServer:
    """Serves ``handlers`` by request type, from ``start`` to ``stop``, on the running loop."""

    def __init__(
        self,
        handlers: Mapping[type[Request[Any]], ControlHandler],
        security: Security,
        *,
        network: Network | None = None,
        limits: TransportLimits | None = None,
        name: str = "control",
        one_way: Callable[[OneWaySender], OneWayReceiver] | None = None,
        one_way_limits: TransportLimits | None = None,
    ) -> None:
        """``one_way`` takes connections with one-way frames; the first is held to ``limits``, as
        its sender is not known yet, the others to ``one_way_limits``."""
        self.handlers = dict(handlers)
        self.decoder = RequestDecoder(self.handlers)
        self.security = security
        self.limits = limits or TransportLimits()
        self.name = name
        self.one_way = one_way
        self.one_way_limits = one_way_limits or self.limits
        self.connections: set[ControlConnection] = set()
        self._network: Network = network or RealNetwork()
        self._listener: AsyncListener | None = None

    async def start(self, address: Address) -> Address:
        """Listen; returns the bound address."""
        assert self._listener is None, "a server is started once"
        self._listener = await self._network.serve(
            address,
            lambda: ControlConnection(self),
            self.security.tls,
            handshake_timeout_ms=self.limits.handshake_timeout_ms,
        )
        return self._listener.address

    @property
    def is_listening(self) -> bool:
        return self._listener is not None

    async def stop(self) -> None:
        """Stop listening, cancel running handlers, end all connections."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        connections = list(self.connections)
        handlers = [task for connection in connections for task in connection.running]
        for connection in connections:
            connection.close()
        await asyncio.gather(*handlers, return_exceptions=True)
        ends = [connection.ended.wait() for connection in connections]
        try:
            await asyncio.wait_for(asyncio.gather(*ends), STOP_TIMEOUT_S)
        except TimeoutError:
            for connection in connections:
                connection.abort()
            await asyncio.gather(*(connection.ended.wait() for connection in connections))
        await listener.wait_closed()


class ControlConnection(asyncio.Protocol):
    """One client: handshake, then requests."""

    def __init__(self, server: ControlServer) -> None:
        self.ended = asyncio.Event()
        self.peer = "nobody yet"
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # of its handlers
        self._context.run(_current.set, self)
        self._at_end: list[Callable[[], None]] = []
        self._handshake = ServerHandshake(server.security, secrets.token_bytes(NONCE_BYTES))
        self._hello: Hello | None = None
        self._proved = False
        self._buffer = bytearray()
        self.running: set[asyncio.Task[None]] = set()
        self._one_way: OneWayReceiver | None = None
        self._outgoing: list[bytes] = []
        self._peer_is_slow = False
        self._reading = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "a local process"
        if len(self._server.connections) >= self._server.limits.connection_count_max:
            logger.warning("%s: too many connections, refusing %s", self._server.name, self.peer)
            self._closing = True
            transport.close()
        if not self._server.is_listening:  # accepted in the turn of the loop that stopped it
            self.abort()
        self._server.connections.add(self)
        timeout_s = self._server.limits.handshake_timeout_ms / 1000
        self._handshake_timer = self._loop.call_later(timeout_s, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._handshake_timer.cancel()
        for task in self.running:
            task.cancel()
        self._server.connections.discard(self)
        self.ended.set()
        if self._one_way is not None:
            self._one_way.ended()
        acts, self._at_end = self._at_end, []
        for act in acts:
            act()

    def at_end(self, act: Callable[[], None]) -> None:
        """Have ``act`` called, on the loop, when the connection has ended; at once if it has."""
        if self.ended.is_set():
            act()
        else:
            self._at_end.append(act)

    def not_at_end(self, act: Callable[[], None]) -> None:
        """Take back what was given to ``at_end``; nothing happens if it was called already."""
        with suppress(ValueError):
            self._at_end.remove(act)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._consume()

    def pause_writing(self) -> None:
        self._peer_is_slow = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._peer_is_slow = False
        self._update_reading()
        self._consume()

    def close(self) -> None:
        """Cancel what runs, send what is ready, then end the connection."""
        self._closing = True
        for task in self.running:
            task.cancel()
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._closing = True
        self._transport.abort()

    def send_one_way(self, body: bytes) -> None:
        """See ``OneWaySender``."""
        self._send(FrameKind.ONE_WAY, CONNECTION_CALL_ID, body)

    def _may_read(self) -> bool:
        limit = self._server.limits.running_request_count_max
        return not self._closing and not self._peer_is_slow and len(self.running) < limit

    def _update_reading(self) -> None:
        reading = self._may_read()
        if reading != self._reading and not self._closing:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _consume(self) -> None:
        """Act on every whole frame received, as far as the limits allow."""
        at = 0
        try:
            while self._may_read() and len(self._buffer) - at >= HEADER_BYTES:
                header = decode_header(self._buffer[at : at + HEADER_BYTES], self._limits())
                if header.payload_bytes:
                    raise ProtocolError("control calls carry no payload")
                end = at + HEADER_BYTES + header.body_bytes
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[at + HEADER_BYTES : end])
                at = end
                self._act(header, body)
        except MinigfsError as error:
            logger.warning("%s: refused %s: %s", self._server.name, self.peer, error)
            self._send_error(CONNECTION_CALL_ID, error.code, error.message, error.hint)
            self.close()
        finally:
            del self._buffer[:at]
            self._update_reading()

    def _limits(self) -> TransportLimits:
        if self._one_way is not None:
            return self._server.one_way_limits
        return self._server.limits if self._proved else HANDSHAKE_LIMITS

    def _act(self, header: Header, body: bytes) -> None:
        if self._proved:
            if header.kind is FrameKind.ONE_WAY and self._server.one_way is not None:
                if self._one_way is None:
                    self._one_way = self._server.one_way(self)
                self._one_way.received(body)
                return
            if header.kind is not FrameKind.REQUEST:
                raise ProtocolError(f"{header.kind.name} out of turn")
            task = self._loop.create_task(self._answer(header.call_id, body), context=self._context)
            self.running.add(task)
            task.add_done_callback(self._answered)
        elif self._hello is None and header.kind is FrameKind.HELLO:
            self._hello = decode_body(body, Hello)
            challenge = encode_body(self._handshake.challenge(self._hello))
            self._send(FrameKind.CHALLENGE, CONNECTION_CALL_ID, challenge)
        elif self._hello is not None and header.kind is FrameKind.PROOF:
            self._handshake.verify(self._hello, decode_body(body, Proof))
            self._proved = True
            self._handshake_timer.cancel()
        else:
            raise ProtocolError(f"{header.kind.name} before the token was proved")

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not self._reading:
            self._update_reading()
            self._consume()

    async def _answer(self, call_id: int, body: bytes) -> None:
        request_name = "a request"
        try:
            request = self._server.decoder.decode(body)
            request_name = type(request).__name__
            reply = encode_body(await self._server.handlers[type(request)](request))
            self._send(FrameKind.MESSAGE, call_id, reply)
        except MinigfsError as error:
            self._send_error(call_id, error.code, error.message, error.hint)
        except Exception as error:
            # The boundary of a call: whatever a handler raises must not end the server, and the
            # client must hear that its call has failed.
            logger.exception("%s: %s failed", self._server.name, request_name)
            what = f"{request_name} failed with {type(error).__name__}: see the server's log"
            self._send_error(call_id, INTERNAL_CODE, what)

    def _send_error(self, call_id: int, code: str, message: str, hint: str = "") -> None:
        error = WireError(code=code, message=message, hint=hint)
        self._send(FrameKind.ERROR, call_id, encode_body(error))

    def _send(self, kind: FrameKind, call_id: int, body: bytes) -> None:
        header = encode_header(kind, call_id, len(body), 0, self._server.limits)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += (header, body)

    def _flush(self) -> None:
        if self._outgoing and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
