"""What a sealed chunk knows of its records: its copies know it too, and damage is no denial."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from xxhash import xxh3_64_intdigest

from minigfs.chunkserver.append_messages import BatchRecord, ResolveAppend
from minigfs.chunkserver.append_service import AppendService
from minigfs.chunkserver.append_slots import SLOT_BYTES, SLOTS_BYTES
from minigfs.chunkserver.chunk_file import HEADER_BYTES_MAX, decode_header
from minigfs.chunkserver.chunk_reads import ChunkReads
from minigfs.chunkserver.messages import ReadChunk, VerifyChunk
from minigfs.chunkserver.metrics import COUNTERS
from minigfs.chunkserver.mutations import Batch
from minigfs.chunkserver.open_chunks import OpenChunks
from minigfs.chunkserver.replica_copy import ReplicaCopy
from minigfs.chunkserver.scrub_times import ScrubTimes
from minigfs.chunkserver.scrubber import Scrubber
from minigfs.chunkserver.store import ChunkStore, chunk_path
from minigfs.chunkserver.verification import ChunkVerification
from minigfs.errors import WriterFenced
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, ClusterId, FileId
from minigfs.master.append_messages import ChunkMember, InstallChunk
from minigfs.master.heartbeat_messages import CopyOrder, SealOrder
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.metrics import Counters
from minigfs.transport.security import Security
from tests.sim.clock import SimClock
from tests.sim.disk import SimDisk

SECURITY = Security(b"secret", "c1")
HANDLE, V1, V2 = ChunkHandle(7), ChunkVersion(1), ChunkVersion(2)
RECORDS = tuple(bytes([number]) * 700 for number in range(1, 4))


class Server:
    """A chunkserver's stores and what answers for them."""

    def __init__(self, stack: ExitStack, pool: ConnectionPool) -> None:
        self.disk = SimDisk(64 << 20)
        self.store = ChunkStore(self.disk, cluster_id=ClusterId("c1"))
        self.store.open()
        self.open_chunks = OpenChunks(self.disk, self.store)
        self.open_chunks.open()
        self._pool = pool
        appends = AppendService(
            self.store,
            self.open_chunks,
            chunkserver_id=ChunkserverId("a"),
            pool=pool,
            silence_ms=lambda: 0,
        )
        reads = ChunkReads(self.store, Counters(COUNTERS))
        handlers = {**appends.handlers(), ReadChunk: reads.handle}
        server = BulkServer(handlers, SECURITY, name="server")
        self.address = server.start("127.0.0.1:0")
        stack.callback(server.stop)

    def append_and_seal(self, kept: int) -> CopyOrder:
        """Each record from an appender of its own, one by one; the first ``kept`` stay. The order
        to copy what is sealed, but for its sources."""
        order = InstallChunk(
            handle=HANDLE,
            version=V1,
            file_id=FileId(3),
            index=0,
            path_hint="/log",
            chunk_bytes=1 << 20,
            members=(ChunkMember(chunkserver_id=ChunkserverId("a"), address=self.address),),
        )
        self.open_chunks.install(order)
        replica = self.open_chunks.get(HANDLE, V1)
        for number, data in enumerate(RECORDS, 1):
            record = BatchRecord(
                appender_id=number,
                sequence=1,
                length_bytes=len(data),
                sum=xxh3_64_intdigest(data),
            )
            batch = Batch(serial=number, offset_bytes=replica.length_bytes, records=(record,))
            replica.apply(batch, (data,), 0)
        replica.freeze()
        length = sum(map(len, RECORDS[:kept]))
        digest = replica.digest_at(length)
        self.open_chunks.seal(
            SealOrder(handle=HANDLE, version=V2, length_bytes=length, digest=digest)
        )
        return CopyOrder(
            handle=HANDLE,
            version=V2,
            length_bytes=length,
            digest=digest,
            sources=(),
            bytes_per_second=1 << 40,
        )

    def copy(self, order: CopyOrder, *sources: "Server") -> None:
        order = CopyOrder(
            handle=order.handle,
            version=order.version,
            length_bytes=order.length_bytes,
            digest=order.digest,
            sources=tuple(source.address for source in sources),
            bytes_per_second=order.bytes_per_second,
        )
        ReplicaCopy(order, store=self.store, pool=self._pool, pay=lambda count: None).make_sound()

    def resolve(self, appender: int, sequence: int = 1) -> int:
        request = ResolveAppend(handle=HANDLE, version=V2, appender_id=appender, sequence=sequence)
        return self._pool.call(self.address, request).offset_bytes

    def damage_slot(self, slot: int) -> None:
        with self.disk.open(chunk_path(HANDLE)) as file:
            _, layout = decode_header(file.read_at(0, HEADER_BYTES_MAX))
            place = layout.data_offset - SLOTS_BYTES + slot * SLOT_BYTES + 20
            file.write_at(place, bytes([file.read_at(place, 1)[0] ^ 1]))


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        pool = ConnectionPool(SECURITY)
        stack.callback(pool.close)
        yield [Server(stack, pool) for _ in range(3)]


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_copy_and_its_copy_know_which_records_are_in_the_chunk(
    servers: list[Server], kept: int
) -> None:
    first, second, third = servers
    order = first.append_and_seal(kept)
    second.copy(order, first)
    third.copy(order, second)
    expected = [number * 700 if number < kept else -1 for number in range(3)]
    for server in servers:
        assert [server.resolve(appender) for appender in (1, 2, 3)] == expected
        assert server.resolve(1, sequence=2) == -1
        with server.store.open_chunk(HANDLE, V2) as chunk:
            assert chunk.read(0, order.length_bytes) == b"".join(RECORDS[:kept])


def test_a_replica_whose_last_slot_is_damaged_does_not_say_that_a_record_is_not_there(
    servers: list[Server],
) -> None:
    """Its slot before would: and the record would be appended a second time."""
    servers[0].append_and_seal(3)
    servers[0].damage_slot(1)  # of mutation 3
    for appender in (1, 2, 3):
        with pytest.raises(WriterFenced, match="does not know its records"):
            servers[0].resolve(appender)


def test_a_copy_knows_the_records_if_any_of_its_sources_does(servers: list[Server]) -> None:
    first, second, third = servers
    order = first.append_and_seal(3)
    second.copy(order, first)
    first.damage_slot(1)
    third.copy(order, first, second)
    assert [third.resolve(appender) for appender in (1, 2, 3)] == [0, 700, 1400]


def test_a_copy_of_a_replica_that_does_not_know_says_so_and_has_the_bytes(
    servers: list[Server],
) -> None:
    first, second, third = servers
    order = first.append_and_seal(3)
    second.copy(order, first)
    first.damage_slot(1)
    third.copy(order, first)
    with pytest.raises(WriterFenced, match="does not know its records"):
        third.resolve(1)
    with third.store.open_chunk(HANDLE, V2) as chunk:
        assert chunk.read(0, order.length_bytes) == b"".join(RECORDS)


def damaged(server: Server) -> tuple[ChunkHandle, ...]:
    """What the next heartbeat tells the master to be damaged."""
    report = server.store.take_report()
    server.store.report_delivered(report, 1)
    return report.damaged


def scrub(server: Server) -> None:
    """A pass over all that is here."""
    scrubber = Scrubber(server.store, server.disk, rate_min=1 << 40)
    while scrubber.scrub_next():
        pass


def verify(server: Server) -> None:
    request = VerifyChunk(handle=HANDLE)
    verified = ChunkVerification(server.store, ScrubTimes(server.disk, SimClock())).verify(request)
    assert verified.problem == "", "the file's bytes are all there"


def ask(server: Server) -> None:
    with pytest.raises(WriterFenced):
        server.resolve(1)


@pytest.mark.parametrize("look", [scrub, verify, ask])
def test_a_damaged_table_is_told_to_the_master_and_a_copy_in_its_place_has_it_whole(
    servers: list[Server], look: Callable[[Server], None]
) -> None:
    first, second, _ = servers
    order = first.append_and_seal(3)
    second.copy(order, first)
    first.damage_slot(0)  # of mutation 2, which nobody needs any more
    scrub(first)
    assert damaged(first) == ()
    first.damage_slot(1)
    look(first)
    assert damaged(first) == (HANDLE,)
    first.copy(order, second)
    assert [first.resolve(appender) for appender in (1, 2, 3)] == [0, 700, 1400]
    scrub(first)
    assert first.store.damaged_count == 0


def test_a_table_that_is_damaged_everywhere_is_given_up_and_the_bytes_stay(
    servers: list[Server],
) -> None:
    first, second, _ = servers
    order = first.append_and_seal(3)
    second.copy(order, first)
    first.damage_slot(1)
    second.damage_slot(0)
    scrub(first)
    first.copy(order, second)
    second.copy(order, first)
    for server in (first, second):
        scrub(server)
        assert server.store.damaged_count == 0, "it is not copied for ever"
        ask(server)
        with server.store.open_chunk(HANDLE, V2) as chunk:
            assert chunk.read(0, order.length_bytes) == b"".join(RECORDS)


def test_a_damaged_table_of_the_only_replica_is_borne(servers: list[Server]) -> None:
    first = servers[0]
    order = first.append_and_seal(3)
    first.damage_slot(1)
    scrub(first)
    assert first.store.damaged_count == 1
    first.copy(order)
    assert first.store.damaged_count == 0
