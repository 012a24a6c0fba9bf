"""An appender that chunkservers fail, or other appenders outrun."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minigfs.chunkserver.append_messages import (
    AppendRecord,
    AppendResolved,
    RecordAppended,
    ResolveAppend,
)
from minigfs.client.appender import Appender
from minigfs.client.config import ClientConfig
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.errors import Unreachable, WriterFenced
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.append_messages import AppendTarget, GetAppendTarget, SettledChunk
from minigfs.master.messages import HoldWriters, RenewWriters, Replica
from minigfs.transport.address import Address
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Message, Request
from minigfs.transport.security import Security
from minigfs.transport.stream import Stream
from tests.served import served

SECURITY = Security(b"t", "c1")


class Master:
    """Names a fresh chunk whenever it is asked; at first nobody listens where it is."""

    def __init__(self) -> None:
        self.asked = 0
        self.primary: Address = "127.0.0.1:1"
        self.settled_bytes = 0
        self.knows_settled_from = 0  # which answer names the servers of a settled chunk

    async def target(self, request: GetAppendTarget) -> AppendTarget:
        self.asked += 1
        replica = Replica(chunkserver_id=ChunkserverId("a"), address=self.primary, host="a")
        before = SettledChunk(
            handle=request.after,
            version=ChunkVersion(1),
            start_bytes=0,
            length_bytes=self.settled_bytes,
            replicas=(replica,) if self.asked >= self.knows_settled_from else (),
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
def master() -> Master:
    return Master()


@pytest.fixture
def appender(master: Master) -> Iterator[Appender]:
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


def test_who_is_outrun_by_others_time_and_again_does_not_fall_back_further(
    appender: Appender, master: Master
) -> None:
    """Each chunk is sealed when we come to it, thirty times."""

    def append(request: AppendRecord, stream: Stream) -> None:
        if master.asked <= 30:
            raise WriterFenced("sealed")
        stream.send(RecordAppended(offset_bytes=7))

    server = BulkServer({AppendRecord: append}, SECURITY)
    master.primary = server.start("127.0.0.1:0")
    try:
        assert appender.append(b"record") == 7
    finally:
        server.stop()


def test_a_record_is_looked_for_again_where_a_new_master_learns_that_the_chunk_is(
    appender: Appender, master: Master
) -> None:
    """The primary broke off; the master that seals the chunk has heard of none of its servers."""

    def append(_request: AppendRecord, stream: Stream) -> None:
        if master.asked == 1:
            stream.send(RecordAppended(offset_bytes=-1, reason="a member is gone"))

    def resolve(request: ResolveAppend, stream: Stream) -> None:
        stream.send(AppendResolved(offset_bytes=7 if request.handle == 1 else -1))

    server = BulkServer({AppendRecord: append, ResolveAppend: resolve}, SECURITY)
    master.primary = server.start("127.0.0.1:0")
    master.settled_bytes, master.knows_settled_from = 100, 4
    try:
        assert appender.append(b"record") == 7
    finally:
        server.stop()
