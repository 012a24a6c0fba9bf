"""Masters without a log: control servers that agree on who leads, and can be made to misbehave.

What they execute goes through the real session table, so a change that is made twice is seen.
"""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from minigfs.errors import MinigfsError, NotLeader
from minigfs.ids import SessionId
from minigfs.master.messages import MakeDirectory, OpenSession, SessionOpened
from minigfs.replication.commands import (
    OpenSession as OpenSessionCommand,
)
from minigfs.replication.commands import (
    decode_session_id,
    encode_session_command,
)
from minigfs.replication.sessions import SessionTable
from minigfs.transport.control_server import ControlServer
from minigfs.transport.messages import Empty
from minigfs.transport.security import Security

__all__ = ["FakeMasters"]

SECURITY = Security(b"the cluster's token", "cluster-1")


class FakeMasters:
    """``leader`` is an index or None; ``hinting`` followers name it. Times are seconds."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.leader: int | None = 0
        self.hinting = True
        self.silent: set[int] = set()  # take requests and never answer
        self.losing_replies = 0  # so many changes are made, and the connection is cut
        self.think_s = 0.0
        self.made: list[str] = []
        self.asked: list[int] = []
        self.sessions = SessionTable()
        self.addresses: list[str] = []
        self._index = 0
        self._servers: list[ControlServer] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        for number in range(self.count):
            handlers = {
                OpenSession: lambda request, number=number: self._open(number, request),
                MakeDirectory: lambda request, number=number: self._make(number, request),
            }
            server = ControlServer(handlers, SECURITY)
            self._servers.append(server)
            self.addresses.append(self.run(server.start("127.0.0.1:0")))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            self.run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def kill(self, number: int) -> None:
        self.run(self._servers[number].stop())

    def elect(self, number: int | None) -> None:
        async def change() -> None:
            self.leader = number

        self.run(change())

    def elect_in(self, number: int, seconds: float) -> None:
        def change() -> None:
            self.leader = number

        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, change)

    def forget_sessions(self) -> None:
        async def forget() -> None:
            self.sessions = SessionTable()

        self.run(forget())

    def connection_count(self, number: int) -> int:
        return len(self._servers[number].connections)

    async def _lead(self, number: int) -> None:
        self.asked.append(number)
        if number in self.silent:
            await asyncio.Event().wait()
        if number != self.leader:
            known = self.leader is not None and self.hinting
            raise NotLeader(
                f"master {number} does not lead", self.addresses[self.leader or 0] if known else ""
            )

    async def _open(self, number: int, _request: OpenSession) -> SessionOpened:
        await self._lead(number)
        self._index += 1
        reply = self.sessions.apply(self._index, encode_session_command(OpenSessionCommand()))
        return SessionOpened(session_id=SessionId(decode_session_id(reply)))

    async def _make(self, number: int, request: MakeDirectory) -> Empty:
        await self._lead(number)
        assert request.origin is not None
        known = self.sessions.admit(request.origin)
        if isinstance(known, MinigfsError):
            raise known
        if known is None:
            self.made.append(request.path)
            self.sessions.record(request.origin, b"made")
        if self.losing_replies:
            self.losing_replies -= 1
            for connection in self._servers[number].connections:
                connection.abort()
        if self.think_s:
            await asyncio.sleep(self.think_s)
        return Empty()
