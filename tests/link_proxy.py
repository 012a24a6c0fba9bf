"""Cuts, delays and half-cuts TCP links between processes that advertise a proxy's address.

Every named server gets a front: an address of its own, which it advertises. Who connects to a
front is found out by process id, so the link between two servers can be cut while a third, and
every client, still reaches both. A direction is what flows from one server to another, on
connections of either; a cut direction swallows nothing: bytes wait, as in TCP's own buffers, and
arrive after ``heal``, however old, or never if the connection ends first.

::

    links = LinkProxy()
    links.add_front("a")              # "127.0.0.1:40001", to advertise
    links.serve("a", "127.0.0.1:7000", pid)
    links.cut("a", "b")               # nothing passes between a and b
    links.cut_one_way("a", "b")       # b hears a no more, a hears b
    links.delay("a", "b", 0.1)        # seconds, each way
    links.isolate("a")                # from every server; clients reach it
    links.heal()                      # everything

Runs one event loop in a thread of its own; its methods may be called from any thread.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["OTHERS", "LinkProxy"]

OTHERS = ""  # who is no server: clients, chunkservers
_READ_BYTES = 64 * 1024
_CALL_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class _Front:
    name: str
    address: str
    listener: asyncio.Server
    upstream: str | None = None
    pid: int | None = None


@dataclass(slots=True)
class _Direction:
    """What flows from one server to another."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0


class LinkProxy:
    """Ends with its ``with`` block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link-proxy")
        self._fronts: dict[str, _Front] = {}
        self._directions: dict[tuple[str, str], _Direction] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Servers

    def add_front(self, name: str) -> str:
        """The address that a server of that name shall advertise."""
        return self._run(self._add_front(name))

    def serve(self, name: str, upstream: str, pid: int) -> None:
        """The server runs, or runs again, as that process at that real address."""

        async def learn() -> None:
            self._fronts[name].upstream, self._fronts[name].pid = upstream, pid

        self._run(learn())

    # Faults

    def cut(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, source: str, target: str) -> None:
        """Hold back what flows from ``source`` to ``target``."""
        self._run(self._set_gate(source, target, is_open=False))

    def isolate(self, name: str) -> None:
        for other in self._fronts:
            if other != name:
                self.cut(name, other)

    def delay(self, one: str, other: str, delay_s: float) -> None:
        """What passes between them arrives so much later, in order."""
        self._run(self._set_delay(one, other, delay_s))
        self._run(self._set_delay(other, one, delay_s))

    def heal(self) -> None:
        """All links as they should be; what was held back arrives."""
        self._run(self._heal())

    # On the loop

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)

    async def _add_front(self, name: str) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                await self._carry(self._fronts[name], reader, writer)
            except OSError:
                pass  # one end is gone: the close below tells the other
            except asyncio.CancelledError:
                writer.transport.abort()  # the proxy ends: no waiting for who does not read
            finally:
                self._connections.discard(task)
                writer.close()

        listener = await asyncio.start_server(connected, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        self._fronts[name] = _Front(name, f"{host}:{port}", listener)
        return self._fronts[name].address

    async def _carry(
        self, front: _Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ports = writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]
        source = await asyncio.to_thread(self._name_of, *ports)
        await self._direction(source, front.name).gate.wait()
        if front.upstream is None:
            return
        host, _, upstream_port = front.upstream.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(upstream_port))
        ways = [
            asyncio.create_task(_pump(reader, far_writer, self._direction(source, front.name))),
            asyncio.create_task(_pump(far_reader, writer, self._direction(front.name, source))),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            far_writer.transport.abort()
            raise
        finally:
            far_writer.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _name_of(self, port: int, front_port: int) -> str:
        """Which server's process has the connection from a port to that of a front."""
        inode = _socket_inode(port, front_port)
        for front in list(self._fronts.values()):
            if front.pid is not None and _has_socket(front.pid, inode):
                return front.name
        return OTHERS

    def _direction(self, source: str, target: str) -> _Direction:
        direction = self._directions.get((source, target))
        if direction is None:
            direction = self._directions[source, target] = _Direction()
            direction.gate.set()
        return direction

    async def _set_gate(self, source: str, target: str, *, is_open: bool) -> None:
        gate = self._direction(source, target).gate
        gate.set() if is_open else gate.clear()

    async def _set_delay(self, source: str, target: str, delay_s: float) -> None:
        self._direction(source, target).delay_s = delay_s

    async def _heal(self) -> None:
        for direction in self._directions.values():
            direction.delay_s = 0.0
            direction.gate.set()

    async def _close(self) -> None:
        for front in self._fronts.values():
            for listening in front.listener.sockets:
                self._loop.remove_reader(listening.fileno())
        # Connections just accepted get to where they can be cancelled; a server that is closed
        # before that would lose their sockets (CPython issue 109564).
        await _some_turns()
        for front in self._fronts.values():
            front.listener.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await _some_turns()  # in which closed sockets are really closed


def _socket_inode(port: int, peer_port: int) -> str:
    """Of a connection on the loopback; "" if it has ended. Every process of a test connects often,
    and asking for the connections of all would take longer than they last."""
    ends = f" 0100007F:{port:04X} 0100007F:{peer_port:04X} "
    with Path("/proc/net/tcp").open() as table:
        line = next((line for line in table if ends in line), "")
    return line.split()[9] if line else ""


def _has_socket(pid: int, inode: str) -> bool:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):  # closed meanwhile
            if str(descriptor.readlink()) == f"socket:[{inode}]":
                return True
    return False


async def _some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: _Direction
) -> None:
    """Carry bytes one way until an end closes. Each waits its own delay: they keep their pace."""
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

    async def receive() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_READ_BYTES)
            except OSError:
                data = b""
            await held.put((loop.time() + direction.delay_s, data))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due_s, data = await held.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await direction.gate.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
