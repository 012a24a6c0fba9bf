"""Forked children: a server to be killed or frozen, and a client that inherited a pool."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from minigfs.transport.bulk_server import BulkHandler, BulkServer
from minigfs.transport.messages import Request
from minigfs.transport.security import Security

__all__ = ["FORKS", "forked_server", "in_child"]

FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""For tests that fork while other threads run, which is what they are about."""


def in_child(act: Callable[[], str]) -> str:
    """What ``act`` returns in a forked child; "" if it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, act().encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read().decode()


@contextmanager
def forked_server(
    security: Security, handlers: Mapping[type[Request[Any]], BulkHandler]
) -> Iterator[tuple[str, int]]:
    """A bulk server in a child; gives its address and process id, and kills it in the end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, BulkServer(handlers, security).start("127.0.0.1:0").encode())
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    address = os.read(reader, 100).decode()
    os.close(reader)
    try:
        yield address, child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
