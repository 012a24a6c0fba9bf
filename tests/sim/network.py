"""A network in memory: hosts by name, cut, isolated and delayed at the test's word.

Each connection is two pipes, and a piece of bytes in a pipe has a moment at which it arrives on the
virtual clock. While two hosts cannot reach each other nothing arrives, as with lost packets that
TCP sends again: bytes wait in the pipe, senders are held by its capacity, and all goes on after
``heal``. ``cut`` breaks connections the way a reset does: what was under way is lost.

Delays are drawn from the seed in the order of the sends, so a single-threaded sender sees the same
delays in every run.
"""

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from minigfs.errors import InvalidConfig
from minigfs.transport.address import Address, TcpAddress, parse_address
from minigfs.transport.deadline import Deadline
from minigfs.transport.network import AsyncListener, Link, Listener
from minigfs.transport.security import TlsFiles
from tests.sim.clock import SimClock, SimRng

__all__ = ["SimHost", "SimNetwork"]

PIPE_BYTES = 256 * 1024
HIGH_WATER_BYTES = 64 * 1024  # of a transport's pipe: above it, writing is paused
PIECE_BYTES = 64 * 1024
FIRST_FREE_PORT = 20_000


class Pipe:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.pieces: deque[tuple[int, bytes]] = deque()  # (arrives at, bytes)
        self.bytes_inside = 0
        self.closed = False  # by the sender, after the pieces

    def put(self, data: bytes, arrives_ms: int) -> None:
        if self.pieces:
            arrives_ms = max(arrives_ms, self.pieces[-1][0])  # a stream keeps its order
        self.pieces.append((arrives_ms, data))
        self.bytes_inside += len(data)

    def take(self, length: int) -> bytes:
        arrives_ms, data = self.pieces.popleft()
        if len(data) > length:
            self.pieces.appendleft((arrives_ms, data[length:]))
        self.bytes_inside -= min(length, len(data))
        return data[:length]


class Wire:
    """One connection between two hosts, shared by its two ends."""

    def __init__(self, network: "SimNetwork", client: str, server: str) -> None:
        self.network = network
        self.hosts = frozenset((client, server))
        self.broken = False
        self.pipes = (Pipe(), Pipe())

    def passes(self) -> bool:
        return not self.hosts & self.network.isolated or len(self.hosts) == 1

    def arrived(self, pipe: Pipe) -> bool:
        """Something to receive: bytes, or the end."""
        if self.broken:
            return True
        if not self.passes():
            return False
        if pipe.pieces:
            return pipe.pieces[0][0] <= self.network.clock.monotonic_ms()
        return pipe.closed

    def check(self) -> None:
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def remaining_ms(deadline: Deadline) -> int | None:
    """A deadline gone by still lets happen what needs no waiting, as with real sockets."""
    try:
        return deadline.remaining_ms()
    except TimeoutError:
        return 0


class SimLink:
    """A ``Link``."""

    def __init__(self, wire: Wire, side: int, peer: str) -> None:
        self.peer = peer
        self._wire = wire
        self._out, self._in = wire.pipes[side], wire.pipes[1 - side]
        self._clock = wire.network.clock
        self._ended = False

    def establish(self, deadline: Deadline) -> None:
        pass

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        for view in buffers:
            for at in range(0, view.nbytes, PIECE_BYTES):
                self._send_piece(bytes(view[at : at + PIECE_BYTES]), deadline)

    def _send_piece(self, piece: bytes, deadline: Deadline) -> None:
        with self._clock.changed:
            self._clock.wait_for(
                lambda: self._must_stop() or self._out.bytes_inside < PIPE_BYTES,
                remaining_ms(deadline),
            )
            self._wire.check()
            if self._must_stop():
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            self._out.put(piece, self._wire.network.arrival_ms())
            self._clock.notify()

    def _must_stop(self) -> bool:
        return self._wire.broken or self._ended or (self._in.closed and not self._in.pieces)

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        with self._clock.changed:
            self._clock.wait_for(
                lambda: self._ended or self._wire.arrived(self._in), remaining_ms(deadline)
            )
            self._wire.check()
            if self._ended or not self._in.pieces:
                return 0
            data = self._in.take(buffer.nbytes)
            buffer[: len(data)] = data
            self._clock.notify()
            return len(data)

    def is_quiet(self) -> bool:
        with self._clock.changed:
            return not self._ended and not self._wire.arrived(self._in)

    def shutdown(self) -> None:
        with self._clock.changed:
            self._ended = True
            self._out.closed = True
            self._clock.notify()

    def close(self) -> None:
        self.shutdown()

    def forget(self) -> None:
        self._ended = True


class SimListener:
    """A ``Listener``."""

    def __init__(self, network: "SimNetwork", address: Address) -> None:
        self.address = address
        self._network = network
        self._waiting: deque[SimLink] = deque()
        self._closed = False

    def offer(self, wire: Wire, peer: str) -> None:
        self._waiting.append(SimLink(wire, 1, peer))

    def accept(self) -> Link | None:
        clock = self._network.clock
        with clock.changed:
            clock.wait_for(lambda: self._closed or bool(self._waiting), None)
            return None if self._closed else self._waiting.popleft()

    def close(self) -> None:
        with self._network.clock.changed:
            self._closed = True
            self._network.listeners.pop(self.address, None)
            for link in self._waiting:
                link.close()
            self._network.clock.notify()


class SimTransport(asyncio.Transport):
    """The server's end of a wire, for an asyncio protocol."""

    def __init__(self, wire: Wire, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": peer})
        self._wire = wire
        self._out, self._in = wire.pipes[1], wire.pipes[0]
        self._clock = wire.network.clock
        self._loop = loop
        self._reading = True
        self._writing_paused = False
        self._closing = False
        self._protocol: asyncio.Protocol

    def begin(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = factory()
        self._protocol.connection_made(self)
        self._clock.on_change(self._wake)
        self._pump()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._pump)

    def _pump(self) -> None:
        """On the loop: deliver what has arrived, and tell the protocol how writing goes."""
        while not self._closing and self._reading:
            with self._clock.changed:
                if not self._wire.arrived(self._in):
                    break
                broken = self._wire.broken
                data = b"" if broken or not self._in.pieces else self._in.take(PIECE_BYTES)
                self._clock.changed.notify_all()
            if data:
                self._protocol.data_received(data)
            else:
                self._end(ConnectionResetError() if broken else None)
        self._tell_about_writing()

    def _tell_about_writing(self) -> None:
        paused = self._out.bytes_inside > HIGH_WATER_BYTES
        if paused != self._writing_paused and not self._closing:
            self._writing_paused = paused
            if paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def _end(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            with self._clock.changed:
                self._out.closed = True
                self._clock.forget(self._wake)
                self._clock.notify()
            self._loop.call_soon(self._protocol.connection_lost, error)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        with self._clock.changed:
            if self._closing or self._wire.broken:
                return
            self._out.put(bytes(data), self._wire.network.arrival_ms())
            self._clock.notify()
        self._tell_about_writing()

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        with self._clock.changed:
            self._out.pieces.clear()
        self._end(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._pump)


class SimAsyncListener:
    """An ``AsyncListener``."""

    def __init__(
        self, network: "SimNetwork", address: Address, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self.address = address
        self._network = network
        self._factory = factory
        self._loop = asyncio.get_running_loop()

    def offer(self, wire: Wire, peer: str) -> None:
        transport = SimTransport(wire, peer, self._loop)
        self._loop.call_soon_threadsafe(transport.begin, self._factory)

    def close(self) -> None:
        with self._network.clock.changed:
            self._network.listeners.pop(self.address, None)

    async def wait_closed(self) -> None:
        pass


class SimNetwork:
    """All hosts and the wires between them."""

    def __init__(self, clock: SimClock, seed: int = 0) -> None:
        self.clock = clock
        self.listeners: dict[Address, SimListener | SimAsyncListener] = {}
        self.owners: dict[Address, str] = {}
        self.isolated: frozenset[str] = frozenset()
        self._rng = SimRng(seed)
        self._delay_ms = (0, 0)
        self._wires: list[Wire] = []
        self._next_port = FIRST_FREE_PORT

    def host(self, name: str) -> "SimHost":
        """The network as one machine sees it; each process under test gets its own."""
        return SimHost(self, name)

    def isolate(self, *hosts: str) -> None:
        """Nothing passes between these hosts and any other, until ``heal``."""
        with self.clock.changed:
            self.isolated |= frozenset(hosts)
            self.clock.notify()

    def heal(self) -> None:
        with self.clock.changed:
            self.isolated = frozenset()
            self.clock.notify()

    def cut(self, one: str, other: str) -> None:
        """Break the connections there are between two hosts; new ones may be made."""
        with self.clock.changed:
            for wire in self._wires:
                if wire.hosts == frozenset((one, other)):
                    wire.broken = True
            self._wires = [wire for wire in self._wires if not wire.broken]
            self.clock.notify()

    def delay(self, low_ms: int, high_ms: int) -> None:
        """From now on bytes take between ``low_ms`` and ``high_ms`` to arrive."""
        with self.clock.changed:
            self._delay_ms = (low_ms, high_ms)

    def arrival_ms(self) -> int:
        return self.clock.monotonic_ms() + self._rng.uniform_ms(*self._delay_ms)

    def bind(self, address: Address, owner: str) -> Address:
        where = parse_address(address)
        if isinstance(where, TcpAddress) and where.port == 0:
            self._next_port += 1
            address = str(TcpAddress(where.host, self._next_port))
        if address in self.listeners:
            raise InvalidConfig(f"cannot listen on {address}: it is in use")
        self.owners[address] = owner
        return address

    def wire(self, client: str, address: Address, deadline: Deadline) -> Wire:
        with self.clock.changed:
            wire = Wire(self, client, self.owners.get(address, client))
            self.clock.wait_for(wire.passes, remaining_ms(deadline))
            listener = self.listeners.get(address)
            if listener is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            self._wires.append(wire)
            listener.offer(wire, client)
            self.clock.notify()
            return wire


class SimHost:
    """A ``Network`` for one host. TLS is taken as read."""

    def __init__(self, network: SimNetwork, name: str) -> None:
        self._network = network
        self._name = name

    def connect(self, address: Address, deadline: Deadline, tls: TlsFiles | None = None) -> Link:
        return SimLink(self._network.wire(self._name, address, deadline), 0, address)

    def listen(self, address: Address, tls: TlsFiles | None = None) -> Listener:
        with self._network.clock.changed:
            bound = self._network.bind(address, self._name)
            listener = self._network.listeners[bound] = SimListener(self._network, bound)
            return listener

    async def serve(
        self,
        address: Address,
        factory: Callable[[], asyncio.Protocol],
        tls: TlsFiles | None = None,
        *,
        handshake_timeout_ms: int,
    ) -> AsyncListener:
        with self._network.clock.changed:
            bound = self._network.bind(address, self._name)
            listener = SimAsyncListener(self._network, bound, factory)
            self._network.listeners[bound] = listener
            return listener
