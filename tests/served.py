"""A control server on a loop of its own, for tests that need somebody to answer."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from minigfs.transport.address import Address
from minigfs.transport.control_server import ControlHandler, ControlServer
from minigfs.transport.messages import Request
from minigfs.transport.security import Security

__all__ = ["served"]


@contextmanager
def served(
    handlers: Mapping[type[Request[Any]], ControlHandler], security: Security
) -> Iterator[Address]:
    """The address at which the handlers answer, in another thread, as long as the block lasts."""
    server = ControlServer(handlers, security)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start("127.0.0.1:0"), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
