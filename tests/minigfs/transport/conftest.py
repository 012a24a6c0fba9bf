"""A service to talk to, in both kinds of server, over every kind of address."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import trustme

from minigfs.config import TransportLimits
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler, ControlServer
from minigfs.transport.messages import Request
from minigfs.transport.security import Security, TlsFiles


class LoopThread:
    """An event loop in a thread, for the servers that need one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(20)

    def begin(self, awaitable: Awaitable[Any]) -> "Future[Any]":
        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class ControlHost:
    """A control server in a loop of its own, for tests that speak to it from threads."""

    def __init__(
        self,
        loop: LoopThread,
        handlers: Mapping[type[Request[Any]], ControlHandler],
        security: Security,
        limits: TransportLimits | None = None,
    ) -> None:
        self._loop = loop
        self.server = ControlServer(handlers, security, limits=limits)

    def start(self, address: str = "127.0.0.1:0") -> str:
        bound: str = self._loop.run(self.server.start(address))
        return bound

    def stop(self) -> None:
        self._loop.run(self.server.stop())


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture
def security() -> Security:
    return Security(b"the cluster's token", "cluster-1")


@pytest.fixture
def pool(security: Security) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(security)
    yield pool
    pool.close()


@pytest.fixture
def serve_bulk(security: Security) -> Iterator[Callable[..., tuple[BulkServer, str]]]:
    """Start a bulk server with handlers; it stops when the test ends."""
    servers: list[BulkServer] = []

    def serve(
        handlers: Mapping[type[Request[Any]], Any],
        *,
        address: str = "127.0.0.1:0",
        security: Security = security,
        limits: TransportLimits | None = None,
    ) -> tuple[BulkServer, str]:
        server = BulkServer(handlers, security, limits=limits)
        bound = server.start(address)
        servers.append(server)
        return server, bound

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def serve_control(
    loop: LoopThread, security: Security
) -> Iterator[Callable[..., tuple[ControlHost, str]]]:
    """Start a control server with handlers; it stops when the test ends."""
    hosts: list[ControlHost] = []

    def serve(
        handlers: Mapping[type[Request[Any]], ControlHandler],
        *,
        address: str = "127.0.0.1:0",
        security: Security = security,
        limits: TransportLimits | None = None,
    ) -> tuple[ControlHost, str]:
        host = ControlHost(loop, handlers, security, limits)
        bound = host.start(address)
        hosts.append(host)
        return host, bound

    yield serve
    for host in hosts:
        host.stop()


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    both = str(directory / "server.pem")
    return TlsFiles(ca=str(directory / "ca.pem"), certificate=both, key=both)
