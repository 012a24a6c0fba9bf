"""Connections are kept, bounded, and never shared across a fork."""

import os
import threading
from collections.abc import Callable
from typing import Any

from minigfs.config import TransportLimits
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import Message, Request
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream
from tests.minigfs.transport.forked import FORKS, forked_server, in_child
from tests.sim.clock import SimClock


class Peer(Message, frozen=True):
    address: str


class WhoAmI(Request[Peer], frozen=True, tag="test.who"):
    pass


def who(request: WhoAmI, stream: Stream) -> None:
    stream.send(Peer(address=stream.peer))


Serve = Callable[..., tuple[Any, str]]


def test_calls_one_after_the_other_share_a_connection(
    serve_bulk: Serve, pool: ConnectionPool
) -> None:
    _, address = serve_bulk({WhoAmI: who})
    assert len({pool.call(address, WhoAmI()).address for _ in range(10)}) == 1


def test_no_more_idle_connections_are_kept_than_the_limit(
    serve_bulk: Serve, security: Security
) -> None:
    _, address = serve_bulk({WhoAmI: who})
    pool = ConnectionPool(security, limits=TransportLimits(idle_connection_count_max=2))
    streams = [pool.open_stream(address, WhoAmI()) for _ in range(5)]
    for stream in streams:
        with stream:
            stream.receive(Peer)
    assert len(pool._idle()[address]) == 2
    pool.close()
    assert not pool._idle()[address]


def test_connections_that_a_burst_left_idle_are_ended_by_and_by(
    serve_bulk: Serve, security: Security
) -> None:
    _, address = serve_bulk({WhoAmI: who})
    clock = SimClock()
    limits = TransportLimits(idle_connection_ms_max=1_000)
    pool = ConnectionPool(security, limits=limits, clock=clock)
    streams = [pool.open_stream(address, WhoAmI()) for _ in range(5)]
    for stream in streams:
        with stream:
            stream.receive(Peer)
    clock.advance(1_001)
    for _ in range(10):
        pool.call(address, WhoAmI())
    assert len(pool._idle()[address]) == 1
    pool.close()


def test_a_closed_pool_can_be_used_again(serve_bulk: Serve, pool: ConnectionPool) -> None:
    _, address = serve_bulk({WhoAmI: who})
    before = pool.call(address, WhoAmI())
    pool.close()
    assert pool.call(address, WhoAmI()) != before


def test_a_call_that_goes_on_when_the_pool_is_closed_leaves_no_connection_behind(
    serve_bulk: Serve, pool: ConnectionPool
) -> None:
    _, address = serve_bulk({WhoAmI: who})
    stream = pool.open_stream(address, WhoAmI())
    pool.close()
    with stream:
        before = stream.receive(Peer)[0]
    assert not pool._idle()[address]
    after = pool.call(address, WhoAmI())
    assert after != before
    assert pool.call(address, WhoAmI()) == after, "what was made since is kept"


@FORKS
def test_a_forked_child_makes_its_own_connections_and_leaves_its_parents_alone(
    security: Security,
) -> None:
    with forked_server(security, {WhoAmI: who}) as (address, _):
        pool = ConnectionPool(security)
        mine = pool.call(address, WhoAmI()).address

        def call_and_close() -> str:
            theirs = pool.call(address, WhoAmI()).address
            pool.close()
            return theirs

        assert in_child(call_and_close) not in ("", mine)
        assert pool.call(address, WhoAmI()).address == mine
        pool.close()


@FORKS
def test_a_child_leaving_a_stream_of_its_parent_does_not_end_it(security: Security) -> None:
    with forked_server(security, {WhoAmI: who}) as (address, _):
        pool = ConnectionPool(security)
        stream = pool.open_stream(address, WhoAmI())

        def close() -> str:
            stream.close()
            return "closed"

        assert in_child(close) == "closed"
        assert stream.receive(Peer)[0].address
        stream.close()


@FORKS
def test_a_connection_ended_by_the_parent_ends_though_a_child_holds_a_copy(
    security: Security, serve_bulk: Serve
) -> None:
    ended = threading.Event()

    def wait(request: WhoAmI, stream: Stream) -> None:
        try:
            stream.receive(Peer)
        finally:
            ended.set()

    _, address = serve_bulk({WhoAmI: wait})
    pool = ConnectionPool(security)
    stream = pool.open_stream(address, WhoAmI())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer)
            os.read(reader, 1)  # until the parent closes its end
        finally:
            os._exit(0)
    stream.close()
    assert ended.wait(10)
    os.close(reader)
    os.close(writer)
    os.waitpid(child, 0)
