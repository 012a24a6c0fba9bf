"""Pool and servers on the simulated network: what cannot be done to a real one at will."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from minigfs.errors import DeadlineExceeded, OutcomeUnknown
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlServer
from minigfs.transport.messages import Message, Request
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream
from tests.sim.clock import SimClock
from tests.sim.network import SimNetwork


class Count(Message, frozen=True):
    count: int


class Add(Request[Count], frozen=True, tag="test.add"):
    waits: bool = False


class Cluster:
    """A bulk server on one host and a client on another."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, seed=1)
        self.security = Security(b"token")
        self.count = 0
        self.working = threading.Event()
        self.go_on = threading.Event()
        self.server = BulkServer(
            {Add: self.add}, self.security, network=self.network.host("server"), clock=self.clock
        )
        self.address = self.server.start("10.0.0.1:7000")
        self.pool = ConnectionPool(
            self.security, network=self.network.host("client"), clock=self.clock
        )

    def add(self, request: Add, stream: Stream) -> None:
        self.count += 1
        if request.waits:
            self.working.set()
            assert self.go_on.wait(10)
        stream.send(Count(count=self.count))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.pool.close()
    cluster.server.stop()


def test_a_cut_before_the_call_goes_unnoticed(cluster: Cluster) -> None:
    assert cluster.pool.call(cluster.address, Add()).count == 1
    cluster.network.cut("client", "server")
    assert cluster.pool.call(cluster.address, Add()).count == 2


def test_a_cut_while_the_server_works_is_an_unknown_outcome(cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(cluster.pool.call, cluster.address, Add(waits=True))
        assert cluster.working.wait(10)
        cluster.network.cut("client", "server")
        with pytest.raises(OutcomeUnknown, match=cluster.address):
            calling.result()
        cluster.go_on.set()
    assert cluster.count == 1


def test_an_isolated_server_is_late_by_the_clock_and_answers_once_healed(
    cluster: Cluster,
) -> None:
    assert cluster.pool.call(cluster.address, Add()).count == 1
    cluster.network.isolate("server")
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(cluster.pool.call, cluster.address, Add(), timeout_ms=3_600_000)
        cluster.clock.advance_when_awaited(3_600_000)
        with pytest.raises(DeadlineExceeded):
            calling.result()
    cluster.network.heal()
    assert cluster.pool.call(cluster.address, Add()).count >= 2


def test_a_control_server_runs_on_the_simulated_network() -> None:
    network = SimNetwork(SimClock())
    security = Security(b"token")

    async def add(request: Add) -> Count:
        return Count(count=7)

    async def main() -> None:
        server = ControlServer({Add: add}, security, network=network.host("server"))
        address = await server.start("10.0.0.1:0")
        pool = ConnectionPool(security, network=network.host("client"), clock=network.clock)
        for _ in range(3):
            assert (await asyncio.to_thread(pool.call, address, Add())).count == 7
        pool.close()
        await server.stop()

    asyncio.run(main())
