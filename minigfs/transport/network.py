"""The port to the network: links that carry bytes, and listeners that hand them out.

Two ways of listening, for the two ways of moving frames: ``listen`` gives blocking links, one to a
thread (bulk bytes), ``serve`` runs asyncio protocols (control calls). Clients always use blocking
links. ``tests/sim/network.py`` is the simulated twin; both obey ``tests/contracts``.

A link reports trouble as plain ``OSError``; ``TimeoutError`` alone means that the deadline passed.
The layers above give these their meaning for a call.
"""

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minigfs.errors import InvalidConfig
from minigfs.transport.address import Address, TcpAddress, UnixAddress, parse_address
from minigfs.transport.deadline import Deadline
from minigfs.transport.security import TlsFiles, client_context, server_context
from minigfs.transport.sockets import SocketLink, SocketListener, TlsLink, UnixLink

if TYPE_CHECKING:  # clients never need an event loop, and importing one takes them a while
    import asyncio

__all__ = ["AsyncListener", "Link", "Listener", "Network", "RealNetwork"]

BACKLOG = 512  # a cluster's clients may all come back at once after a restart


class Link(Protocol):
    """A byte stream to one peer. One thread may send while another receives."""

    @property
    def peer(self) -> str:
        """The other end, for messages."""
        ...

    def establish(self, deadline: Deadline) -> None:
        """Finish what the two ends must agree on before bytes flow (TLS); once, first."""
        ...

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        """All the bytes, in order, or raise. After an error nothing more may be sent."""
        ...

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        """At least one byte into a non-empty buffer; 0 when the peer has closed."""
        ...

    def is_quiet(self) -> bool:
        """Nothing to receive, not even the peer's goodbye: fit to be used again."""
        ...

    def shutdown(self) -> None:
        """End both directions now, waking whoever waits on the link; from any thread."""
        ...

    def close(self) -> None:
        """End the link and free it; by its owner, twice is no error."""
        ...

    def forget(self) -> None:
        """Free this process's copy only: for a child that inherited its parent's link."""
        ...


class Listener(Protocol):
    @property
    def address(self) -> Address:
        """Where it listens, with the port that was chosen."""
        ...

    def accept(self) -> Link | None:
        """The next link, not yet established; ``None`` once the listener is closed."""
        ...

    def close(self) -> None:
        """From any thread; wakes ``accept``."""
        ...


class AsyncListener(Protocol):
    @property
    def address(self) -> Address: ...

    def close(self) -> None:
        """Accept nobody any more; connections made live on."""
        ...

    async def wait_closed(self) -> None:
        """Return when the listener is closed; call it after the last connection has ended."""
        ...


class Network(Protocol):
    """``tls`` asks for TLS on TCP; Unix sockets never use it, as they do not leave the machine."""

    def connect(self, address: Address, deadline: Deadline, tls: TlsFiles | None = None) -> Link:
        """A link that is established; ``OSError`` when nobody listens."""
        ...

    def listen(self, address: Address, tls: TlsFiles | None = None) -> Listener: ...

    async def serve(
        self,
        address: Address,
        factory: Callable[[], "asyncio.Protocol"],
        tls: TlsFiles | None = None,
        *,
        handshake_timeout_ms: int,
    ) -> AsyncListener:
        """Run a protocol of ``factory`` for each connection, on the running loop."""
        ...


class RealAsyncListener:
    def __init__(self, server: "asyncio.Server", address: Address) -> None:
        self._server = server
        self.address = address

    def close(self) -> None:
        self._server.close()
        remove_socket_file(self.address)

    async def wait_closed(self) -> None:
        await self._server.wait_closed()


class RealNetwork:
    """TCP without Nagle's delay, Unix sockets, and TLS over TCP."""

    def connect(self, address: Address, deadline: Deadline, tls: TlsFiles | None = None) -> Link:
        where = parse_address(address)
        remaining_ms = deadline.remaining_ms()
        timeout = None if remaining_ms is None else remaining_ms / 1000
        if isinstance(where, UnixAddress):
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                unix.settimeout(timeout)
                unix.connect(where.path)
            except BaseException:
                unix.close()
                raise
            return UnixLink(unix, address, takes_descriptors=True)
        tcp = socket.create_connection((where.host, where.port), timeout)
        try:
            if tls is None:
                return SocketLink(tcp, address)
            link = TlsLink(tcp, address, client_context(tls), server_name=where.host)
        except BaseException:
            tcp.close()
            raise
        try:
            link.establish(deadline)
        except BaseException:
            link.close()
            raise
        return link

    def listen(self, address: Address, tls: TlsFiles | None = None) -> Listener:
        context = None if tls is None or not is_tcp(address) else server_context(tls)
        listening, bound = listening_socket(address)
        return SocketListener(listening, bound, context, lambda: remove_socket_file(bound))

    async def serve(
        self,
        address: Address,
        factory: Callable[[], "asyncio.Protocol"],
        tls: TlsFiles | None = None,
        *,
        handshake_timeout_ms: int,
    ) -> AsyncListener:
        import asyncio

        context = None if tls is None or not is_tcp(address) else server_context(tls)
        loop = asyncio.get_running_loop()
        listening, bound = listening_socket(address)
        listening.setblocking(False)
        if is_tcp(address):
            server = await loop.create_server(
                factory,
                sock=listening,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=None if context is None else handshake_timeout_ms / 1000,
            )
        else:
            server = await loop.create_unix_server(factory, sock=listening, backlog=BACKLOG)
        return RealAsyncListener(server, bound)


def is_tcp(address: Address) -> bool:
    return isinstance(parse_address(address), TcpAddress)


def remove_socket_file(address: Address) -> None:
    where = parse_address(address)
    if isinstance(where, UnixAddress):
        Path(where.path).unlink(missing_ok=True)


def listening_socket(address: Address) -> tuple[socket.socket, Address]:
    """A socket that listens, and the address others can reach it by."""
    where = parse_address(address)
    family = socket.AF_UNIX
    if isinstance(where, TcpAddress):
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(where, UnixAddress):
            bind_unix(listening, where)
            bound = address
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((where.host, where.port))
            bound = str(TcpAddress(where.host, listening.getsockname()[1]))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InvalidConfig(
            f"cannot listen on {address} ({error.strerror or error}): "
            "choose another address or stop what uses it"
        ) from error
    return listening, bound


def bind_unix(listening: socket.socket, where: UnixAddress) -> None:
    """Bind with mode 0600. A socket file left by a dead server is removed; a live one is not."""
    with contextlib.suppress(FileNotFoundError):
        if Path(where.path).is_socket() and not answers(where):
            Path(where.path).unlink()
    listening.bind(where.path)
    # Nobody can connect before listen(), so no other user gets in before this.
    Path(where.path).chmod(0o600)


def answers(where: UnixAddress) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(where.path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
