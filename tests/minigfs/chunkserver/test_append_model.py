"""Chunkservers under a random master, random appenders and random crashes.

Real servers on real sockets in this process, on disks that forget what was never synced. Whenever
no mutation is under way the members of an open chunk are the same bytes; a sealed chunk has every
acknowledged record, once, where it was said to be, and is the same on all its replicas.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.append_messages import (
    AppendRecord,
    OpenPiece,
    ReadOpenChunk,
    RecordAppended,
    ResolveAppend,
)
from minigfs.chunkserver.messages import ChunkPiece, ReadChunk
from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.errors import MinigfsError, Unreachable
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId
from minigfs.master.append_messages import (
    ChunkMember,
    FinalizeChunk,
    FreezeChunk,
    FrozenReplica,
    InstallChunk,
)
from minigfs.master.leases import agreeing, enough_answers, length_to_keep
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.addresses import free_address
from tests.sim.disk import SimDisk

SECURITY = Security(b"secret", "c1")
CHUNK_BYTES = 128 * 1024
V1, V2 = ChunkVersion(1), ChunkVersion(2)
SERVERS = 3


class Server:
    """One chunkserver, running or not; its disk outlives it."""

    def __init__(self, root: Path) -> None:
        self.disk = SimDisk()
        self.running: Chunkserver | None = None
        self.address = free_address()
        self._root = root
        self.start()
        assert self.running is not None
        self.id = self.running.identity.chunkserver_id

    def start(self) -> None:
        options = ChunkserverOptions(
            directory=self._root,
            listen=self.address,
            masters=("127.0.0.1:1",),
            security=SECURITY,
        )
        self.running = Chunkserver(options, disk=self.disk)
        self.address = self.running.start()

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None


class AppendWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.pool = ConnectionPool(SECURITY)
        self.stack.callback(self.pool.close)
        self.servers = [Server(root / str(number)) for number in range(SERVERS)]
        for server in self.servers:
            self.stack.callback(server.stop)
        self.handle = 0
        self.members: list[Server] = []
        self.is_settled = True  # no mutation can be half made
        self.acknowledged: dict[tuple[int, int], tuple[int, bytes]] = {}  # of the open chunk
        self.ambiguous: dict[tuple[int, int], bytes] = {}
        self.sequences: dict[int, int] = {}

    def teardown(self) -> None:
        self.stack.close()

    @initialize()
    def begin(self) -> None:
        self.open_chunk()

    def open_chunk(self) -> None:
        self.handle += 1
        self.acknowledged, self.ambiguous = {}, {}
        self.members = [server for server in self.servers if server.running is not None]
        self.is_settled = True
        order = InstallChunk(
            handle=ChunkHandle(self.handle),
            version=V1,
            file_id=FileId(1),
            index=self.handle,
            path_hint="/log",
            chunk_bytes=CHUNK_BYTES,
            members=tuple(
                ChunkMember(chunkserver_id=one.id, address=one.address) for one in self.members
            ),
        )
        for member in self.members:
            self.pool.call(member.address, order)

    def send(self, appender: int, sequence: int, data: bytes) -> RecordAppended | None:
        """The primary's reply; None if it is not known whether it had the record."""
        request = AppendRecord(
            handle=ChunkHandle(self.handle),
            version=V1,
            appender_id=appender,
            sequence=sequence,
            sum=xxh3_64_intdigest(data),
            patience_ms=2_000,
        )
        try:
            return self.pool.call(self.members[0].address, request, payload=data)
        except Unreachable:
            return RecordAppended(reason="never had it")
        except MinigfsError:
            return None

    @rule(appender=st.integers(1, 3), length=st.sampled_from([1, 100, 5_000, CHUNK_BYTES // 4]))
    def append(self, appender: int, length: int) -> None:
        if not self.members:
            return
        self.sequences[appender] = sequence = self.sequences.get(appender, 0) + 1
        data = bytes((appender * 7 + sequence + i) % 251 for i in range(length))
        reply = self.send(appender, sequence, data)
        if reply is not None and not reply.reason and not reply.is_full:
            self.acknowledged[appender, sequence] = reply.offset_bytes, data
        elif reply is None or not reply.is_full:
            self.ambiguous[appender, sequence] = data
            self.is_settled = False

    @rule(appender=st.integers(1, 3))
    def append_again(self, appender: int) -> None:
        key = (appender, self.sequences.get(appender, 0))
        if key in self.acknowledged and self.is_settled:
            offset, data = self.acknowledged[key]
            reply = self.send(*key, data)
            if reply is not None and not reply.reason:
                assert (reply.is_full, reply.offset_bytes) == (False, offset)
            else:
                self.is_settled = False

    @rule(number=st.integers(0, SERVERS - 1), crash=st.booleans())
    def stop(self, number: int, crash: bool) -> None:
        server = self.servers[number]
        server.stop()
        if crash:
            server.disk.crash()
        else:
            server.disk.kill()

    @rule(number=st.integers(0, SERVERS - 1))
    def start(self, number: int) -> None:
        if self.servers[number].running is None:
            self.servers[number].start()

    @rule()
    def seal_and_go_on(self) -> None:
        version = FreezeChunk(handle=ChunkHandle(self.handle), version=V1)
        answers = self.ask(self.members, version)
        live_count = sum(member.running is not None for member in self.members)
        if self.members and not enough_answers(len(self.members), answers, live_count):
            return
        length = length_to_keep(answers)
        assert length >= max((o + len(d) for o, d in self.acknowledged.values()), default=0)
        if length:
            self.seal(length, answers)
        self.open_chunk()

    def seal(self, length: int, answers: dict[ChunkserverId, FrozenReplica]) -> None:
        able = [m for m in self.members if m.id in answers and answers[m.id].length_bytes >= length]
        sized = FreezeChunk(handle=ChunkHandle(self.handle), version=V1, length_bytes=length)
        digests = {i: answer.digest for i, answer in self.ask(able, sized).items()}
        assert len(set(digests.values())) == 1, "replicas differ"
        replicas, digest = agreeing(tuple(member.id for member in able), digests)
        order = FinalizeChunk(
            handle=ChunkHandle(self.handle), version=V2, length_bytes=length, digest=digest
        )
        kept = [member for member in able if member.id in replicas]
        for member in kept:
            self.pool.call(member.address, order)
            self.pool.call(member.address, order)  # heard twice
        contents = {self.sealed_content(member) for member in kept}
        assert len(contents) == 1
        self.check_records(contents.pop(), kept)

    def check_records(self, content: bytes, replicas: list[Server]) -> None:
        end = 0
        there = dict(self.acknowledged)
        for key, data in self.ambiguous.items():
            found = {self.resolve(replica, *key) for replica in replicas}
            assert len(found) == 1, "replicas do not agree on a record"
            offset = found.pop()
            if offset >= 0:
                there[key] = offset, data
        for offset, data in sorted(there.values(), key=lambda record: record[0]):
            assert offset == end, "a record is missing, or there twice"
            assert content[offset : offset + len(data)] == data
            end = offset + len(data)
        assert end == len(content)

    def resolve(self, replica: Server, appender: int, sequence: int) -> int:
        request = ResolveAppend(
            handle=ChunkHandle(self.handle), version=V2, appender_id=appender, sequence=sequence
        )
        return self.pool.call(replica.address, request).offset_bytes

    def ask(
        self, members: list[Server], request: FreezeChunk
    ) -> dict[ChunkserverId, FrozenReplica]:
        return {
            member.id: self.pool.call(member.address, request)
            for member in members
            if member.running is not None
        }

    def sealed_content(self, server: Server) -> bytes:
        request = ReadChunk(
            handle=ChunkHandle(self.handle), version=V2, offset_bytes=0, length_bytes=CHUNK_BYTES
        )
        content, last = b"", False
        with self.pool.open_stream(server.address, request) as stream:
            while not last:
                piece, payload = stream.receive(ChunkPiece)
                content, last = content + payload, piece.last
        return content

    @invariant()
    def members_are_the_same_bytes(self) -> None:
        if not self.is_settled:
            return
        living = [member for member in self.members if member.running is not None]
        contents = {self.open_content(member) for member in living}
        assert len(contents) <= 1
        for content in contents:
            for offset, data in self.acknowledged.values():
                assert content[offset : offset + len(data)] == data

    def open_content(self, server: Server) -> bytes:
        request = ReadOpenChunk(
            handle=ChunkHandle(self.handle), version=V1, offset_bytes=0, length_bytes=CHUNK_BYTES
        )
        content, last = b"", False
        with self.pool.open_stream(server.address, request) as stream:
            while not last:
                piece, payload = stream.receive(OpenPiece)
                content, last = content[: piece.offset_bytes] + payload, piece.last
        return content


TestAppendWorld = AppendWorld.TestCase
TestAppendWorld.settings = settings(max_examples=8, stateful_step_count=20)
