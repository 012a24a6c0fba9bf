"""Calls of a leading master to chunkservers: few, small, with short deadlines.

Chunkservers serve blocking sockets, so calls run in threads of their own; one that hangs holds up
nothing but its own answer.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from minigfs.errors import MinigfsError
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool
from minigfs.transport.messages import Message, Request
from minigfs.transport.security import Security

__all__ = ["ChunkserverCalls"]

_THREADS_MAX = 32  # idle ones cost nothing; a hung server takes one per call for a second
_ReplyT = TypeVar("_ReplyT", bound=Message)
_KeyT = TypeVar("_KeyT")


class ChunkserverCalls:
    """Belongs to an event loop. Connects, and starts threads, when first used."""

    def __init__(self, security: Security) -> None:
        self._pool = ConnectionPool(security)
        self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="chunkserver-calls")

    async def ask_all(
        self,
        addresses: Mapping[_KeyT, Address],
        request: Request[_ReplyT],
        *,
        timeout_ms: int,
    ) -> tuple[dict[_KeyT, _ReplyT], dict[_KeyT, MinigfsError]]:
        """Ask several at once: the answers, and the errors of those that gave none."""
        loop = asyncio.get_running_loop()

        def ask(address: Address) -> _ReplyT:
            return self._pool.call(address, request, timeout_ms=timeout_ms)

        calls = {
            key: loop.run_in_executor(self._threads, ask, address)
            for key, address in addresses.items()
        }
        answers: dict[_KeyT, _ReplyT] = {}
        errors: dict[_KeyT, MinigfsError] = {}
        for key, call in calls.items():
            try:
                answers[key] = await call
            except MinigfsError as error:
                errors[key] = error
        return answers, errors

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
