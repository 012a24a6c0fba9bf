"""Who is let in, whose messages count, and what happens to frames that nobody takes."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Self

import msgspec
import pytest

from minigfs.config import TransportLimits
from minigfs.errors import AuthenticationFailed, MemberRolledBack, MinigfsError, ProtocolError
from minigfs.raft import NodeId
from minigfs.raft.messages import AppendEntries, Heartbeat
from minigfs.raft.records import Entry
from minigfs.replication.addresses import MemberAddresses
from minigfs.replication.peer_messages import PeerMessage, encode_peer_message
from minigfs.replication.peers import (
    HELLO,
    MESSAGE,
    PEER_LIMITS,
    PROTOCOL_VERSION,
    MemberHello,
    MemberReport,
    PeerLinks,
)
from minigfs.transport.control_server import ControlServer
from minigfs.transport.one_way_link import OneWayLink
from minigfs.transport.security import Security
from tests.addresses import free_address

SECURITY = Security(b"t" * 32, "c")
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


@dataclass
class Events:
    """What one member's links told it."""

    turn_away: MinigfsError | None = None
    messages: asyncio.Queue[PeerMessage] = field(default_factory=asyncio.Queue)
    reports: asyncio.Queue[tuple[NodeId, MemberReport]] = field(default_factory=asyncio.Queue)
    unreachables: asyncio.Queue[NodeId] = field(default_factory=asyncio.Queue)
    arrivals: asyncio.Queue[NodeId] = field(default_factory=asyncio.Queue)
    leavers: asyncio.Queue[NodeId] = field(default_factory=asyncio.Queue)
    strangers: asyncio.Queue[NodeId] = field(default_factory=asyncio.Queue)
    verdicts: asyncio.Queue[MinigfsError] = field(default_factory=asyncio.Queue)

    def durable_end(self) -> tuple[int, int]:
        return 3, 7

    def examine(self, hello: MemberHello) -> None:
        assert (hello.term, hello.last_index) == (3, 7)
        if self.turn_away is not None:
            raise self.turn_away

    def mistaken(self, hello: MemberHello) -> None:
        self.strangers.put_nowait(hello.member)

    def message(self, message: PeerMessage) -> None:
        self.messages.put_nowait(message)

    def report(self, member: NodeId, report: MemberReport) -> None:
        self.reports.put_nowait((member, report))

    def connected(self, member: NodeId) -> None:
        self.arrivals.put_nowait(member)

    def unreachable(self, member: NodeId) -> None:
        self.unreachables.put_nowait(member)

    def gone(self, member: NodeId) -> None:
        self.leavers.put_nowait(member)

    def turned_away(self, error: MinigfsError) -> None:
        self.verdicts.put_nowait(error)


class Peer:
    """A member's links and the server they are reached at."""

    def __init__(self, member: NodeId, security: Security = SECURITY) -> None:
        self.events = Events()
        self.addresses = MemberAddresses({}, dict)
        self.links = PeerLinks(member, self.addresses, security, self.events)
        self.server = ControlServer(
            {}, security, one_way=self.links.receiver, one_way_limits=PEER_LIMITS
        )

    async def __aenter__(self) -> Self:
        self.address = await self.server.start(free_address())
        self.links.start(self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.links.stop()
        await self.server.stop()

    def meet(self, other: "Peer") -> None:
        self.addresses.says(other.links.member, other.address)
        self.links.connect([other.links.member])

    async def send(self, message: PeerMessage) -> None:
        """Until a connection takes it."""
        while self.links.send([message]):
            await asyncio.sleep(0.01)


class Stranger:
    """The owner of a link that says whatever it likes."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = frames
        self.welcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.refusal: asyncio.Future[MinigfsError] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def introduce(self) -> bytes:
        return self.frames[0]

    def welcomed(self, body: bytes) -> None:
        self.welcome.set_result(body)

    def lost(self) -> None:
        self.ended.set()

    def refused(self, error: MinigfsError) -> None:
        if not self.refusal.done():
            self.refusal.set_result(error)


def heartbeat(source: NodeId, target: NodeId, term: int = 1) -> Heartbeat:
    return Heartbeat(source=source, target=target, term=term, commit_index=0, read_sequence=0)


def hello(member: NodeId, target: NodeId, version: int = PROTOCOL_VERSION) -> bytes:
    return HELLO + msgspec.msgpack.encode(
        MemberHello(
            version=version,
            member=member,
            target=target,
            address="127.0.0.1:9",
            term=3,
            last_index=7,
        )
    )


def test_messages_arrive_in_both_directions_though_only_one_side_knew_the_other() -> None:
    async def main() -> None:
        async with Peer(A) as a, Peer(B) as b:
            a.meet(b)
            await a.send(heartbeat(A, B))
            assert await b.events.messages.get() == heartbeat(A, B)
            await b.send(heartbeat(B, A))
            assert await a.events.messages.get() == heartbeat(B, A)

    asyncio.run(main())


def test_reports_carry_the_name_of_the_connections_member() -> None:
    async def main() -> None:
        report = MemberReport(
            role="follower", term=1, pid=2, address="x:1", directory="/d", commit_index=3
        )
        async with Peer(A) as a, Peer(B) as b:
            a.meet(b)
            await a.send(heartbeat(A, B))
            a.links.send_report(report)
            assert await b.events.reports.get() == (A, report)

    asyncio.run(main())


@pytest.mark.parametrize(("source", "target"), [(C, B), (A, C)])
def test_a_message_in_anothers_name_or_for_another_is_dropped(source, target) -> None:
    async def main() -> None:
        async with Peer(B) as b:
            stranger = Stranger(hello(A, B))
            link = OneWayLink(b.address, SECURITY, stranger, PEER_LIMITS)
            await stranger.welcome
            for message in (heartbeat(source, target), heartbeat(A, B)):
                while not link.send(MESSAGE + encode_peer_message(message), urgent=True):
                    await asyncio.sleep(0.01)
            link.flush()
            assert await b.events.messages.get() == heartbeat(A, B), "the first never came"
            await link.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("introduction", "reason"),
    [
        (hello(A, C), "this is master b"),
        (hello(A, B, version=99), "version 99"),
        (MESSAGE + encode_peer_message(heartbeat(A, B)), "MemberHello should be"),
        (b"h\xc1", "no valid MemberHello"),
    ],
)
def test_whoever_does_not_introduce_itself_properly_is_refused(introduction, reason) -> None:
    async def main() -> None:
        async with Peer(B) as b:
            stranger = Stranger(introduction)
            link = OneWayLink(b.address, SECURITY, stranger, PEER_LIMITS)
            error = await stranger.refusal
            assert isinstance(error, ProtocolError)
            assert reason in error.message
            assert b.events.messages.empty()
            await link.close()

    asyncio.run(main())


def test_a_wrong_token_never_gets_as_far_as_an_introduction() -> None:
    async def main() -> None:
        async with Peer(B) as b:
            stranger = Stranger(hello(A, B))
            link = OneWayLink(b.address, Security(b"w" * 32, "c"), stranger, PEER_LIMITS)
            assert isinstance(await stranger.refusal, AuthenticationFailed)
            await link.close()

    asyncio.run(main())


def test_a_member_that_is_turned_away_hears_why_and_is_not_heard() -> None:
    async def main() -> None:
        async with Peer(A) as a, Peer(B) as b:
            b.events.turn_away = MemberRolledBack("your disk is an old copy")
            a.meet(b)
            verdict = await a.events.verdicts.get()
            assert isinstance(verdict, MemberRolledBack)
            assert verdict.message == "your disk is an old copy"
            assert a.links.send([heartbeat(A, B)]) == [B]

    asyncio.run(main())


def test_a_link_comes_back_when_its_receiver_does() -> None:
    async def main() -> None:
        async with Peer(A) as a:
            async with Peer(B) as b:
                a.meet(b)
                await a.send(heartbeat(A, B))
                address = b.address
            assert await a.events.unreachables.get() == B
            assert a.links.send([heartbeat(A, B)]) == [B], "nothing is kept for it"
            again = Peer(B)
            await again.server.start(address)
            await a.send(heartbeat(A, B, term=2))
            assert await again.events.messages.get() == heartbeat(A, B, term=2)
            await again.server.stop()

    asyncio.run(main())


def test_a_member_is_gone_when_its_last_connection_is_and_not_before() -> None:
    async def main() -> None:
        async with Peer(B) as b:
            first, second = Stranger(hello(A, B)), Stranger(hello(A, B))
            old = OneWayLink(b.address, SECURITY, first, PEER_LIMITS)
            await first.welcome
            new = OneWayLink(b.address, SECURITY, second, PEER_LIMITS)
            await second.welcome
            await old.close()
            await new.close()
            assert await b.events.leavers.get() == A
            assert b.events.leavers.empty()

    asyncio.run(main())


def test_nobody_is_waited_for_who_is_not_known() -> None:
    async def main() -> None:
        async with Peer(A) as a:
            assert a.links.send([heartbeat(A, C), heartbeat(A, B), heartbeat(A, C)]) == [C, B]

    asyncio.run(main())


class SlowPeer:
    """A member in a thread of its own, whose loop stands still while ``pause`` is held."""

    def __init__(self) -> None:
        self.address = ""
        self.order: list[str] = []
        self.pause = threading.Lock()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Peer(B) as b:
            self.address = b.address
            b.events.message = self._take  # type: ignore[method-assign]
            self._ready.set()
            await self._stop.wait()

    def _take(self, message: PeerMessage) -> None:
        with self.pause:
            self.order.append(type(message).__name__)


def test_a_receiver_that_stands_still_costs_bounded_memory_and_no_heartbeat_waits_for_bulk() -> (
    None
):
    entry = Entry(index=1, term=1, data=bytes(256 * 1024))
    bulk = AppendEntries(
        source=A,
        target=B,
        term=1,
        prev_log_index=0,
        prev_log_term=0,
        entries=(entry,),
        leader_commit=0,
    )

    async def main() -> None:
        with SlowPeer() as slow:
            async with Peer(A) as a:
                a.addresses.says(B, slow.address)
                await a.send(heartbeat(A, B))
                slow.pause.acquire()
                sent = 0
                while not a.links.send([bulk]):
                    sent += 1
                    await asyncio.sleep(0)
                    assert sent < 200, "50 MB are held for one that does not read"
                assert a.links.send([heartbeat(A, B)]) == [], "short frames have room all the same"
                slow.pause.release()
                while slow.order.count("Heartbeat") < 2:
                    await asyncio.sleep(0.01)
                overtaken = sent - slow.order.index("Heartbeat", 1)
                assert overtaken > 20, "it was sent before what waited"

    asyncio.run(main())


def test_frames_over_the_limit_end_the_connection_before_memory_is_taken() -> None:
    async def main() -> None:
        async with Peer(B) as b:
            stranger = Stranger(hello(A, B))
            huge = TransportLimits(body_bytes_max=1 << 31)
            link = OneWayLink(b.address, SECURITY, stranger, huge)
            await stranger.welcome
            while not link.send(b"m" + bytes(PEER_LIMITS.body_bytes_max), urgent=True):
                await asyncio.sleep(0.01)
            link.flush()
            await stranger.ended.wait()
            await link.close()

    asyncio.run(main())
