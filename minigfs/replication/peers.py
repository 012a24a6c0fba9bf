"""Links between the members of a group: each speaks on connections of its own, listens on others'.

::

    member A                                     member B
       |  token (transport), MemberHello  ----->   |  checks: is it me you mean? is your log yours?
       |  <-------------------  MemberWelcome ---  |
       |  messages, reports  ------------------->  |   nobody answers here; B's answers
       |                                           |   go over B's own connection to A

So a connection says once who its sender is, and a message with another ``source`` is dropped: the
token proves a member of the cluster, the hello which. A message to a member that cannot be reached,
or does not keep up, is dropped as well, and the member is reported unreachable; Raft repeats.

The first byte of a frame says what the rest is.
"""

import logging
from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

from minigfs.config import TransportLimits
from minigfs.errors import MemberRemoved, MemberRolledBack, MinigfsError, ProtocolError
from minigfs.raft import NodeId
from minigfs.raft.messages import AppendEntries
from minigfs.replication.addresses import MemberAddresses
from minigfs.replication.peer_messages import (
    PEER_MESSAGE_BYTES_MAX,
    PeerMessage,
    SnapshotPiece,
    decode_peer_message,
    encode_peer_message,
)
from minigfs.transport.address import Address
from minigfs.transport.codec import decode_body
from minigfs.transport.control_server import OneWaySender
from minigfs.transport.one_way_link import OneWayLink
from minigfs.transport.security import Security

__all__ = ["PEER_LIMITS", "MemberHello", "MemberReport", "PeerEvents", "PeerLinks"]

logger = logging.getLogger(__name__)

PEER_LIMITS = TransportLimits(body_bytes_max=1 + PEER_MESSAGE_BYTES_MAX, payload_bytes_max=0)
PROTOCOL_VERSION = 1
HELLO, WELCOME, MESSAGE, REPORT = b"h", b"w", b"m", b"r"

_StructT = TypeVar("_StructT", bound=msgspec.Struct)


class MemberHello(msgspec.Struct, frozen=True, kw_only=True):
    """Who opens a connection to whom, and how much of the log is durable at the sender."""

    version: int
    member: NodeId
    target: NodeId
    address: Address
    term: int
    last_index: int


class MemberWelcome(msgspec.Struct, frozen=True, kw_only=True):
    member: NodeId


class MemberReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a member says of itself, once a second.

    ``acknowledged``: by a leader, how far each other's log is known to be on its disk.
    ``has_room``: whether its own log can grow.
    """

    role: str
    term: int
    pid: int
    address: Address
    directory: str
    commit_index: int
    has_room: bool = True
    acknowledged: dict[NodeId, int] = msgspec.field(default_factory=dict)


class PeerEvents(Protocol):
    """What the links ask and tell the host; all on the loop."""

    def durable_end(self) -> tuple[int, int]:
        """(term, index of the last durable entry) of this member."""
        ...

    def examine(self, hello: MemberHello) -> None:
        """Raise ``MemberRolledBack`` or ``MemberRemoved`` to turn a member away."""
        ...

    def mistaken(self, hello: MemberHello) -> None:
        """Somebody takes this member for another one, which may have listened here before."""
        ...

    def message(self, message: PeerMessage) -> None: ...

    def report(self, member: NodeId, report: MemberReport) -> None: ...

    def connected(self, member: NodeId) -> None:
        """What is sent to ``member`` from now on may arrive."""
        ...

    def unreachable(self, member: NodeId) -> None:
        """Messages to ``member`` were lost."""
        ...

    def gone(self, member: NodeId) -> None:
        """The connection of ``member`` to this one ended; if it lives, it comes back at once."""
        ...

    def turned_away(self, error: MinigfsError) -> None:
        """Another member proved that this one must not go on."""
        ...


class PeerLinks:
    """All links of one member. ``receiver`` is for the server; ``start`` lets it speak."""

    def __init__(
        self,
        member: NodeId,
        addresses: MemberAddresses,
        security: Security,
        events: PeerEvents,
    ) -> None:
        self.member = member
        self.addresses = addresses
        self.events = events
        self.address: Address = ""
        self._security = security
        self._links: dict[NodeId, OneWayLink] = {}
        self._receivers: dict[NodeId, PeerReceiver] = {}
        self._stopped = False

    def receiver(self, sender: OneWaySender) -> "PeerReceiver":
        """For ``ControlServer(one_way=...)``."""
        return PeerReceiver(self, sender)

    def start(self, address: Address) -> None:
        """``address`` is where others reach this member."""
        self.address = address

    def connect(self, members: Iterable[NodeId]) -> None:
        """Keep links to these, wherever they listen by now."""
        for member in members:
            self._link_to(member)

    def forget(self, members: Iterable[NodeId]) -> None:
        """These left the group: one that is not there any more is looked for no longer."""
        for member in members:
            link = self._links.get(member)
            if link is not None and not link.is_open:
                del self._links[member]
                link.cancel()

    async def stop(self) -> None:
        self._stopped = True
        while self._links:
            _, link = self._links.popitem()
            await link.close()

    def send(self, messages: Iterable[PeerMessage]) -> list[NodeId]:
        """Send now. Answers with the members to whom something was lost."""
        lost: dict[NodeId, None] = {}
        for message in messages:
            link = self._link_to(message.target)
            urgent = not _may_wait(message)
            body = MESSAGE + encode_peer_message(message) if link is not None else b""
            if link is None or not link.send(body, urgent=urgent):
                lost[message.target] = None
        for link in self._links.values():
            link.flush()
        return list(lost)

    def send_report(self, report: MemberReport) -> None:
        body = REPORT + msgspec.msgpack.encode(report)
        for link in self._links.values():
            link.send(body, urgent=True)
            link.flush()

    def heard(self, member: NodeId, address: Address, receiver: "PeerReceiver") -> None:
        """A member connected: it is there, and listens at ``address``."""
        self._receivers[member] = receiver
        self.addresses.says(member, address)
        link = self._link_to(member)
        if link is not None:
            link.hurry()

    def is_heard(self, member: NodeId) -> bool:
        """Whether ``member`` has a connection to this one."""
        return member in self._receivers

    def ended(self, member: NodeId, receiver: "PeerReceiver") -> None:
        """A connection of a member ended; perhaps it has another one by now."""
        if self._receivers.get(member) is receiver:
            del self._receivers[member]
            self.events.gone(member)

    def hello_to(self, target: NodeId) -> bytes:
        term, last_index = self.events.durable_end()
        hello = MemberHello(
            version=PROTOCOL_VERSION,
            member=self.member,
            target=target,
            address=self.address,
            term=term,
            last_index=last_index,
        )
        return HELLO + msgspec.msgpack.encode(hello)

    def _link_to(self, member: NodeId) -> OneWayLink | None:
        link = self._links.get(member)
        address = self.addresses.get(member)
        if link is not None:
            if address is not None:
                link.move(address)
            return link
        if address is None or not self.address or self._stopped or member == self.member:
            return None
        link = OneWayLink(address, self._security, _Sender(self, member), PEER_LIMITS)
        self._links[member] = link
        return link


class _Sender:
    """The owner of the link to one member."""

    def __init__(self, links: PeerLinks, target: NodeId) -> None:
        self._links = links
        self._target = target
        self._last_refusal = ""

    def introduce(self) -> bytes:
        return self._links.hello_to(self._target)

    def welcomed(self, body: bytes) -> None:
        welcome = _decode(WELCOME, body, MemberWelcome)
        if welcome.member != self._target:
            raise ProtocolError(f"master {welcome.member} answers where {self._target} should be")
        self._last_refusal = ""
        logger.info("connected to master %s", self._target)
        self._links.events.connected(self._target)

    def lost(self) -> None:
        logger.info("the connection to master %s broke", self._target)
        self._links.events.unreachable(self._target)

    def refused(self, error: MinigfsError) -> None:
        if isinstance(error, (MemberRolledBack, MemberRemoved)):
            self._links.events.turned_away(error)
        elif error.message != self._last_refusal:
            self._last_refusal = error.message
            logger.warning("master %s will not talk to us: %s", self._target, error)


class PeerReceiver:
    """One connection of another member to this one."""

    def __init__(self, links: PeerLinks, sender: OneWaySender) -> None:
        self._links = links
        self._sender = sender
        self._member: NodeId | None = None

    def received(self, body: bytes) -> None:
        if self._member is None:
            self._meet(_decode(HELLO, body, MemberHello))
        elif body.startswith(MESSAGE):
            self._deliver(self._member, decode_peer_message(memoryview(body)[1:]))
        else:
            self._links.events.report(self._member, _decode(REPORT, body, MemberReport))

    def ended(self) -> None:
        if self._member is not None:
            self._links.ended(self._member, self)

    def _meet(self, hello: MemberHello) -> None:
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"master {hello.member} speaks version {hello.version} of the masters' protocol, "
                f"this one {PROTOCOL_VERSION}: install the same release on both"
            )
        if hello.target != self._links.member:
            self._links.events.mistaken(hello)
            raise ProtocolError(f"this is master {self._links.member}, not {hello.target}")
        self._links.events.examine(hello)
        self._member = hello.member
        welcome = MemberWelcome(member=self._links.member)
        self._sender.send_one_way(WELCOME + msgspec.msgpack.encode(welcome))
        self._links.heard(hello.member, hello.address, self)

    def _deliver(self, member: NodeId, message: PeerMessage) -> None:
        if message.source != member or message.target != self._links.member:
            logger.warning(
                "dropped a message from %s to %s that master %s sent",
                message.source,
                message.target,
                member,
            )
            return
        self._links.events.message(message)


def _may_wait(message: PeerMessage) -> bool:
    """What is long, and is not missed if it comes a moment later."""
    return (isinstance(message, AppendEntries) and bool(message.entries)) or (
        isinstance(message, SnapshotPiece) and bool(message.data)
    )


def _decode(kind: bytes, body: bytes, struct_type: type[_StructT]) -> _StructT:
    if not body.startswith(kind):
        raise ProtocolError(f"a frame {body[:1]!r} came where a {struct_type.__name__} should be")
    return decode_body(memoryview(body)[1:], struct_type)
