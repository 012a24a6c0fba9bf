"""Many calls of one connection at once, and what happens when its client goes away."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from minigfs.config import TransportLimits
from minigfs.errors import OutcomeUnknown
from minigfs.ports import SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.codec import FrameKind, decode_body, encode_body, encode_header
from minigfs.transport.connection import Connection
from minigfs.transport.control_server import ControlServer
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import Message, Request
from minigfs.transport.network import RealNetwork
from minigfs.transport.security import Security
from tests.sim.clock import SimRng


class Number(Message, frozen=True):
    number: int
    filler: bytes = b""


class Get(Request[Number], frozen=True, tag="test.get"):
    number: int
    waits: bool = False
    filler_bytes: int = 0


Serve = Callable[..., tuple[Any, str]]


class Service:
    """Answers at once, or, when asked to wait, once the number has been released."""

    def __init__(self) -> None:
        self.released: dict[int, asyncio.Event] = {}
        self.running = 0
        self.most_running = 0
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    def event(self, number: int) -> asyncio.Event:
        return self.released.setdefault(number, asyncio.Event())

    async def get(self, request: Get) -> Number:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if request.waits:
                self.waiting.set()
                await self.event(request.number).wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return Number(number=request.number, filler=bytes(request.filler_bytes))


@pytest.fixture
def service() -> Service:
    return Service()


def deadline() -> Deadline:
    return Deadline(SystemClock(), 10_000)


def connect(address: str, security: Security) -> Connection:
    connection = Connection(RealNetwork().connect(address, deadline()), TransportLimits())
    connection.prove_as_client(security, deadline())
    return connection


def request(connection: Connection, message: Get, call_id: int | None = None) -> None:
    connection.send(
        FrameKind.REQUEST,
        message.number if call_id is None else call_id,
        message,
        deadline=deadline(),
    )


def replies(connection: Connection, count: int) -> list[int]:
    """The call ids in the order in which the replies come."""
    ids = []
    for _ in range(count):
        frame = connection.receive(deadline=deadline())
        assert frame.kind is FrameKind.MESSAGE
        assert decode_body(frame.body, Number).number == frame.call_id
        ids.append(frame.call_id)
    return ids


@pytest.mark.parametrize("seed", range(5))
def test_pipelined_calls_are_answered_in_the_order_they_are_ready(
    serve_control: Serve, security: Security, service: Service, loop: Any, seed: int
) -> None:
    _, address = serve_control({Get: service.get})
    connection = connect(address, security)
    numbers = list(range(1, 31))
    for number in numbers:
        request(connection, Get(number=number, waits=True))
    rng = SimRng(seed)
    order = sorted(numbers, key=lambda _: rng.random_u64())
    for number in order:
        loop.loop.call_soon_threadsafe(lambda number=number: service.event(number).set())
        assert replies(connection, 1) == [number]
    connection.close()


def test_a_long_poll_holds_up_nobody_on_its_own_connection(
    serve_control: Serve, security: Security, service: Service
) -> None:
    _, address = serve_control({Get: service.get})
    connection = connect(address, security)
    request(connection, Get(number=1, waits=True))
    request(connection, Get(number=2))
    assert replies(connection, 1) == [2]
    connection.close()


def test_many_requests_in_one_packet_are_all_answered(
    serve_control: Serve, security: Security, service: Service
) -> None:
    limits = TransportLimits(running_request_count_max=8)
    _, address = serve_control({Get: service.get}, limits=limits)
    connection = connect(address, security)
    packet = bytearray()
    for number in range(1, 501):
        body = encode_body(Get(number=number))
        packet += encode_header(FrameKind.REQUEST, number, len(body), 0, limits) + body
    connection._link.send([memoryview(packet)], deadline())
    assert sorted(replies(connection, 500)) == list(range(1, 501))
    connection.close()


def test_no_more_requests_run_at_a_time_than_the_limit(
    serve_control: Serve, security: Security, service: Service, loop: Any
) -> None:
    _, address = serve_control(
        {Get: service.get}, limits=TransportLimits(running_request_count_max=4)
    )
    connection = connect(address, security)
    for number in range(1, 21):
        request(connection, Get(number=number, waits=True))
        loop.loop.call_soon_threadsafe(lambda number=number: service.event(number).set())
    assert sorted(replies(connection, 20)) == list(range(1, 21))
    assert service.most_running <= 4
    connection.close()


def test_a_client_that_reads_no_replies_is_not_read_from_either(
    serve_control: Serve, security: Security, service: Service
) -> None:
    host, address = serve_control({Get: service.get})
    connection = connect(address, security)
    count, filler_bytes = 400, 200_000

    def send_all() -> None:
        for number in range(1, count + 1):
            request(connection, Get(number=number, filler_bytes=filler_bytes))

    sender = threading.Thread(target=send_all)
    sender.start()
    first = replies(connection, 1)
    (server_side,) = host.server.connections
    assert server_side._transport.get_write_buffer_size() <= 64 * 200_100 + 64_000
    assert sorted(first + replies(connection, count - 1)) == list(range(1, count + 1))
    sender.join()
    connection.close()


def test_handlers_are_cancelled_when_their_client_goes_away(
    serve_control: Serve, security: Security, service: Service
) -> None:
    _, address = serve_control({Get: service.get})
    connection = connect(address, security)
    request(connection, Get(number=1, waits=True))
    assert service.waiting.wait(10)
    connection.close()
    assert service.cancelled.wait(10)


def test_stopping_cancels_handlers_and_their_clients_cannot_know(
    serve_control: Serve, pool: ConnectionPool, service: Service
) -> None:
    host, address = serve_control({Get: service.get})
    stopper = threading.Thread(target=lambda: service.waiting.wait(10) and host.stop())
    stopper.start()
    with pytest.raises(OutcomeUnknown):
        pool.call(address, Get(number=1, waits=True))
    stopper.join()
    assert service.cancelled.is_set()


def test_control_calls_take_no_payload(
    serve_control: Serve, security: Security, service: Service
) -> None:
    _, address = serve_control({Get: service.get})
    connection = connect(address, security)
    connection.send(FrameKind.REQUEST, 1, Get(number=1), b"payload", deadline=deadline())
    frame = connection.receive(deadline=deadline())
    assert frame.kind is FrameKind.ERROR
    assert b"payload" in frame.body
    connection.close()


def test_more_clients_than_the_limit_are_turned_away_and_the_others_served(
    serve_control: Serve, security: Security, service: Service
) -> None:
    _, address = serve_control({Get: service.get}, limits=TransportLimits(connection_count_max=1))
    connection = connect(address, security)
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as other:
        assert other.recv(1) == b""
    request(connection, Get(number=1))
    assert replies(connection, 1) == [1]
    connection.close()


# After two turns asyncio itself loses the socket, until it is collected (CPython issue 109564).
@pytest.mark.parametrize("turns", [0, 1, 3, 4])
def test_a_connection_that_is_accepted_while_the_server_stops_is_ended(turns: int) -> None:
    async def main() -> None:
        server = ControlServer({}, Security(b"t"))
        host, _, port = (await server.start("127.0.0.1:0")).rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(5)
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.stop()
            assert not server.connections
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(connection.recv, 1) == b""

    asyncio.run(main())
