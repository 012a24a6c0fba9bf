"""The network of the storage world: connections between hosts, as fibers and loops use them.

A piece of bytes arrives after a drawn delay, in the order of its stream. What is on its way while
its direction is cut waits, as with lost packets that TCP sends again, until it is mended.
A killed process resets its connections; one whose machine lost power is silent, until the machine
is back and answers with a reset.
"""

import asyncio
import errno
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from minigfs.transport.address import Address
from minigfs.transport.deadline import Deadline
from minigfs.transport.network import AsyncListener, Link, Listener
from minigfs.transport.security import TlsFiles
from tests.sim.scheduler import MS, SECOND
from tests.sim.storage.fibers import Fiber, Fibers

__all__ = ["HostNetwork", "Wires"]

WINDOW_BYTES = 256 * 1024
CONNECT_US_MAX = 20 * SECOND


def reset_error() -> ConnectionResetError:
    """A new one each time: one that is raised keeps the frames it passed, and their whole world."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


class End:
    """One end of a connection. ``changed`` is called when there is something to look at."""

    def __init__(self, wires: "Wires", host: str, peer: str) -> None:
        self.wires = wires
        self.host = host
        self.peer_host = peer
        self.other: End
        self.ready = bytearray()
        self.has_ended = False  # the peer closed, and all it sent is in ``ready``
        self.is_broken = False
        self.is_closed = False  # by its owner
        self.unread_bytes = 0  # sent to this end and not taken yet
        self.stuck: deque[bytes | None] = deque()  # arrived at a cut
        self.arrives_us = 0
        self.waiting: list[Fiber] = []
        self.changed: Callable[[], None] = _nothing

    def send(self, data: bytes | None) -> None:
        """None: there will be no more."""
        other = self.other
        if data is not None:
            other.unread_bytes += len(data)
        now_us = self.wires.scheduler.now_us
        other.arrives_us = max(other.arrives_us, now_us + self.wires.delay_us())
        self.wires.scheduler.after(other.arrives_us - now_us, other._arrive, data)

    def _arrive(self, data: bytes | None) -> None:
        if self.is_broken:
            return
        if self.stuck or self.wires.is_cut(self.peer_host, self.host):
            self.stuck.append(data)
            return
        self._take_in(data)

    def _take_in(self, data: bytes | None) -> None:
        if data is None:
            self.has_ended = True
        else:
            self.ready += data
        self.tell()

    def mended(self) -> None:
        while self.stuck and not self.wires.is_cut(self.peer_host, self.host):
            self._take_in(self.stuck.popleft())

    def taken(self, count: int) -> bytes:
        data = bytes(self.ready[:count])
        del self.ready[:count]
        self.unread_bytes -= len(data)
        self.other.tell()
        return data

    def break_off(self) -> None:
        """A reset comes in, or goes out."""
        if not self.is_broken:
            self.is_broken = True
            self.stuck.clear()
            self.tell()

    def tell(self) -> None:
        waiting, self.waiting = self.waiting, []
        for fiber in waiting:
            self.wires.fibers.wake(fiber)
        self.changed()

    def wait(self, happened: Callable[[], bool], deadline: Deadline) -> None:
        """For a fiber. ``TimeoutError`` when the time is over first; a deadline gone by still lets
        happen what needs no waiting."""
        fibers = self.wires.fibers
        while not happened():
            remaining_ms = deadline.remaining_ms()
            fiber = fibers.current
            assert fiber is not None
            self.waiting.append(fiber)
            fibers.park(None if remaining_ms is None else remaining_ms * MS)
            if fiber in self.waiting:
                self.waiting.remove(fiber)


class FiberLink:
    """A ``Link``."""

    def __init__(self, end: End, peer: str) -> None:
        self.peer = peer
        self._end = end

    def establish(self, deadline: Deadline) -> None:
        pass

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        end = self._end
        for view in buffers:
            for at in range(0, view.nbytes, WINDOW_BYTES):
                end.wait(
                    lambda: self._must_stop() or end.other.unread_bytes < WINDOW_BYTES, deadline
                )
                if end.is_broken:
                    raise reset_error()
                if self._must_stop():
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                end.send(bytes(view[at : at + WINDOW_BYTES]))

    def _must_stop(self) -> bool:
        end = self._end
        return end.is_broken or end.is_closed or (end.has_ended and not end.ready)

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        end = self._end
        end.wait(
            lambda: bool(end.is_closed or end.is_broken or end.ready or end.has_ended), deadline
        )
        if end.is_closed or (not end.ready and end.has_ended):
            return 0
        if end.is_broken:
            raise reset_error()
        data = end.taken(buffer.nbytes)
        buffer[: len(data)] = data
        return len(data)

    def is_quiet(self) -> bool:
        end = self._end
        return not (end.is_closed or end.is_broken or end.ready or end.has_ended)

    def shutdown(self) -> None:
        end = self._end
        if not end.is_closed:
            end.is_closed = True
            end.send(None)
            end.tell()
            end.wires.forget(end)

    def close(self) -> None:
        self.shutdown()

    def forget(self) -> None:
        self._end.is_closed = True


class FiberListener:
    """A ``Listener``."""

    def __init__(self, wires: "Wires", address: Address) -> None:
        self.address = address
        self._wires = wires
        self._waiting: deque[FiberLink] = deque()
        self._acceptor: Fiber | None = None
        self._is_closed = False

    def offer(self, end: End) -> None:
        self._waiting.append(FiberLink(end, end.peer_host))
        self._wake()

    def _wake(self) -> None:
        if self._acceptor is not None:
            self._wires.fibers.wake(self._acceptor)
            self._acceptor = None

    def accept(self) -> Link | None:
        while not self._waiting and not self._is_closed:
            self._acceptor = self._wires.fibers.current
            self._wires.fibers.park()
        return None if self._is_closed else self._waiting.popleft()

    def close(self) -> None:
        self._is_closed = True
        self._wires.listeners.pop(self.address, None)
        self._wake()


class LoopTransport(asyncio.Transport):
    """The server's end of a connection, for an asyncio protocol."""

    def __init__(self, end: End, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": end.peer_host})
        self._end = end
        self._loop = loop
        self._is_reading = True
        self._writing_is_paused = False
        self._is_closing = False
        self._pump_is_due = False
        self._protocol: asyncio.Protocol

    def begin(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = factory()
        self._protocol.connection_made(self)
        self._end.changed = self._mark
        self._pump()

    def _mark(self) -> None:
        if not self._pump_is_due and not self._is_closing:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        end = self._end
        if self._is_closing:
            return
        if end.is_broken:
            self._finish(reset_error())
            return
        while self._is_reading and end.ready and not self._is_closing:
            self._protocol.data_received(end.taken(WINDOW_BYTES))
        if self._is_reading and end.has_ended and not end.ready:
            self._finish(None)
        paused = end.other.unread_bytes > WINDOW_BYTES // 4
        if paused != self._writing_is_paused and not self._is_closing:
            self._writing_is_paused = paused
            if paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def _finish(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._end.is_closed = True
            self._end.send(None)
            self._end.wires.forget(self._end)
            self._loop.call_soon(self._protocol.connection_lost, error)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if not self._is_closing and not self._end.is_broken:
            self._end.send(bytes(data))
            self._mark()

    def close(self) -> None:
        self._finish(None)

    def abort(self) -> None:
        self._finish(None)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._mark()


class LoopListener:
    """An ``AsyncListener``."""

    def __init__(
        self, wires: "Wires", address: Address, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self.address = address
        self._wires = wires
        self._factory = factory
        self._loop = asyncio.get_running_loop()

    def offer(self, end: End) -> None:
        self._loop.call_soon(LoopTransport(end, self._loop).begin, self._factory)

    def close(self) -> None:
        self._wires.listeners.pop(self.address, None)

    async def wait_closed(self) -> None:
        pass


class Wires:
    """All hosts and the connections between them."""

    def __init__(self, fibers: Fibers, seed: str, delay_us_max: int) -> None:
        self.fibers = fibers
        self.scheduler = fibers.scheduler
        self.listeners: dict[Address, FiberListener | LoopListener] = {}
        self.owners: dict[Address, str] = {}
        self._chance = random.Random(seed)
        self._delay_us_max = delay_us_max
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._ends: dict[str, dict[End, None]] = {}  # the open ones of each host
        self._silent: set[str] = set()  # hosts without power

    def delay_us(self) -> int:
        return 30 + self._chance.randrange(self._delay_us_max)

    # What faults do to it

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts or target in self._silent

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from one host to another; cuts add up."""
        self._cuts[source, target] += 1

    def mend(self, source: str, target: str) -> None:
        self._cuts[source, target] -= 1
        if self._cuts[source, target] <= 0:
            del self._cuts[source, target]
        for end in list(self._ends.get(target, ())):
            if end.peer_host == source:
                end.mended()

    def reset(self, one: str, other: str) -> None:
        """Break the connections there are between two hosts."""
        for end in list(self._ends.get(one, ())):
            if end.peer_host == other:
                self._break(end)

    def died(self, host: str, *, power: bool) -> None:
        """Its process ended."""
        for address in [address for address, owner in self.owners.items() if owner == host]:
            self.listeners.pop(address, None)
        if power:
            self._silent.add(host)
            return
        for end in list(self._ends.get(host, ())):
            self._break(end)

    def came_back(self, host: str) -> None:
        """Its machine runs again: connections of the last life are answered with resets."""
        self._silent.discard(host)
        for end in list(self._ends.get(host, ())):
            self._break(end)

    def _break(self, end: End) -> None:
        for one in (end, end.other):
            one.break_off()
            self.forget(one)

    def forget(self, end: End) -> None:
        if end.is_closed or end.is_broken:
            self._ends.get(end.host, {}).pop(end, None)

    # What hosts do with it

    def bind(self, address: Address, owner: str) -> None:
        assert address not in self.listeners, f"{address} is in use"
        self.owners[address] = owner

    def connect(self, host: str, address: Address, deadline: Deadline) -> Link:
        target = self.owners.get(address, "")
        self.fibers.sleep_us(2 * self.delay_us())
        waited_us = 0
        while self.is_cut(host, target) or self.is_cut(target, host):
            deadline.remaining_ms()
            waited_us += 100 * MS
            if waited_us > CONNECT_US_MAX:
                raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
            self.fibers.sleep_us(100 * MS)
        listener = self.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = End(self, host, target), End(self, target, host)
        near.other, far.other = far, near
        for end in (near, far):
            self._ends.setdefault(end.host, {})[end] = None
        listener.offer(far)
        return FiberLink(near, address)


class HostNetwork:
    """A ``Network`` for one host. TLS is taken as read."""

    def __init__(self, wires: Wires, host: str) -> None:
        self._wires = wires
        self._host = host

    def connect(self, address: Address, deadline: Deadline, tls: TlsFiles | None = None) -> Link:
        return self._wires.connect(self._host, address, deadline)

    def listen(self, address: Address, tls: TlsFiles | None = None) -> Listener:
        self._wires.bind(address, self._host)
        listener = self._wires.listeners[address] = FiberListener(self._wires, address)
        return listener

    async def serve(
        self,
        address: Address,
        factory: Callable[[], asyncio.Protocol],
        tls: TlsFiles | None = None,
        *,
        handshake_timeout_ms: int,
    ) -> AsyncListener:
        self._wires.bind(address, self._host)
        listener = LoopListener(self._wires, address, factory)
        self._wires.listeners[address] = listener
        return listener


def _nothing() -> None:
    """Nobody listens yet."""
