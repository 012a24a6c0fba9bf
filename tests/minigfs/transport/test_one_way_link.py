"""One-way frames over TCP, Unix sockets and TLS, in order, in both directions of trust."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from minigfs.config import TransportLimits
from minigfs.errors import MinigfsError, ProtocolError
from minigfs.transport.control_server import ControlServer, OneWaySender
from minigfs.transport.one_way_link import OneWayLink
from minigfs.transport.security import Security, TlsFiles

LIMITS = TransportLimits()


class Listener:
    """Welcomes everybody, and keeps what comes."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.ends: asyncio.Queue[None] = asyncio.Queue()
        self.senders: list[OneWaySender] = []

    def connected(self, sender: OneWaySender) -> "Listener":
        self.senders.append(sender)
        return self

    def received(self, body: bytes) -> None:
        if body == b"hello":
            self.senders[-1].send_one_way(b"welcome")
        elif body == b"no":
            raise ProtocolError("not like that")
        else:
            self.frames.put_nowait(body)

    def ended(self) -> None:
        self.ends.put_nowait(None)


class Speaker:
    def __init__(self) -> None:
        self.welcomes: asyncio.Queue[bytes] = asyncio.Queue()
        self.refusals: asyncio.Queue[MinigfsError] = asyncio.Queue()
        self.losses: asyncio.Queue[None] = asyncio.Queue()

    def introduce(self) -> bytes:
        return b"hello"

    def welcomed(self, body: bytes) -> None:
        self.welcomes.put_nowait(body)

    def lost(self) -> None:
        self.losses.put_nowait(None)

    def refused(self, error: MinigfsError) -> None:
        self.refusals.put_nowait(error)


@asynccontextmanager
async def listening(
    security: Security, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Listener, str]]:
    listener = Listener()
    server = ControlServer({}, security, one_way=listener.connected)
    bound = await server.start(address)
    try:
        yield listener, bound
    finally:
        await server.stop()


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_frames_arrive_whole_and_in_order(kind: str, tmp_path: Path, tls_files: TlsFiles) -> None:
    tls = tls_files if kind == "tls" else None
    address = f"unix:{tmp_path}/socket" if kind == "unix" else "127.0.0.1:0"
    security = Security(b"token", "c", tls)
    bodies = [bytes([number]) * (number * 4099) for number in range(1, 200)]

    async def main() -> None:
        async with listening(security, address) as (listener, bound):
            speaker = Speaker()
            link = OneWayLink(bound, security, speaker, LIMITS)
            assert await speaker.welcomes.get() == b"welcome"
            for body in bodies:
                while not link.send(body, urgent=False):
                    await asyncio.sleep(0.001)
                link.flush()
            assert [await listener.frames.get() for _ in bodies] == bodies
            await link.close()
            await listener.ends.get()

    asyncio.run(main())


def test_a_server_whose_certificate_is_not_trusted_is_told_nothing(
    tls_files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with listening(Security(b"token", "c", tls_files)) as (listener, bound):
            speaker = Speaker()
            plain = OneWayLink(bound, Security(b"token", "c"), speaker, LIMITS)
            while "no connection to" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not plain.send(b"x", urgent=True)
            assert listener.senders == []
            await plain.close()

    asyncio.run(main())


def test_what_the_receiver_refuses_ends_the_connection_and_another_one_is_made() -> None:
    security = Security(b"token", "c")

    async def main() -> None:
        async with listening(security) as (listener, bound):
            speaker = Speaker()
            link = OneWayLink(bound, security, speaker, LIMITS)
            await speaker.welcomes.get()
            while not link.send(b"no", urgent=True):
                await asyncio.sleep(0.001)
            link.flush()
            assert (await speaker.refusals.get()).message == "not like that"
            await speaker.losses.get()
            await speaker.welcomes.get()
            assert len(listener.senders) == 2
            await link.close()

    asyncio.run(main())


def test_a_link_that_moves_speaks_at_the_new_address() -> None:
    security = Security(b"token", "c")

    async def main() -> None:
        async with listening(security) as (_, one), listening(security) as (other, two):
            speaker = Speaker()
            link = OneWayLink(one, security, speaker, LIMITS)
            await speaker.welcomes.get()
            link.move(two)
            await speaker.welcomes.get()
            while not link.send(b"here", urgent=True):
                await asyncio.sleep(0.001)
            link.flush()
            assert await other.frames.get() == b"here"
            await link.close()

    asyncio.run(main())


def test_closing_ends_whatever_the_link_is_doing() -> None:
    security = Security(b"token", "c")

    async def main() -> None:
        link = OneWayLink("127.0.0.1:1", security, Speaker(), LIMITS)
        for _ in range(20):
            link.hurry()
            await asyncio.sleep(0)
        link.hurry()
        async with asyncio.timeout(5):
            await link.close()

    asyncio.run(main())
