"""An appender that reaches the masters and no chunkserver says so in time."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minigfs.client.appender import Appender
from minigfs.client.config import ClientConfig
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.errors import Unreachable
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.append_messages import AppendTarget, GetAppendTarget, SettledChunk
from minigfs.master.messages import HoldWriters, RenewWriters, Replica
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Message, Request
from minigfs.transport.security import Security
from tests.served import served

SECURITY = Security(b"t", "c1")


class Master:
    """Names a fresh chunk whenever it is asked; nobody listens where it is."""

    def __init__(self) -> None:
        self.asked = 0

    async def target(self, request: GetAppendTarget) -> AppendTarget:
        self.asked += 1
        replica = Replica(chunkserver_id=ChunkserverId("a"), address="127.0.0.1:1", host="a")
        before = SettledChunk(
            handle=request.after,
            version=ChunkVersion(1),
            start_bytes=0,
            length_bytes=0,
            replicas=(),
        )
        return AppendTarget(
            file_id=FileId(2),
            path="/a",
            chunk_bytes=1 << 20,
            handle=ChunkHandle(self.asked),
            version=ChunkVersion(1),
            start_bytes=0,
            replicas=(replica,),
            before=before if request.after else None,
        )

    async def hold(self, _request: Message) -> Empty:
        await asyncio.Event().wait()
        return Empty()


@pytest.fixture
def appender() -> Iterator[Appender]:
    master = Master()
    handlers: dict[type[Request[Any]], ControlHandler] = {
        GetAppendTarget: master.target,
        HoldWriters: master.hold,
        RenewWriters: master.hold,
    }
    pool = ConnectionPool(SECURITY)
    with served(handlers, SECURITY) as address:
        masters = MasterCaller(
            ClientConfig(masters=(address,), token=SECURITY.token, timeout_ms=1_000), pool
        )
        yield Appender(
            "/a",
            FileId(2),
            1 << 20,
            pool=pool,
            masters=masters,
            leases=WriterLeases(masters),
            timeout_ms=1_000,
        )
    pool.close()


def test_chunks_that_nobody_can_reach_are_not_asked_for_for_ever(appender: Appender) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        appender.append(b"record")
    assert 0.5 < time.monotonic() - began < 3
