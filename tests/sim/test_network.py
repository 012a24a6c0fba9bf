"""What the simulated network does beyond the port: it isolates, cuts and delays."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from minigfs.transport.deadline import Deadline
from minigfs.transport.network import Link
from tests.sim.clock import SimClock
from tests.sim.network import SimNetwork


class Pair:
    """Two hosts and one connection between them."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, seed)
        listener = self.network.host("server").listen("10.0.0.1:7000")
        self.client: Link = self.network.host("client").connect("10.0.0.1:7000", self.deadline(10))
        accepted = listener.accept()
        assert accepted is not None
        self.server: Link = accepted

    def deadline(self, timeout_ms: int) -> Deadline:
        return Deadline(self.clock, timeout_ms)

    def send(self, data: bytes) -> None:
        self.client.send([memoryview(data)], self.deadline(10))

    def receive(self, timeout_ms: int = 10) -> bytes:
        buffer = bytearray(100)
        count = self.server.receive_into(memoryview(buffer), self.deadline(timeout_ms))
        return bytes(buffer[:count])

    def receive_while(self, act: Callable[[], None], timeout_ms: int) -> bytes:
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(self.receive, timeout_ms)
            act()
            return received.result()


def test_isolated_hosts_hear_nothing_until_healed_and_lose_nothing() -> None:
    pair = Pair()
    pair.network.isolate("server")
    pair.send(b"hello")
    with pytest.raises(TimeoutError):
        pair.receive_while(lambda: pair.clock.advance_when_awaited(100), 100)
    pair.network.heal()
    assert pair.receive() == b"hello"


def test_connecting_to_an_isolated_host_times_out() -> None:
    pair = Pair()
    pair.network.isolate("server")
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(
            pair.network.host("client").connect, "10.0.0.1:7000", pair.deadline(50)
        )
        pair.clock.advance_when_awaited(50)
        with pytest.raises(TimeoutError):
            connecting.result()


def test_a_cut_resets_both_ends_and_loses_what_was_under_way() -> None:
    pair = Pair()
    pair.send(b"lost")
    pair.network.cut("client", "server")
    with pytest.raises(ConnectionResetError):
        pair.receive()
    with pytest.raises(ConnectionResetError):
        pair.send(b"x")
    pair.network.host("client").connect("10.0.0.1:7000", pair.deadline(10))


def test_delayed_bytes_arrive_when_their_time_has_come() -> None:
    pair = Pair()
    pair.network.delay(30, 30)
    pair.send(b"late")
    with pytest.raises(TimeoutError):
        pair.receive_while(lambda: pair.clock.advance_when_awaited(29), 29)
    assert pair.receive_while(lambda: pair.clock.advance(1), 10) == b"late"


def test_delays_repeat_with_the_seed_and_never_reorder_a_stream() -> None:
    def arrivals(seed: int) -> list[int]:
        pair = Pair(seed)
        pair.network.delay(0, 50)
        start_ms = pair.clock.monotonic_ms()
        for letter in b"abcdef":
            pair.send(bytes([letter]))
        times = []
        received = b""
        while len(received) < 6:
            if pair.server.is_quiet():
                pair.clock.advance(1)
            else:
                received += pair.receive()
                times.append(pair.clock.monotonic_ms() - start_ms)
        assert received == b"abcdef"
        return times

    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)
