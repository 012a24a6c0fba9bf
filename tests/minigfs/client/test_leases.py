"""What a process says of its open writers: as long as one is open, and of its own only."""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minigfs.client import leases as leases_module
from minigfs.client.allocation import ChunkAllocator, NewFile
from minigfs.client.config import ClientConfig
from minigfs.client.leases import WriterLeases
from minigfs.client.masters import MasterCaller
from minigfs.ids import FileId, SessionId
from minigfs.master.messages import (
    Created,
    CreateFile,
    DiscardFile,
    HoldWriters,
    OpenSession,
    RenewWriters,
    SessionOpened,
)
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Request
from minigfs.transport.security import Security
from tests.served import served

SECURITY = Security(b"t", "c1")
FILE = FileId(2)


class Master:
    """Remembers which writers it was told of last, and which files to discard."""

    def __init__(self) -> None:
        self.discarded: list[FileId] = []
        self._renewed: list[tuple[FileId, ...]] = []
        self._heard = threading.Condition()

    def handlers(self) -> dict[type[Request[Any]], ControlHandler]:
        return {
            CreateFile: self.create,
            DiscardFile: self.discard,
            HoldWriters: self.hold,
            OpenSession: self.open_session,
            RenewWriters: self.renew,
        }

    async def create(self, _request: CreateFile) -> Created:
        return Created(file_id=FILE, chunk_bytes=1024, replication=1, chunks=())

    async def discard(self, request: DiscardFile) -> Empty:
        self.discarded.append(request.file_id)
        return Empty()

    async def hold(self, _request: HoldWriters) -> Empty:
        await asyncio.Event().wait()
        return Empty()

    async def open_session(self, _request: OpenSession) -> SessionOpened:
        return SessionOpened(session_id=SessionId(1))

    async def renew(self, request: RenewWriters) -> Empty:
        with self._heard:
            self._renewed.append(request.file_ids)
            self._heard.notify_all()
        return Empty()

    def hear(self) -> tuple[FileId, ...]:
        """What the next renewal names."""
        with self._heard:
            self._renewed.clear()
            assert self._heard.wait_for(lambda: self._renewed, 10)
            return self._renewed[-1]


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def masters(master: Master, monkeypatch: pytest.MonkeyPatch) -> Iterator[MasterCaller]:
    monkeypatch.setattr(leases_module, "_RENEW_MS", 20)
    pool = ConnectionPool(SECURITY)
    with served(master.handlers(), SECURITY) as address:
        config = ClientConfig(masters=(address,), token=SECURITY.token, timeout_ms=3_000)
        yield MasterCaller(config, pool)
    pool.close()


def test_a_file_with_two_appenders_is_kept_until_both_have_ended(
    master: Master, masters: MasterCaller
) -> None:
    leases = WriterLeases(masters)
    assert leases.holder
    for file_id in (FILE, FILE, FileId(3)):
        leases.opened(file_id)
    leases.closed(FILE)
    assert master.hear() == (FILE, 3)
    leases.closed(FILE)
    while master.hear() != (3,):
        pass
    leases.closed(FileId(3))


def test_a_child_process_discards_nothing_that_its_parent_writes(
    masters: MasterCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = NewFile(path="/a", exclusive=False, replication=None, chunk_bytes=1024)
    allocator = ChunkAllocator(masters, WriterLeases(masters), file)
    assert allocator.file_id() == allocator.created() == FILE
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert allocator.created() is None
    assert allocator.end() is None
