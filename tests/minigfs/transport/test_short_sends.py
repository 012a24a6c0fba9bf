"""Short frames, sent with the interpreter's lock held: none is lost, cut or out of order."""

import socket
import threading
from collections.abc import Iterator

import pytest

from minigfs.ports import SystemClock
from minigfs.transport.deadline import Deadline
from minigfs.transport.sockets import SHORT_SEND_BYTES, SocketLink

Pair = tuple[SocketLink, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A link whose buffer holds little, and its other end."""
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    link = SocketLink(ours, "the other end")
    with theirs:
        yield link, theirs
    link.close()


def deadline(timeout_ms: int) -> Deadline:
    return Deadline(SystemClock(), timeout_ms)


def frame(number: int) -> bytes:
    return b"%08d" % number * (1 + number * 7 % (SHORT_SEND_BYTES // 8))


def send_many(link: SocketLink, timeout_ms: int) -> None:
    for number in range(10_000):
        link.send([memoryview(frame(number))], deadline(timeout_ms))


def test_a_receiver_that_is_slow_gets_every_byte_in_order(pair: Pair) -> None:
    link, theirs = pair
    sent = [frame(number) for number in range(300)]

    def send() -> None:
        for data in sent:
            link.send([memoryview(data)], deadline(10_000))
        link.shutdown()

    sender = threading.Thread(target=send)
    sender.start()
    received = bytearray()
    while piece := theirs.recv(1000):
        received += piece
    sender.join()
    assert received == b"".join(sent)


def test_a_receiver_that_takes_nothing_is_given_up_at_the_deadline(pair: Pair) -> None:
    link, _ = pair
    with pytest.raises(TimeoutError):
        send_many(link, timeout_ms=200)


def test_a_receiver_that_is_gone_is_an_error(pair: Pair) -> None:
    link, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match=r"(?i)pipe|reset"):
        send_many(link, timeout_ms=10_000)


def test_a_link_that_was_closed_is_an_error(pair: Pair) -> None:
    link, _ = pair
    link.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        link.send([memoryview(b"late")], deadline(10_000))
