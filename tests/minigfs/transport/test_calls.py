"""Plain calls, to both kinds of server, over every kind of address."""

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minigfs.config import TransportLimits
from minigfs.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    FileMissing,
    FrameTooLarge,
    InvalidPath,
    MinigfsError,
    OutcomeUnknown,
    UnknownRequest,
    Unreachable,
    UsageError,
)
from minigfs.ports import SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.codec import FrameKind, encode_body, encode_header, error_of_body
from minigfs.transport.connection import Connection, ConnectionBroken
from minigfs.transport.deadline import Deadline
from minigfs.transport.handshake import Challenge, ClientHandshake, Proof
from minigfs.transport.messages import Message, Request
from minigfs.transport.network import RealNetwork
from minigfs.transport.security import Security, TlsFiles
from minigfs.transport.stream import Stream
from tests.addresses import free_address


class Echoed(Message, frozen=True):
    text: str


class Echo(Request[Echoed], frozen=True, tag="test.echo"):
    text: str


class Unheard(Request[Echoed], frozen=True, tag="test.unheard"):
    pass


def answer(text: str) -> str:
    """What both services do with a text."""
    if text == "missing":
        raise FileMissing("/a is missing")
    if text == "bug":
        raise ZeroDivisionError("a secret detail")
    if text == "large":
        return "x" * 5000
    return text


async def echo(request: Echo) -> Echoed:
    return Echoed(text=answer(request.text))


def echo_bulk(request: Echo, stream: Stream) -> None:
    stream.send(Echoed(text=answer(request.text)))


Serve = Callable[..., tuple[Any, str]]


@pytest.fixture(params=["bulk", "control"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Start a server of either kind that answers ``Echo``."""
    start = request.getfixturevalue(f"serve_{request.param}")
    handler = echo_bulk if request.param == "bulk" else echo
    return lambda **options: start({Echo: handler}, **options)


def test_a_call_is_answered(serve: Serve, pool: ConnectionPool) -> None:
    _, address = serve()
    assert pool.call(address, Echo(text="é" * 100)) == Echoed(text="é" * 100)


def test_calls_of_many_threads_get_their_own_answers(serve: Serve, pool: ConnectionPool) -> None:
    _, address = serve()
    texts = [str(n) for n in range(300)]
    with ThreadPoolExecutor(8) as threads:
        replies = threads.map(lambda text: pool.call(address, Echo(text=text)).text, texts)
        assert list(replies) == texts


def test_errors_come_back_as_themselves_and_the_connection_lives_on(
    serve: Serve, pool: ConnectionPool
) -> None:
    _, address = serve()
    assert pool.call(address, Echo(text="a")).text == "a"
    (connection,) = idle(pool, address)
    with pytest.raises(FileMissing, match="/a is missing"):
        pool.call(address, Echo(text="missing"))
    with pytest.raises(UnknownRequest, match=r"test\.unheard"):
        pool.call(address, Unheard())
    assert pool.call(address, Echo(text="b")).text == "b"
    assert idle(pool, address) == [connection]


def test_a_bug_in_a_handler_is_named_to_the_client_and_told_in_full_to_the_log(
    serve: Serve, pool: ConnectionPool, caplog: pytest.LogCaptureFixture
) -> None:
    _, address = serve()
    with pytest.raises(MinigfsError, match="ZeroDivisionError") as caught:
        pool.call(address, Echo(text="bug"))
    assert "secret" not in str(caught.value)
    assert "a secret detail" in caplog.text
    assert pool.call(address, Echo(text="still here")).text == "still here"


def test_too_large_a_reply_is_an_error_of_that_call_only(
    serve: Serve, pool: ConnectionPool
) -> None:
    _, address = serve(limits=TransportLimits(body_bytes_max=4096))
    with pytest.raises(FrameTooLarge):
        pool.call(address, Echo(text="large"))
    assert pool.call(address, Echo(text="b")).text == "b"


def test_too_large_a_request_is_refused_by_the_server_too(
    serve: Serve, pool: ConnectionPool
) -> None:
    _, address = serve(limits=TransportLimits(body_bytes_max=4096))
    with pytest.raises(FrameTooLarge, match=address):
        pool.call(address, Echo(text="x" * 5000))
    assert pool.call(address, Echo(text="b")).text == "b"


def test_what_no_message_can_hold_is_the_callers_error_of_that_call_only(
    serve: Serve, pool: ConnectionPool
) -> None:
    _, address = serve()
    with pytest.raises(InvalidPath, match=r"udcff.*not valid Unicode"):
        pool.call(address, Echo(text="/\udcff"))
    with pytest.raises(UsageError, match="too large"):
        pool.call(address, Echo(text=2**64))
    assert pool.call(address, Echo(text="b")).text == "b"


def test_unix_sockets_carry_calls_and_are_private(
    serve: Serve, pool: ConnectionPool, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server, address = serve(address=f"unix:{path}")
    assert address == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert pool.call(address, Echo(text="a")).text == "a"
    server.stop()
    assert not path.exists()


def test_a_dead_servers_socket_file_is_taken_over_but_no_living_ones(
    serve: Serve, pool: ConnectionPool, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    _, address = serve(address=f"unix:{path}")
    with pytest.raises(MinigfsError, match="cannot listen"):
        serve(address=address)
    assert pool.call(address, Echo(text="a")).text == "a"


def test_a_file_that_is_no_socket_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(MinigfsError, match="cannot listen"):
        serve(address=f"unix:{path}")
    assert path.read_text() == "data"


def test_tls_carries_calls(serve: Serve, tls_files: TlsFiles) -> None:
    secure = Security(b"token", "c", tls_files)
    server, address = serve(security=secure)
    pool = ConnectionPool(Security(b"token", "c", TlsFiles(ca=tls_files.ca)))
    assert pool.call(address, Echo(text="x" * 100_000)).text == "x" * 100_000
    (connection,) = idle(pool, address)
    assert pool.call(address, Echo(text="b")).text == "b"
    assert idle(pool, address) == [connection]
    pool.close()
    server.stop()


def test_a_certificate_of_a_stranger_is_refused(
    serve: Serve, tls_files: TlsFiles, tmp_path: Path
) -> None:
    import trustme

    _, address = serve(security=Security(b"token", tls=tls_files))
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    pool = ConnectionPool(Security(b"token", tls=TlsFiles(ca=str(tmp_path / "other.pem"))))
    with pytest.raises(AuthenticationFailed, match="certificate"):
        pool.call(address, Echo(text="a"))


def test_a_client_without_tls_gets_nowhere_with_a_server_that_has_it(
    serve: Serve, tls_files: TlsFiles, pool: ConnectionPool
) -> None:
    _, address = serve(security=Security(b"the cluster's token", tls=tls_files))
    with pytest.raises((Unreachable, DeadlineExceeded)):
        pool.call(address, Echo(text="a"), timeout_ms=2000)


def test_a_wrong_token_is_refused_and_never_told(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, address = serve()
    with pytest.raises(AuthenticationFailed, match=address) as caught:
        ConnectionPool(Security(b"a guess")).call(address, Echo(text="a"))
    assert "token file" in str(caught.value)
    for text in (str(caught.value), caplog.text):
        assert "a guess" not in text
        assert "the cluster's token" not in text


def test_another_cluster_is_refused(serve: Serve) -> None:
    _, address = serve()
    stray = ConnectionPool(Security(b"the cluster's token", "cluster-2"))
    with pytest.raises(AuthenticationFailed, match="cluster-1"):
        stray.call(address, Echo(text="a"))


def test_nothing_is_decoded_before_the_token_is_proved(serve: Serve) -> None:
    _, address = serve()
    body = encode_body(Echo(text="a"))
    header = encode_header(FrameKind.REQUEST, 1, len(body), 0, TransportLimits())
    with connect_to(address) as raw:
        raw.sendall(header + body)
        assert b"protocol" in read_to_end(raw)


def test_a_client_that_makes_up_its_proof_is_refused_and_its_request_not_run(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    _, address = serve()
    liar = Connection(RealNetwork().connect(address, in_time()), TransportLimits())
    hello = ClientHandshake(Security(b"a guess"), bytes(32)).hello()
    liar.send(FrameKind.HELLO, 0, hello, deadline=in_time())
    assert liar.receive(deadline=in_time()).kind is FrameKind.CHALLENGE
    liar.send(FrameKind.PROOF, 0, Proof(proof=bytes(32)), deadline=in_time())
    liar.send(FrameKind.REQUEST, 1, Echo(text="bug"), deadline=in_time())
    frame = liar.receive(deadline=in_time())
    assert (frame.kind, frame.call_id) == (FrameKind.ERROR, 0)
    assert isinstance(error_of_body(frame.body), AuthenticationFailed)
    assert "ZeroDivisionError" not in caplog.text
    liar.close()


def test_a_server_that_makes_up_its_proof_gets_no_request(pool: ConnectionPool) -> None:
    listener = RealNetwork().listen("127.0.0.1:0")
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(pool.call, listener.address, Echo(text="secret"))
        link = listener.accept()
        assert link is not None
        liar = Connection(link, TransportLimits())
        liar.receive(deadline=in_time())
        challenge = Challenge(nonce=bytes(32), proof=bytes(32), cluster_id="")
        liar.send(FrameKind.CHALLENGE, 0, challenge, deadline=in_time())
        with pytest.raises(ConnectionBroken):
            liar.receive(deadline=in_time())
        with pytest.raises(AuthenticationFailed, match=listener.address):
            calling.result()
        liar.close()
    listener.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", b"\xff" * 100])
def test_a_stranger_is_dropped(serve: Serve, data: bytes) -> None:
    _, address = serve()
    with connect_to(address) as raw:
        raw.sendall(data)
        assert len(read_to_end(raw)) < 300


def test_one_who_connects_and_stays_silent_is_dropped_in_time(serve: Serve) -> None:
    _, address = serve(limits=TransportLimits(handshake_timeout_ms=50))
    with connect_to(address) as raw:
        assert read_to_end(raw) == b""


def test_after_a_restart_of_the_server_the_next_call_just_works(
    serve: Serve, pool: ConnectionPool
) -> None:
    server, address = serve(address=free_address())
    assert pool.call(address, Echo(text="a")).text == "a"
    server.stop()
    with pytest.raises(Unreachable, match=address):
        pool.call(address, Echo(text="b"))
    serve(address=address)
    assert pool.call(address, Echo(text="c")).text == "c"


def test_an_idle_connection_dead_since_is_replaced_silently(
    serve: Serve, pool: ConnectionPool
) -> None:
    server, address = serve(address=free_address())
    assert pool.call(address, Echo(text="a")).text == "a"
    server.stop()
    serve(address=address)
    assert pool.call(address, Echo(text="b")).text == "b"


def test_stopping_twice_is_no_error_and_leaves_no_threads(
    serve: Serve, pool: ConnectionPool
) -> None:
    before = set(threading.enumerate())
    server, address = serve()
    pool.call(address, Echo(text="a"))
    server.stop()
    server.stop()
    assert set(threading.enumerate()) <= before


def test_a_call_without_time_left_is_late(serve: Serve, pool: ConnectionPool) -> None:
    _, address = serve()
    with pytest.raises(DeadlineExceeded, match=address):
        pool.call(address, Echo(text="a"), timeout_ms=0)


def test_a_server_that_accepts_and_says_nothing_is_late(pool: ConnectionPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match=address):
            pool.call(address, Echo(text="a"), timeout_ms=50)


def test_a_server_that_hangs_up_at_once_is_unreachable(pool: ConnectionPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        address = f"127.0.0.1:{rude.getsockname()[1]}"
        with ThreadPoolExecutor(1) as threads:
            calling = threads.submit(pool.call, address, Echo(text="a"))
            rude.accept()[0].close()
            with pytest.raises(Unreachable, match=address):
                calling.result()


def test_an_unknown_host_is_unreachable(pool: ConnectionPool) -> None:
    with pytest.raises((Unreachable, DeadlineExceeded), match=r"host\.invalid"):
        pool.call("host.invalid:1", Echo(text="a"), timeout_ms=3000)


def test_an_outcome_unknown_is_not_a_connection_error() -> None:
    assert not issubclass(OutcomeUnknown, Unreachable)


def idle(pool: ConnectionPool, address: str) -> list[Any]:
    return list(pool._idle()[address])


def in_time() -> Deadline:
    return Deadline(SystemClock(), 10_000)


def connect_to(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_to_end(raw: socket.socket) -> bytes:
    data = b""
    try:
        while piece := raw.recv(4096):
            data += piece
    except ConnectionResetError:
        pass
    return data
