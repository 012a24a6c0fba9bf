"""What a failed call says about the server is exact, wherever the connection breaks.

The connection of a call is broken after every possible number of bytes, in both directions; the
server counts how often it ran the request.
"""

import os
import signal
from collections.abc import Iterator, Sequence

import pytest

from minigfs.errors import DeadlineExceeded, OutcomeUnknown, Unreachable
from minigfs.transport.address import Address
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import Empty, Request
from minigfs.transport.network import Link, RealNetwork
from minigfs.transport.security import Security, TlsFiles
from minigfs.transport.stream import Stream
from tests.minigfs.transport.forked import FORKS, forked_server


class Change(Request[Empty], frozen=True, tag="test.change"):
    pass


class Service:
    """Counts the changes made."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, request: Change, stream: Stream) -> None:
        self.count += 1
        stream.send(Empty())


class FrailLink:
    """Breaks after so many bytes sent or received, as a real one might anywhere."""

    def __init__(self, link: Link, send_bytes: int, receive_bytes: int) -> None:
        self.peer = link.peer
        self._link = link
        self._send_bytes = send_bytes
        self._receive_bytes = receive_bytes
        self.sent = 0
        self.received = 0

    def establish(self, deadline: Deadline) -> None:
        self._link.establish(deadline)

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        data = b"".join(buffers)
        part = data[: self._send_bytes - self.sent]
        self._link.send([memoryview(part)], deadline)
        self.sent += len(part)
        if len(part) < len(data):
            self._link.shutdown()
            raise ConnectionResetError("broken by the test")

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        allowed = self._receive_bytes - self.received
        if allowed <= 0:
            self._link.shutdown()
            raise ConnectionResetError("broken by the test")
        count = self._link.receive_into(buffer[:allowed], deadline)
        self.received += count
        return count

    def is_quiet(self) -> bool:
        return self._link.is_quiet()

    def shutdown(self) -> None:
        self._link.shutdown()

    def close(self) -> None:
        self._link.close()

    def forget(self) -> None:
        self._link.forget()


class FrailNetwork(RealNetwork):
    def __init__(self, send_bytes: int = 1 << 30, receive_bytes: int = 1 << 30) -> None:
        self._limits = (send_bytes, receive_bytes)
        self.links: list[FrailLink] = []

    def connect(self, address: Address, deadline: Deadline, tls: TlsFiles | None = None) -> Link:
        link = FrailLink(super().connect(address, deadline, tls), *self._limits)
        self.links.append(link)
        return link


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def address(security: Security, service: Service) -> Iterator[str]:
    server = BulkServer({Change: service.handle}, security)
    yield server.start("127.0.0.1:0")
    server.stop()


def bytes_of_a_call(security: Security, address: str) -> tuple[int, int]:
    network = FrailNetwork()
    pool = ConnectionPool(security, network=network)
    pool.call(address, Change())
    pool.close()
    (link,) = network.links
    return link.sent, link.received


def test_a_break_while_sending_is_unreachable_and_nothing_was_done(
    security: Security, address: str, service: Service
) -> None:
    sent, _ = bytes_of_a_call(security, address)
    for send_bytes in range(0, sent, 3):
        pool = ConnectionPool(security, network=FrailNetwork(send_bytes=send_bytes))
        with pytest.raises(Unreachable, match=address):
            pool.call(address, Change())
    assert service.count == 1  # the call that was measured


def test_a_break_after_sending_is_an_unknown_outcome(
    security: Security, address: str, service: Service
) -> None:
    _, received = bytes_of_a_call(security, address)
    reply_bytes = 24 + 1  # the header and an empty map
    for receive_bytes in range(0, received, 3):
        pool = ConnectionPool(security, network=FrailNetwork(receive_bytes=receive_bytes))
        handshake_done = receive_bytes >= received - reply_bytes
        with pytest.raises(OutcomeUnknown if handshake_done else Unreachable, match=address):
            pool.call(address, Change())


def test_an_idle_connection_that_breaks_while_sending_is_replaced_silently(
    security: Security, address: str, service: Service
) -> None:
    sent, _ = bytes_of_a_call(security, address)
    network = FrailNetwork(send_bytes=sent + 10)  # a few bytes into the second call
    pool = ConnectionPool(security, network=network)
    pool.call(address, Change())
    pool.call(address, Change())
    assert len(network.links) == 2
    assert service.count == 3  # with the call that was measured
    pool.close()


@FORKS
def test_a_server_killed_while_it_works_leaves_the_outcome_unknown(security: Security) -> None:
    def die(request: Change, stream: Stream) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with forked_server(security, {Change: die}) as (address, _):
        with pytest.raises(OutcomeUnknown, match=address):
            ConnectionPool(security).call(address, Change())
        with pytest.raises(Unreachable, match=address):
            ConnectionPool(security).call(address, Change())


def test_a_server_that_stops_while_it_works_leaves_the_outcome_unknown(
    security: Security,
) -> None:
    servers: list[BulkServer] = []

    def stop(request: Change, stream: Stream) -> None:
        servers[0].stop()

    servers.append(BulkServer({Change: stop}, security))
    address = servers[0].start("127.0.0.1:0")
    with pytest.raises(OutcomeUnknown, match=address):
        ConnectionPool(security).call(address, Change())


@FORKS
def test_a_frozen_server_is_late_and_its_connection_is_not_used_again(
    security: Security,
) -> None:
    def answer(request: Change, stream: Stream) -> None:
        stream.send(Empty())

    with forked_server(security, {Change: answer}) as (address, child):
        pool = ConnectionPool(security)
        pool.call(address, Change())
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)  # until it has stopped
        with pytest.raises(DeadlineExceeded, match=address):
            pool.call(address, Change(), timeout_ms=50)
        assert not pool._idle()[address]
        os.kill(child, signal.SIGCONT)
        pool.call(address, Change())
        pool.close()
