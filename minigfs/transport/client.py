"""Calls to servers over connections that are kept for the next call.

What a failed call means is exact:

- ``Unreachable``: the server never had the whole request; nothing has happened.
- ``OutcomeUnknown``: it had the request, and the connection broke before the answer.
- ``DeadlineExceeded``: no answer in time; it may still come about. The connection is dropped.
- any other error came from the server, which has answered.

An idle connection found dead when it is taken, or while the request is being sent, is replaced
without a word, as the server cannot have acted on half a frame.

The pool needs no lock and survives a fork: its only state is one table per process id, changed by
single atomic operations. A child starts with an empty table and frees its copies of the parent's
idle sockets without ending the parent's connections.
"""

import os
import ssl
from collections import deque
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, cast

from minigfs.config import TransportLimits
from minigfs.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    MinigfsError,
    OutcomeUnknown,
    Unreachable,
)
from minigfs.ports import Clock, SystemClock
from minigfs.transport.address import Address
from minigfs.transport.codec import FrameKind
from minigfs.transport.connection import Connection, ConnectionBroken, ConnectionLate, Payload
from minigfs.transport.deadline import Deadline, Watch
from minigfs.transport.messages import Message, ReplyT, Request, reply_type
from minigfs.transport.network import Network, RealNetwork
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream

__all__ = ["ConnectionPool", "Stream", "reply_type_of"]


class PooledConnection(Connection):
    """A connection that counts its calls."""

    last_call_id = 0
    idle_since_ms = 0
    generation = 0  # how often its pool had been closed when it was made


class ConnectionPool:
    """Thread-safe and fork-safe; one for all servers of a cluster."""

    def __init__(
        self,
        security: Security,
        *,
        limits: TransportLimits | None = None,
        network: Network | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._security = security
        self._limits = limits or TransportLimits()
        self._network: Network = network or RealNetwork()
        self._clock: Clock = clock or SystemClock()
        self._idle_by_process: dict[int, dict[Address, deque[PooledConnection]]] = {}
        self._generation = 0

    def call(
        self,
        address: Address,
        request: Request[ReplyT],
        *,
        timeout_ms: int = 10_000,
        payload: Payload = b"",
    ) -> ReplyT:
        """Send a request and wait for its reply; errors as the module says."""
        deadline = Deadline(self._clock, timeout_ms)
        stream = self._begin(address, request, payload, deadline)
        try:
            reply, _ = stream.receive_by(reply_type_of(type(request)), deadline)
        finally:
            stream.finish()
        return cast("ReplyT", reply)

    def open_stream(
        self,
        address: Address,
        request: Request[Any],
        *,
        timeout_ms: int = 10_000,
        payload: Payload = b"",
        watch: Watch | None = None,
    ) -> Stream:
        """Send a request whose call goes on; the timeout is for getting the request out.

        ``watch`` is asked about a server that is silent, here and as long as the call goes on.
        """
        deadline = Deadline(self._clock, timeout_ms, watch)
        return self._begin(address, request, payload, deadline, watch)

    def close(self) -> None:
        """End the idle connections now, and those of calls that go on when these have ended. The
        pool can be used again."""
        self._generation += 1
        for idle in list(self._idle().values()):
            while (connection := pop(idle)) is not None:
                connection.close()

    def _begin(
        self,
        address: Address,
        request: Request[Any],
        payload: Payload,
        deadline: Deadline,
        watch: Watch | None = None,
    ) -> Stream:
        while True:
            connection = self._take_idle(address)
            is_new = connection is None
            if connection is None:
                connection = self._connect(address, deadline)
            call_id = connection.last_call_id = connection.last_call_id + 1
            stream = Stream(
                connection,
                call_id,
                self._clock,
                broken=OutcomeUnknown,
                release=partial(self._keep, address, connection),
                watch=watch,
            )
            try:
                connection.send(FrameKind.REQUEST, call_id, request, payload, deadline=deadline)
            except ConnectionLate as error:
                connection.close()
                raise late(address, deadline) from error
            except ConnectionBroken as error:
                reason = stream.last_words() or unreachable(address, str(error))
                connection.close()
                if is_new:
                    raise reason from error
                continue
            except BaseException:  # too large a frame, or Ctrl-C: nothing else may use it
                connection.close()
                raise
            return stream

    def _connect(self, address: Address, deadline: Deadline) -> PooledConnection:
        try:
            link = self._network.connect(address, deadline, self._security.tls)
        except MinigfsError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise AuthenticationFailed(
                f"{address} shows a certificate we do not trust ({error.verify_message}): "
                "check the address and the CA file"
            ) from error
        except TimeoutError as error:
            raise late(address, deadline) from error
        except OSError as error:
            raise unreachable(address, error.strerror or str(error)) from error
        connection = PooledConnection(link, self._limits)
        connection.generation = self._generation
        try:
            connection.prove_as_client(self._security, deadline)
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectionLate):
                raise late(address, deadline) from error
            if isinstance(error, ConnectionBroken):
                raise unreachable(address, str(error)) from error
            if isinstance(error, MinigfsError):
                raise type(error)(f"{address}: {error.message}") from error
            raise
        return connection

    def _idle(self) -> dict[Address, deque[PooledConnection]]:
        process = os.getpid()
        idle = self._idle_by_process.get(process)
        if idle is None:
            idle = self._idle_by_process.setdefault(process, {})
            for parent in [known for known in list(self._idle_by_process) if known != process]:
                for inherited in self._idle_by_process.pop(parent, {}).values():
                    while (connection := pop(inherited)) is not None:
                        connection.close()
        return idle

    def _take_idle(self, address: Address) -> PooledConnection | None:
        idle = self._idle().get(address)
        while idle is not None and (connection := pop(idle)) is not None:
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, address: Address, connection: PooledConnection) -> None:
        idle = self._idle().setdefault(address, deque())
        now_ms = connection.idle_since_ms = self._clock.monotonic_ms()
        is_of_before = connection.generation != self._generation
        if is_of_before or len(idle) >= self._limits.idle_connection_count_max:
            connection.close()
            return
        idle.append(connection)
        with suppress(IndexError):  # other threads take from the same row
            if now_ms - idle[0].idle_since_ms > self._limits.idle_connection_ms_max:
                idle.popleft().close()


def pop(idle: deque[PooledConnection]) -> PooledConnection | None:
    """The connection used last, which is the likeliest to be alive."""
    try:
        return idle.pop()
    except IndexError:
        return None


def late(address: Address, deadline: Deadline) -> DeadlineExceeded:
    within = f" within {deadline.timeout_ms} ms" if deadline.is_over else ""
    return DeadlineExceeded(f"{address} did not answer{within}: it may be overloaded or cut off")


def unreachable(address: Address, reason: str) -> Unreachable:
    return Unreachable(
        f"cannot reach {address} ({reason}): is the server running there? "
        "`minimr up` (or `minigfs up`) starts those of this machine"
    )


@lru_cache(maxsize=1024)
def reply_type_of(request: type[Request[Any]]) -> type[Message]:
    return reply_type(request)
