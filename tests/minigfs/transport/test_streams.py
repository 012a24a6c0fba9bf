"""Calls that go on: bulk bytes either way, and how they end."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from minigfs.config import TransportLimits
from minigfs.errors import (
    CorruptChunk,
    DeadlineExceeded,
    FrameTooLarge,
    MinigfsError,
    NoSpace,
    OutcomeUnknown,
    ProtocolError,
    Unreachable,
)
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import Message, Request
from minigfs.transport.stream import Stream


class Piece(Message, frozen=True):
    number: int
    last: bool = False


class Total(Message, frozen=True):
    byte_count: int


class Pull(Request[Piece], frozen=True, tag="test.pull"):
    count: int
    piece_bytes: int
    fails_at: int = -1


class Push(Request[Total], frozen=True, tag="test.push"):
    refuses_at: int = -1
    timeout_ms: int = 10_000


class Odd(Request[Piece], frozen=True, tag="test.odd"):
    """Answered by nothing at all."""


class Service:
    def __init__(self) -> None:
        self.gone: list[MinigfsError] = []
        self.ended = threading.Event()

    def pull(self, request: Pull, stream: Stream) -> None:
        for number in range(request.count):
            if number == request.fails_at:
                raise CorruptChunk(f"piece {number} is damaged")
            data = bytes([number % 256]) * request.piece_bytes
            stream.send(Piece(number=number, last=number == request.count - 1), data)

    def push(self, request: Push, stream: Stream) -> None:
        byte_count = 0
        try:
            while True:
                if byte_count and request.refuses_at == 0:
                    raise NoSpace("no room for more")
                piece, payload = stream.receive(Piece, timeout_ms=request.timeout_ms)
                byte_count += payload.nbytes
                if piece.number == request.refuses_at:
                    raise NoSpace("no room for more")
                if piece.last:
                    break
        except MinigfsError as error:
            self.gone.append(error)
            self.ended.set()
            raise
        stream.send(Total(byte_count=byte_count))

    def odd(self, request: Odd, stream: Stream) -> None: ...

    def handlers(self) -> dict[type[Request[Any]], Callable[[Any, Stream], None]]:
        return {Pull: self.pull, Push: self.push, Odd: self.odd}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(
    serve_bulk: Callable[..., tuple[BulkServer, str]], service: Service
) -> tuple[BulkServer, str]:
    return serve_bulk(service.handlers())


@pytest.fixture
def address(server: tuple[BulkServer, str]) -> str:
    return server[1]


def pull_all(pool: ConnectionPool, address: str, request: Pull) -> Iterator[bytes]:
    with pool.open_stream(address, request) as stream:
        while True:
            piece, payload = stream.receive(Piece)
            yield bytes(payload)
            if piece.last:
                return


def push_all(
    stream: Stream, count: int, piece_bytes: int, *, last: bool = False, timeout_ms: int = 10_000
) -> None:
    """Send pieces; unless the last one is marked as such, wait for the error that must come."""
    for number in range(count):
        piece = Piece(number=number, last=last and number == count - 1)
        stream.send(piece, bytes(piece_bytes), timeout_ms=timeout_ms)
    if not last:
        stream.receive(Total)


def connections(pool: ConnectionPool, address: str) -> list[Any]:
    return list(pool._idle().get(address, ()))


@pytest.mark.parametrize("piece_bytes", [0, 1, 1000, 16_384, 1_000_000])
def test_pulled_pieces_arrive_whole_and_in_order(
    pool: ConnectionPool, address: str, piece_bytes: int
) -> None:
    pieces = list(pull_all(pool, address, Pull(count=7, piece_bytes=piece_bytes)))
    assert pieces == [bytes([number]) * piece_bytes for number in range(7)]
    assert len(connections(pool, address)) == 1


def test_a_payload_stays_as_it_is_when_more_arrive(pool: ConnectionPool, address: str) -> None:
    with pool.open_stream(address, Pull(count=3, piece_bytes=1000)) as stream:
        payloads = [stream.receive(Piece)[1] for _ in range(3)]
    assert [bytes(payload[:1]) for payload in payloads] == [b"\0", b"\1", b"\2"]


def test_pushed_pieces_of_several_buffers_are_counted(pool: ConnectionPool, address: str) -> None:
    with pool.open_stream(address, Push()) as stream:
        stream.send(Piece(number=0), [b"abc", bytearray(500_000), memoryview(b"xyz")])
        stream.send(Piece(number=1, last=True), b"!")
        total, _ = stream.receive(Total)
    assert total.byte_count == 500_007
    assert len(connections(pool, address)) == 1


def test_a_call_may_carry_a_payload(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool
) -> None:
    def count(request: Push, stream: Stream) -> None:
        stream.send(Total(byte_count=stream.request_payload.nbytes))

    _, address = serve_bulk({Push: count})
    assert pool.call(address, Push(), payload=bytes(100_000)).byte_count == 100_000


def test_an_error_in_the_middle_of_a_pull_arrives_as_itself(
    pool: ConnectionPool, address: str
) -> None:
    pieces = pull_all(pool, address, Pull(count=5, piece_bytes=10, fails_at=2))
    assert len([next(pieces), next(pieces)]) == 2
    with pytest.raises(CorruptChunk, match="piece 2"):
        next(pieces)


def test_an_error_in_the_middle_of_a_push_reaches_a_client_that_only_sends(
    pool: ConnectionPool, address: str
) -> None:
    with (
        pool.open_stream(address, Push(refuses_at=3)) as stream,
        pytest.raises(NoSpace, match="no room"),
    ):
        push_all(stream, 100, 1000)


def test_after_a_refused_push_the_rest_of_it_does_not_disturb_the_next_call(
    pool: ConnectionPool, address: str
) -> None:
    stream = pool.open_stream(address, Push(refuses_at=0))
    for number in range(20):
        stream.send(Piece(number=number), bytes(100_000))
    with pytest.raises(NoSpace):
        stream.receive(Total)
    stream.finish()
    (connection,) = connections(pool, address)
    assert pool.call(address, Pull(count=1, piece_bytes=5)).last
    assert connections(pool, address) == [connection]


def test_leaving_by_an_exception_ends_the_connection_and_tells_the_server(
    pool: ConnectionPool, address: str, service: Service
) -> None:
    def push_and_fail() -> None:
        with pool.open_stream(address, Push()) as stream:
            stream.send(Piece(number=0), b"abc")
            raise KeyError

    with pytest.raises(KeyError):
        push_and_fail()
    assert service.ended.wait(10)
    (error,) = service.gone
    assert isinstance(error, Unreachable)
    assert not connections(pool, address)


def test_a_pull_left_early_does_not_disturb_the_next_call(
    pool: ConnectionPool, address: str
) -> None:
    for _ in range(3):
        with pool.open_stream(address, Pull(count=50, piece_bytes=100_000)) as stream:
            stream.receive(Piece)
        assert pool.call(address, Pull(count=1, piece_bytes=5)).number == 0


def test_a_stream_closed_without_a_word_is_not_kept(pool: ConnectionPool, address: str) -> None:
    pool.open_stream(address, Push()).close()
    with pool.open_stream(address, Push()):
        pass
    assert not connections(pool, address)


def test_a_server_that_waits_in_vain_tells_the_client(pool: ConnectionPool, address: str) -> None:
    with (
        pool.open_stream(address, Push(timeout_ms=20)) as stream,
        pytest.raises(DeadlineExceeded, match="20 ms"),
    ):
        stream.receive(Total)


def test_a_client_that_waits_in_vain_is_late(pool: ConnectionPool, address: str) -> None:
    with (
        pool.open_stream(address, Push()) as stream,
        pytest.raises(DeadlineExceeded, match=address),
    ):
        stream.receive(Total, timeout_ms=20)
    assert not connections(pool, address)


def test_a_peer_that_takes_nothing_makes_a_sender_late(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool
) -> None:
    release = threading.Event()

    def sleep(request: Push, stream: Stream) -> None:
        release.wait(10)
        stream.send(Total(byte_count=0))

    _, address = serve_bulk({Push: sleep})
    stream = pool.open_stream(address, Push())
    with pytest.raises(DeadlineExceeded, match=address):
        push_all(stream, 1000, 1 << 20, timeout_ms=50)
    stream.close()
    release.set()


def test_a_server_gone_in_the_middle_leaves_the_outcome_unknown(
    server: tuple[BulkServer, str], pool: ConnectionPool
) -> None:
    with pool.open_stream(server[1], Push()) as stream:
        stream.send(Piece(number=0), b"abc")
        server[0].stop()
        with pytest.raises(OutcomeUnknown, match=server[1]):
            stream.receive(Total)
        with pytest.raises(OutcomeUnknown, match=server[1]):
            push_all(stream, 1000, 100_000)


def test_a_handler_that_answers_nothing_is_an_error_not_a_silence(
    pool: ConnectionPool, address: str
) -> None:
    with pytest.raises(MinigfsError, match="without an answer"):
        pool.call(address, Odd())


def test_an_answer_of_another_type_is_a_protocol_error(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool
) -> None:
    _, address = serve_bulk({Push: lambda request, stream: stream.send(Piece(number=1))})
    with pytest.raises(ProtocolError, match="Total"):
        pool.call(address, Push())


def test_too_large_a_payload_is_refused_before_it_is_sent_and_the_stream_goes_on(
    pool: ConnectionPool, address: str
) -> None:
    limit = TransportLimits().payload_bytes_max
    with pool.open_stream(address, Push()) as stream:
        with pytest.raises(FrameTooLarge):
            stream.send(Piece(number=0), bytes(limit + 1))
        stream.send(Piece(number=0, last=True), bytes(limit))
        assert stream.receive(Total)[0].byte_count == limit


def test_a_server_that_stops_listening_is_heard_by_a_client_that_only_sends(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool, service: Service
) -> None:
    _, address = serve_bulk(service.handlers(), limits=TransportLimits(payload_bytes_max=1000))
    with (
        pool.open_stream(address, Push()) as stream,
        pytest.raises(FrameTooLarge, match="limit of 1000"),
    ):
        push_all(stream, 1000, 1 << 20)
    assert not connections(pool, address)


def test_one_thread_may_send_while_another_receives(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool
) -> None:
    def echo(request: Push, stream: Stream) -> None:
        while True:
            piece, payload = stream.receive(Piece)
            stream.send(piece, payload)
            if piece.last:
                return

    _, address = serve_bulk({Push: echo})
    count = 40
    with pool.open_stream(address, Push()) as stream, ThreadPoolExecutor(1) as threads:
        sending = threads.submit(push_all, stream, count, 300_000, last=True)
        numbers = [stream.receive(Piece)[0].number for _ in range(count)]
        sending.result()
    assert numbers == list(range(count))


def test_stopping_wakes_handlers_that_wait_and_joins_their_threads(
    server: tuple[BulkServer, str], pool: ConnectionPool, service: Service
) -> None:
    streams = [pool.open_stream(server[1], Push()) for _ in range(3)]
    for stream in streams:
        stream.send(Piece(number=0), b"abc")
    server[0].stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bulk")]
    for stream in streams:
        stream.close()


def test_more_clients_than_the_limit_are_turned_away_and_the_others_served(
    serve_bulk: Callable[..., tuple[BulkServer, str]],
    pool: ConnectionPool,
    service: Service,
) -> None:
    _, address = serve_bulk(service.handlers(), limits=TransportLimits(connection_count_max=1))
    with pool.open_stream(address, Push()) as stream:
        with pytest.raises(Unreachable, match=address):
            pool.call(address, Pull(count=1, piece_bytes=1))
        stream.send(Piece(number=0, last=True), b"abc")
        assert stream.receive(Total)[0].byte_count == 3


def test_a_silent_peer_is_waited_for_as_long_as_it_is_said_to_be_there(
    serve_bulk: Callable[..., tuple[BulkServer, str]], pool: ConnectionPool
) -> None:
    """The last answer ends the wait, long before the deadline."""
    is_released = threading.Event()

    def stay_silent(_request: Odd, _stream: Stream) -> None:
        is_released.wait()

    _, address = serve_bulk({Odd: stay_silent})
    answers = [True, False]
    try:
        with (
            pool.open_stream(address, Odd(), watch=lambda: answers.pop(0)) as stream,
            pytest.raises(DeadlineExceeded, match="does not answer"),
        ):
            stream.receive(Piece, timeout_ms=60_000)
    finally:
        is_released.set()
    assert not answers
