"""The server for bulk bytes: one thread per connection, blocking links, handlers that stream.

Clients keep few connections and use each for many calls, so threads are few and long-lived, and a
handler may block as long as it likes: it holds up nobody but its own client.

A handler's error becomes an error frame. The connection goes on if it is in step with the client:
frames the client still sends for the failed call are skipped by their call id.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from minigfs.config import TransportLimits
from minigfs.errors import AuthenticationFailed, MinigfsError, ProtocolError, Unreachable
from minigfs.ports import Clock, SystemClock
from minigfs.transport.address import Address
from minigfs.transport.codec import (
    CONNECTION_CALL_ID,
    INTERNAL_CODE,
    Frame,
    FrameKind,
    RequestDecoder,
)
from minigfs.transport.connection import Connection, ConnectionBroken, ConnectionLate
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import Request
from minigfs.transport.network import Link, Listener, Network, RealNetwork
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream

__all__ = ["BulkHandler", "BulkServer"]

BulkHandler: TypeAlias = Callable[[Any, Stream], None]

logger = logging.getLogger(__name__)

ERROR_TIMEOUT_MS = 5_000  # a client that takes no error frame for this long is given up
ACCEPT_PAUSE_S = 0.1  # when the system has no descriptors left, until some are freed
STOP_TIMEOUT_S = 10.0  # for a handler that waits for a server after this one


class BulkServer:
    """Serves ``handlers`` by request type, from ``start`` to ``stop``."""

    def __init__(
        self,
        handlers: Mapping[type[Request[Any]], BulkHandler],
        security: Security,
        *,
        network: Network | None = None,
        limits: TransportLimits | None = None,
        clock: Clock | None = None,
        name: str = "bulk",
    ) -> None:
        self._handlers = dict(handlers)
        self._decoder = RequestDecoder(self._handlers)
        self._security = security
        self._network: Network = network or RealNetwork()
        self._limits = limits or TransportLimits()
        self._clock: Clock = clock or SystemClock()
        self._name = name
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._listener: Listener | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self, address: Address) -> Address:
        """Listen; returns the bound address."""
        assert self._listener is None, "a server is started once"
        self._listener = self._network.listen(address, self._security.tls)
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name=f"{self._name}-accept", daemon=True
        )
        self._acceptor.start()
        return self._listener.address

    def stop(self) -> None:
        """Stop listening, end all connections, and wait for their threads."""
        if self._listener is None or self._acceptor is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._listener.close()
        self._acceptor.join(STOP_TIMEOUT_S)
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.shutdown()
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join(STOP_TIMEOUT_S)

    def _accept(self, listener: Listener) -> None:
        while not self._stopping.is_set():
            try:
                link = listener.accept()
            except OSError as error:
                logger.warning("%s: cannot accept a connection: %s", self._name, error)
                self._stopping.wait(ACCEPT_PAUSE_S)
                continue
            if link is None:
                return
            connection = Connection(link, self._limits)
            thread = threading.Thread(
                target=self._serve,
                args=(link, connection),
                name=f"{self._name}-{link.peer}",
                daemon=True,
            )
            with self._lock:
                self._forget_ended()
                full = len(self._connections) >= self._limits.connection_count_max
                if not full:
                    self._connections[connection] = thread
            if full:
                logger.warning("%s: too many connections, refusing %s", self._name, link.peer)
                connection.close()
            else:
                thread.start()

    def _forget_ended(self) -> None:
        """Here, and not at a thread's own end, so that ``stop`` waits for the last of each."""
        for connection in [c for c, thread in self._connections.items() if not thread.is_alive()]:
            del self._connections[connection]

    def _serve(self, link: Link, connection: Connection) -> None:
        try:
            handshake = Deadline(self._clock, self._limits.handshake_timeout_ms)
            link.establish(handshake)
            connection.prove_as_server(self._security, handshake)
            self._serve_calls_or_say_why_not(connection)
        except AuthenticationFailed as error:
            logger.warning("%s: refused %s: %s", self._name, link.peer, error)
        except ProtocolError as error:
            logger.warning("%s: dropped %s: %s", self._name, link.peer, error)
        except (ConnectionBroken, ConnectionLate, OSError) as error:
            logger.debug("%s: %s is gone: %r", self._name, link.peer, error)
        finally:
            connection.close()

    def _serve_calls_or_say_why_not(self, connection: Connection) -> None:
        try:
            self._serve_calls(connection)
        except ProtocolError as error:
            deadline = Deadline(self._clock, ERROR_TIMEOUT_MS)
            if connection.can_send:
                connection.send_error(
                    CONNECTION_CALL_ID, error.code, error.message, deadline=deadline
                )
            raise

    def _serve_calls(self, connection: Connection) -> None:
        last_call_id = 0
        for_ever = Deadline(self._clock, None)
        while connection.usable and not self._stopping.is_set():
            frame = connection.receive(deadline=for_ever)
            if frame.kind is FrameKind.MESSAGE and frame.call_id == last_call_id:
                continue  # the rest of a call that has failed
            if frame.kind is not FrameKind.REQUEST or frame.call_id <= last_call_id:
                raise connection.out_of_turn(frame)
            last_call_id = frame.call_id
            self._serve_call(connection, frame)

    def _serve_call(self, connection: Connection, frame: Frame) -> None:
        stream = Stream(
            connection,
            frame.call_id,
            self._clock,
            broken=Unreachable,
            request_payload=frame.payload,
        )
        request_name = "a request"
        try:
            request = self._decoder.decode(frame.body)
            request_name = type(request).__name__
            self._handlers[type(request)](request, stream)
            if stream.sent_count:
                return
            error = MinigfsError(f"{request_name} was left without an answer")
            code = INTERNAL_CODE
        except MinigfsError as raised:
            error, code = raised, raised.code
        except Exception as raised:
            # The boundary of a call: whatever a handler raises must not end the server, and the
            # client must hear that its call has failed.
            logger.exception("%s: %s failed", self._name, request_name)
            error = MinigfsError(f"{request_name} failed with {type(raised).__name__}: see the log")
            code = INTERNAL_CODE
        if connection.can_send:
            deadline = Deadline(self._clock, ERROR_TIMEOUT_MS)
            connection.send_error(frame.call_id, code, error.message, deadline=deadline)
