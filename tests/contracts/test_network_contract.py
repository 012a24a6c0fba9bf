"""What every ``Network`` does, the real one (TCP, Unix sockets, TLS) and its twin."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from minigfs.errors import InvalidConfig
from minigfs.ports import Clock, SystemClock
from minigfs.transport.deadline import Deadline
from minigfs.transport.network import Link, Listener, Network, RealNetwork
from minigfs.transport.security import TlsFiles
from tests.sim.clock import SimClock
from tests.sim.network import SimNetwork

LARGE_BYTES = 3_000_000  # more than any socket or pipe holds


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One network under test, with an address to listen on."""

    network: Network
    clock: Clock
    address: str
    tls: TlsFiles | None
    let_pass_ms: Callable[[int], None]  # time, once somebody waits for it

    def deadline(self, timeout_ms: int | None = 5_000) -> Deadline:
        return Deadline(self.clock, timeout_ms)


def tls_files(directory: Path) -> TlsFiles:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    both = str(directory / "server.pem")
    return TlsFiles(ca=str(directory / "ca.pem"), certificate=both, key=both)


@pytest.fixture(params=["tcp", "unix", "tls", "simulated"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    if request.param == "simulated":
        clock = SimClock()
        return Setting(
            network=SimNetwork(clock).host("here"),
            clock=clock,
            address="127.0.0.1:0",
            tls=None,
            let_pass_ms=clock.advance_when_awaited,
        )
    return Setting(
        network=RealNetwork(),
        clock=SystemClock(),
        address=f"unix:{tmp_path}/socket" if request.param == "unix" else "127.0.0.1:0",
        tls=tls_files(tmp_path) if request.param == "tls" else None,
        let_pass_ms=lambda _: None,
    )


@pytest.fixture
def listener(setting: Setting) -> Iterator[Listener]:
    listener = setting.network.listen(setting.address, setting.tls)
    yield listener
    listener.close()


@pytest.fixture
def ends(setting: Setting, listener: Listener) -> Iterator[tuple[Link, Link]]:
    """A client's link and the server's end of it."""
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept, listener, setting)
        client = setting.network.connect(listener.address, setting.deadline(), setting.tls)
        server = accepted.result()
    yield client, server
    client.close()
    server.close()


def accept(listener: Listener, setting: Setting) -> Link:
    link = listener.accept()
    assert link is not None
    link.establish(setting.deadline())
    return link


def receive(link: Link, length: int, setting: Setting) -> bytes:
    data = bytearray(length)
    at = 0
    while at < length and (count := link.receive_into(memoryview(data)[at:], setting.deadline())):
        at += count
    return bytes(data[:at])


def send(link: Link, data: bytes, setting: Setting) -> None:
    link.send([memoryview(data)], setting.deadline())


def test_the_bound_address_can_be_connected_to(listener: Listener) -> None:
    assert not listener.address.endswith(":0")


def test_bytes_arrive_whole_and_in_order_both_ways_at_once(
    setting: Setting, ends: tuple[Link, Link]
) -> None:
    there, back = (bytes([n]) * LARGE_BYTES for n in (1, 2))
    client, server = ends
    with ThreadPoolExecutor(4) as pool:
        sends = [
            pool.submit(link.send, [memoryview(b"start"), memoryview(data)], setting.deadline())
            for link, data in ((client, there), (server, back))
        ]
        receives = [
            pool.submit(receive, link, LARGE_BYTES + 5, setting) for link in (server, client)
        ]
        assert [future.result() for future in receives] == [b"start" + there, b"start" + back]
        for future in sends:
            future.result()


def test_very_many_buffers_arrive_whole(setting: Setting, ends: tuple[Link, Link]) -> None:
    client, server = ends
    pieces = [bytes([n % 256]) * (n % 4) for n in range(3000)]
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.send, [memoryview(p) for p in pieces], setting.deadline())
        assert receive(server, sum(map(len, pieces)), setting) == b"".join(pieces)
        sent.result()


def test_the_end_comes_after_the_bytes(setting: Setting, ends: tuple[Link, Link]) -> None:
    client, server = ends
    send(client, b"last words", setting)
    client.close()
    assert receive(server, 100, setting) == b"last words"


def test_waiting_ends_at_the_deadline(setting: Setting, ends: tuple[Link, Link]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ends[0].receive_into, memoryview(bytearray(1)), setting.deadline(20))
        setting.let_pass_ms(20)
        with pytest.raises(TimeoutError):
            waiting.result()


def test_sending_to_one_who_does_not_receive_ends_at_the_deadline(
    setting: Setting, ends: tuple[Link, Link]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(
            ends[0].send, [memoryview(bytes(10 * LARGE_BYTES))], setting.deadline(50)
        )
        setting.let_pass_ms(50)
        with pytest.raises(TimeoutError):
            sending.result()


def test_a_deadline_gone_by_times_out_at_once(setting: Setting, ends: tuple[Link, Link]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].receive_into(memoryview(bytearray(1)), setting.deadline(0))


def test_what_lies_there_already_is_received_even_after_the_deadline(
    setting: Setting, ends: tuple[Link, Link]
) -> None:
    client, server = ends
    send(server, b"x", setting)
    until(lambda: not client.is_quiet())
    assert client.receive_into(memoryview(bytearray(1)), setting.deadline(0)) == 1


def test_shutdown_wakes_a_waiting_receiver(setting: Setting, ends: tuple[Link, Link]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            ends[0].receive_into, memoryview(bytearray(1)), setting.deadline(None)
        )
        ends[0].shutdown()
        assert waiting.result() == 0


def test_a_link_is_quiet_until_something_arrives(setting: Setting, ends: tuple[Link, Link]) -> None:
    client, server = ends
    assert client.is_quiet()
    send(server, b"x", setting)
    until(lambda: not client.is_quiet())
    assert receive(client, 1, setting) == b"x"
    assert client.is_quiet()
    server.close()
    until(lambda: not client.is_quiet())


def test_sending_to_a_closed_peer_fails_in_the_end(
    setting: Setting, ends: tuple[Link, Link]
) -> None:
    client, server = ends
    server.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)):
        client.send([memoryview(bytes(10 * LARGE_BYTES))], setting.deadline())


def test_nobody_listening_is_refused(setting: Setting, listener: Listener) -> None:
    listener.close()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        setting.network.connect(listener.address, setting.deadline(), setting.tls)


def test_an_address_in_use_is_refused_with_its_name(setting: Setting, listener: Listener) -> None:
    with pytest.raises(InvalidConfig, match=listener.address):
        setting.network.listen(listener.address, setting.tls)


def test_close_wakes_accept_and_may_be_repeated(setting: Setting, listener: Listener) -> None:
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        listener.close()
        listener.close()
        assert accepting.result() is None
    assert listener.accept() is None


class Echo(asyncio.Protocol):
    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


def test_a_served_protocol_talks_to_a_link_and_hears_it_leave(setting: Setting) -> None:
    data = bytes(range(256)) * (LARGE_BYTES // 256)

    def talk(address: str) -> bytes:
        link = setting.network.connect(address, setting.deadline(), setting.tls)
        sender = threading.Thread(target=send, args=(link, data, setting))
        sender.start()
        echoed = receive(link, len(data), setting)
        sender.join()
        link.close()
        return echoed

    async def main() -> None:
        ended = asyncio.Event()
        listener = await setting.network.serve(
            setting.address, lambda: Echo(ended), setting.tls, handshake_timeout_ms=5_000
        )
        assert await asyncio.to_thread(talk, listener.address) == data
        await asyncio.wait_for(ended.wait(), 5)
        listener.close()
        await listener.wait_closed()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            setting.network.connect(listener.address, setting.deadline(), setting.tls)

    asyncio.run(main())


def until(condition: Callable[[], bool]) -> None:
    """Arrival over a real network is not instant, and nothing announces it."""
    pause = threading.Event()
    for _ in range(500):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("did not come about in 5 s")
