"""The file system on three members in one process: who answers what, before and after a change of
leaders."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minigfs.config import FileSystemConfig
from minigfs.errors import FileMissing, NotLeader, StaleRequest
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion, FileId, Origin
from minigfs.master.append_messages import EndAppend, GetAppendTarget, PatchFile, SealFile
from minigfs.master.examine_messages import Examine
from minigfs.master.heartbeat_messages import ReplicaReport
from minigfs.master.leadership import Leadership
from minigfs.master.membership import Membership
from minigfs.master.messages import (
    AllocateChunks,
    Change,
    Created,
    CreateEmptyFile,
    CreateFile,
    DiscardFile,
    Find,
    GetClusterReport,
    HoldWriters,
    ListDirectory,
    Locate,
    MakeDirectory,
    OpenSession,
    PrepareWrite,
    PublishFile,
    Remove,
    Rename,
    RenewWriters,
    ReportDamage,
    SealedChunk,
    SetDecommission,
    StartRebalance,
    Stat,
)
from minigfs.master.options import MasterOptions
from minigfs.master.service import LARGE_REPORT_CHUNKS, FileSystemService
from minigfs.master.tree_messages import (
    AwaitClone,
    Clone,
    GetPolicy,
    ListTrash,
    SetPolicy,
    SetReplication,
    TakeToken,
    Transact,
    Undelete,
)
from minigfs.ports import SystemClock, SystemRng
from minigfs.replication.founding import found_group, load_member
from minigfs.replication.host import ReplicatedHost
from minigfs.replication.peers import PEER_LIMITS
from minigfs.transport.control_server import ControlServer
from minigfs.transport.security import Security
from tests.addresses import free_address
from tests.host_group import FAST
from tests.minigfs.master.test_membership import beat

SECURITY = Security(b"t" * 32, "c")
CONFIG = FileSystemConfig(cluster_id="c", chunk_bytes=1024, replication=2)


@dataclass
class Master:
    host: ReplicatedHost
    service: FileSystemService
    leadership: Leadership
    server: ControlServer

    async def call(self, request: Any) -> Any:
        return await self.service.handlers()[type(request)](request)

    async def stop(self) -> None:
        await self.leadership.stop()
        await self.server.stop()
        await self.service.stop()
        await self.host.stop()


async def start(directory: Path, address: str) -> Master:
    loaded = load_member(directory)
    assert loaded is not None
    log, file = loaded
    options = MasterOptions(
        directory=directory, listen=address, security=SECURITY, config=CONFIG, founded=True
    )
    service = FileSystemService(CONFIG, options, SystemClock(), SystemRng())
    host = ReplicatedHost(
        log,
        service.machines,
        security=SECURITY,
        directory=directory,
        founding=file.members,
        clock=SystemClock(),
        rng=SystemRng(),
        settings=FAST,
    )
    await service.attach(host)
    server = ControlServer({}, SECURITY, one_way=host.links.receiver, one_way_limits=PEER_LIMITS)
    await server.start(address)
    leadership = Leadership(host, [service])
    await host.start(address)
    return Master(host, service, leadership, server)


class Group:
    def __init__(self, masters: list[Master]) -> None:
        self.masters = masters

    async def leader(self) -> Master:
        deadline = time.monotonic() + 15
        while True:
            serving = [one for one in self.masters if one.leadership.serving.is_set()]
            others = {one.host.leader.member_id for one in self.masters if one.host.leader}
            if len(serving) == 1 and others == {serving[0].host.member_id}:
                return serving[0]
            assert time.monotonic() < deadline, "nobody leads"
            await asyncio.sleep(0.01)

    async def followers(self) -> list[Master]:
        leader = await self.leader()
        return [one for one in self.masters if one is not leader]

    async def hand_over(self) -> tuple[Master, Master]:
        """The leader before and after."""
        before = await self.leader()
        await before.host.transfer()
        return before, await self.leader()


def with_group(root: Path, test: Callable[[Group], Awaitable[None]]) -> None:
    async def main() -> None:
        places = [(root / str(number), free_address()) for number in range(3)]
        found_group(places, SystemRng())
        masters = [await start(*place) for place in places]
        group = Group(masters)
        try:
            await test(group)
        finally:
            for master in group.masters:
                await master.stop()

    asyncio.run(main())


def test_followers_send_everybody_to_the_leader_by_name(tmp_path: Path) -> None:
    file_id = FileId(7)
    requests = [
        OpenSession(),
        Stat(path="/"),
        ListDirectory(path="/"),
        Find(path="/"),
        Locate(path="/f"),
        MakeDirectory(path="/d"),
        CreateFile(path="/f"),
        CreateEmptyFile(path="/f"),
        PrepareWrite(path="/f"),
        AllocateChunks(file_id=file_id, first_index=0, count=1),
        PublishFile(file_id=file_id, path="/f", chunks=()),
        DiscardFile(file_id=file_id),
        RenewWriters(file_ids=(file_id,)),
        HoldWriters(holder="h"),
        Rename(source="/a", target="/b"),
        Remove(path="/a"),
        Transact(changes=()),
        TakeToken(path="/d"),
        Clone(source="/a", target="/b"),
        AwaitClone(copy_id=file_id),
        Undelete(path="/a", target="/a"),
        ListTrash(),
        SetPolicy(path="/d", replication=2),
        GetPolicy(path="/d"),
        Examine(path="/"),
        SetReplication(paths=("/f",), replication=2),
        ReportDamage(handle=1, chunkserver_id=ChunkserverId("s"), reason="rot"),
        beat("s0", full=True),
        GetClusterReport(),
        Examine(path="/"),
        GetAppendTarget(appender_id=1, path="/f"),
        EndAppend(appender_id=1, file_id=file_id),
        SealFile(path="/f"),
        PatchFile(file_id=file_id, temporary_id=None, chunk_count=0, kept_count=0, replaced=()),
        SetDecommission(chunkserver_id=ChunkserverId("s"), decommission=True),
        StartRebalance(),
    ]

    async def test(group: Group) -> None:
        leader = await group.leader()
        for follower in await group.followers():
            assert follower.service.handlers().keys() == {type(one) for one in requests}
            for request in requests:
                with pytest.raises(NotLeader) as refused:
                    await follower.call(request)
                assert refused.value.hint == leader.host.leader.address, request

    with_group(tmp_path, test)


def test_a_follower_shows_what_it_has_applied_to_who_asks_for_no_more(tmp_path: Path) -> None:
    async def test(group: Group) -> None:
        leader = await group.leader()
        await leader.call(MakeDirectory(path="/d"))
        follower = (await group.followers())[0]
        deadline = time.monotonic() + 10
        while not (await follower.call(ListDirectory(path="/", stale_ok=True))).entries:
            assert time.monotonic() < deadline, "it never hears of the directory"
            await asyncio.sleep(0.01)
        assert (await follower.call(Stat(path="/d", stale_ok=True))).path == "/d"
        report = await follower.call(GetClusterReport(stale_ok=True))
        assert report.directory_count == 1
        assert len(report.masters) == 3
        assert any("does not lead" in reason for reason in report.reasons)

    with_group(tmp_path, test)


def test_a_follower_tells_where_chunks_are_also_while_nobody_leads(tmp_path: Path) -> None:
    """As far as the log says: which servers have them, and where those were found last."""
    locate = Locate(path="/f", stale_ok=True)

    async def heard(master: Master, port: int) -> None:
        """Until the master names both servers, at this port."""
        wanted = [(name, f"{name}:{port}", "h") for name in ("s0", "s1")]
        deadline = time.monotonic() + 15
        while True:
            with suppress(FileMissing):
                (chunk,) = (await master.call(locate)).chunks
                found = [(one.chunkserver_id, one.address, one.host) for one in chunk.replicas]
                if sorted(found) == wanted:
                    return
            assert time.monotonic() < deadline, "it never hears of the servers"
            await asyncio.sleep(0.01)

    async def test(group: Group) -> None:
        leader = await group.leader()
        for name in ("s0", "s1"):
            await leader.call(beat(name, full=True))
        created = await leader.call(CreateFile(path="/f", chunk_count=1))
        sealed = SealedChunk(
            handle=created.chunks[0].handle,
            length_bytes=10,
            digest=1,
            replicas=(ChunkserverId("s0"), ChunkserverId("s1")),
        )
        await leader.call(PublishFile(file_id=created.file_id, path="/f", chunks=(sealed,)))
        one, other = await group.followers()
        await heard(one, 1)
        for name in ("s0", "s1"):  # they move
            await leader.call(msgspec.structs.replace(beat(name), address=f"{name}:2"))
        await heard(one, 2)
        await other.stop()
        await leader.stop()
        group.masters[:] = [one]
        await heard(one, 2)

    with_group(tmp_path, test)


def test_a_change_is_made_once_even_if_its_second_copy_reaches_the_next_leader(
    tmp_path: Path,
) -> None:
    async def test(group: Group) -> None:
        session = (await (await group.leader()).call(OpenSession())).session_id

        def again(sequence: int, answered_below: int = 1) -> Change[Any]:
            return CreateFile(path="/f", origin=Origin(session, sequence, answered_below))

        first = await (await group.leader()).call(again(1))
        _, after = await group.hand_over()
        assert await after.call(again(1)) == first
        assert (await after.call(again(2, answered_below=2))).file_id != first.file_id
        with pytest.raises(StaleRequest):
            await after.call(again(1))
        assert len(after.service.machine.state.temporary) == 2

    with_group(tmp_path, test)


def test_who_waits_at_a_leader_is_sent_on_when_it_leads_no_more(tmp_path: Path) -> None:
    async def test(group: Group) -> None:
        leader = await group.leader()
        created = await leader.call(CreateFile(path="/f"))
        request = AllocateChunks(file_id=created.file_id, first_index=0, count=1)
        waiting = asyncio.create_task(leader.call(request))  # no chunkserver has spoken yet
        await asyncio.sleep(0.05)
        assert not waiting.done()
        _, after = await group.hand_over()
        with pytest.raises(NotLeader):
            await asyncio.wait_for(waiting, 1)
        for name in ("s0", "s1"):
            await after.call(beat(name, full=True))
        assert len((await after.call(request)).chunks) == 1

    with_group(tmp_path, test)


def test_a_new_leader_knows_no_server_until_it_speaks_and_waits_no_longer(tmp_path: Path) -> None:
    async def test(group: Group) -> None:
        before = await group.leader()
        for name in ("s0", "s1"):
            await before.call(beat(name, full=True))
        created = await before.call(CreateFile(path="/f"))
        _, after = await group.hand_over()
        assert (await after.call(GetClusterReport())).chunkservers == ()
        request = AllocateChunks(file_id=created.file_id, first_index=0, count=1)
        began = time.monotonic()
        waiting = asyncio.create_task(after.call(request))
        for name in ("s0", "s1"):
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert (await after.call(beat(name))).send_full_report
        (chunk,) = (await waiting).chunks
        assert time.monotonic() - began < 1
        assert {replica.chunkserver_id for replica in chunk.replicas} == {"s0", "s1"}

    with_group(tmp_path, test)


def test_large_reports_of_many_servers_are_heard_one_a_turn_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    heard: list[int] = []
    hear = Membership.heartbeat

    def noted(*arguments: Any) -> Any:
        heard.append(turn)
        return hear(*arguments)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def test(group: Group) -> None:
        leader = await group.leader()
        counting = asyncio.create_task(count_turns())
        chunks = [
            ReplicaReport(ChunkHandle(handle), ChunkVersion(1), 10)
            for handle in range(1, LARGE_REPORT_CHUNKS + 2)
        ]
        beats = [beat(f"s{number}", full=True, chunks=chunks) for number in range(5)]
        await asyncio.gather(*(leader.call(one) for one in beats))
        counting.cancel()

    monkeypatch.setattr(Membership, "heartbeat", noted)
    with_group(tmp_path, test)
    assert len(heard) == len(set(heard)) == 5


async def created_before(group: Group) -> tuple[CreateFile, Created, Master]:
    """A file whose chunk two servers were chosen for, and the leader that came then."""
    before = await group.leader()
    for name in ("s0", "s1"):
        await before.call(beat(name, full=True))
    session = (await before.call(OpenSession())).session_id
    request = CreateFile(path="/f", chunk_count=1, origin=Origin(session, 1, 1))
    created = await before.call(request)
    _, after = await group.hand_over()
    return request, created, after


def test_the_next_leader_names_all_servers_of_a_chunk_that_was_allocated_before(
    tmp_path: Path,
) -> None:
    """The writer would store its bytes on fewer of them than there are, or on none."""

    async def test(group: Group) -> None:
        request, created, after = await created_before(group)
        for name in ("s2", "s3", "s1"):  # enough for a new chunk
            await after.call(beat(name))
        waiting = asyncio.create_task(after.call(request))
        await asyncio.sleep(0.1)  # a replayed change is answered in less, if it does not wait
        await after.call(beat("s0"))
        assert (await waiting).chunks == created.chunks

    with_group(tmp_path, test)


def test_a_chunk_whose_servers_the_next_leader_misses_is_to_be_asked_for_anew(
    tmp_path: Path,
) -> None:
    """Of two servers one has died with the leader: others are there."""

    async def test(group: Group) -> None:
        request, _, after = await created_before(group)
        for name in ("s1", "s2"):
            await after.call(beat(name))
        created = await after.call(request)
        assert [chunk.replicas for chunk in created.chunks] == [()]
        anew = AllocateChunks(file_id=created.file_id, first_index=0, count=1)
        (chunk,) = (await after.call(anew)).chunks
        assert {replica.chunkserver_id for replica in chunk.replicas} == {"s1", "s2"}

    with_group(tmp_path, test)
