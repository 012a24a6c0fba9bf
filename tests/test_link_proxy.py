"""The proxy that the tests of masters cut links with does what it says."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.link_proxy import LinkProxy

QUIET_S = 0.2
NOBODY = 2**30  # no process has that id


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.server.heard.append(data)  # type: ignore[attr-defined]
            self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.heard: list[bytes] = []


@contextmanager
def echo_server() -> Iterator[_EchoServer]:
    with _EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


@pytest.fixture
def links() -> Iterator[LinkProxy]:
    with LinkProxy() as links:
        yield links


@pytest.fixture
def server() -> Iterator[_EchoServer]:
    with echo_server() as server:
        yield server


@pytest.fixture
def front(links: LinkProxy, server: _EchoServer) -> str:
    """The front of server "a"; this process is server "b"."""
    address = links.add_front("a")
    host, port = server.server_address[:2]
    links.serve("a", f"{host!s}:{port}", NOBODY)
    links.add_front("b")
    links.serve("b", "127.0.0.1:1", os.getpid())
    return address


def _hears_nothing(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def test_bytes_pass_both_ways_unchanged(front: str) -> None:
    payload = os.urandom(1_000_000)
    with _connect(front) as connection:
        sender = threading.Thread(target=connection.sendall, args=(payload,))
        sender.start()
        assert _exactly(connection, len(payload)) == payload
        sender.join()


def test_what_a_cut_link_carries_arrives_after_it_is_healed(
    links: LinkProxy, server: _EchoServer, front: str
) -> None:
    with _connect(front) as connection:
        connection.sendall(b"1")
        assert _exactly(connection, 1) == b"1"
        links.cut("b", "a")
        connection.sendall(b"2")
        assert _hears_nothing(connection)
        assert server.heard == [b"1"]
        links.heal()
        assert _exactly(connection, 1) == b"2"


def test_a_half_cut_link_carries_one_way(links: LinkProxy, server: _EchoServer, front: str) -> None:
    with _connect(front) as connection:
        links.cut_one_way("a", "b")
        connection.sendall(b"1")
        assert _hears_nothing(connection)
        assert server.heard == [b"1"]
        links.heal()
        assert _exactly(connection, 1) == b"1"


def test_a_new_connection_over_a_cut_link_gets_nowhere(
    links: LinkProxy, server: _EchoServer, front: str
) -> None:
    links.isolate("a")
    with _connect(front) as connection:
        connection.sendall(b"1")
        assert _hears_nothing(connection)
        assert server.heard == []
        links.heal()
        assert _exactly(connection, 1) == b"1"


def test_a_cut_between_others_and_a_client_are_left_alone(links: LinkProxy, front: str) -> None:
    links.serve("b", "127.0.0.1:1", NOBODY)  # so that this process is a client
    links.cut("a", "b")
    with _connect(front) as connection:
        connection.sendall(b"1")
        assert _exactly(connection, 1) == b"1"


def test_a_delayed_link_keeps_the_order(links: LinkProxy, front: str) -> None:
    with _connect(front) as connection:
        links.delay("a", "b", 0.1)
        begin = time.monotonic()
        for number in range(5):
            connection.sendall(b"%d" % number)
        assert _exactly(connection, 5) == b"01234"
        assert 0.19 < time.monotonic() - begin < 2


def test_an_end_that_closes_closes_the_other(links: LinkProxy, front: str) -> None:
    with _connect(front) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    links.serve("a", "127.0.0.1:1", NOBODY)  # where nobody listens
    with _connect(front) as connection:
        assert connection.recv(1) == b""


def test_what_nobody_reads_keeps_no_connection_open(server: _EchoServer) -> None:
    with LinkProxy() as links:
        address = links.add_front("a")
        host, server_port = server.server_address[:2]
        links.serve("a", f"{host!s}:{server_port}", NOBODY)
        connection = _connect(address)
        connection.settimeout(QUIET_S)
        with pytest.raises(TimeoutError):  # every buffer on the way and back is full
            connection.sendall(bytes(64 << 20))
    port = int(address.rpartition(":")[2])
    assert port not in {
        socket.laddr.port for socket in psutil.Process().net_connections("tcp") if socket.laddr
    }
    connection.close()
