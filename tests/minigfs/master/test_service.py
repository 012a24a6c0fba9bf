"""The file system service on a simulated clock and disk: what happens as time goes by."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace as with_fields

from minigfs.config import FileSystemConfig
from minigfs.errors import NoSpace, NotEnoughChunkservers, UsageError, WriterFenced
from minigfs.master import appends, commands, housekeeping, repair_work, sealing
from minigfs.master.append_messages import GetAppendTarget
from minigfs.master.growth import NO_CHUNK
from minigfs.master.heartbeat_messages import ReplicaReport
from minigfs.master.housekeeping import Housekeeping
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.messages import (
    AllocateChunks,
    CreateEmptyFile,
    CreateFile,
    GetClusterReport,
    HoldWriters,
    MakeDirectory,
    PublishFile,
    Remove,
    RenewWriters,
    SealedChunk,
)
from minigfs.master.options import MasterOptions
from minigfs.master.removal import REAP_WORK_MAX
from minigfs.master.repair_work import RepairWork
from minigfs.master.reporting import trash_report
from minigfs.master.service import FileSystemService
from minigfs.master.snapshot import freeze_state
from minigfs.master.tenure import REPORT_GRACE_MS, Tenure
from minigfs.master.tree_messages import SetPolicy, Transact
from minigfs.master.tree_service import RETENTION_MS
from minigfs.master.writers import GONE_WRITER_MS, WRITER_LEASE_MS
from minigfs.transport.security import Security
from tests.lone_host import LONE_ADDRESS, lone_host, with_space
from tests.minigfs.master.test_membership import beat
from tests.sim.clock import SimClock, SimRng
from tests.sim.disk import SimDisk

SECURITY = Security(b"t", "c")
DISK_BYTES = 8 << 20  # room for a few segments of the log


class Stand:
    """A service that is called without a network."""

    def __init__(self, disk: SimDisk, clock: SimClock) -> None:
        config = FileSystemConfig(cluster_id="c", chunk_bytes=1024, replication=2)
        options = MasterOptions(
            directory=Path("/data"),
            listen="127.0.0.1:0",
            security=SECURITY,
            config=config,
        )
        self.clock = clock
        self.service = FileSystemService(config, options, clock, SimRng(1))
        self.host = lone_host(disk, self.service.machines)

    @property
    def state(self):
        return self.service.machine.state

    async def call(self, request):
        return await self.service.handlers()[type(request)](request)

    async def tick(self) -> None:
        tenure = self.service._tenure
        assert isinstance(tenure, Tenure)
        work = Housekeeping(tenure, self.clock, lambda: self.state, self.service._change)
        await work.tick()

    async def open_file(self, chunk_count: int = 1):
        for name in ("s0", "s1"):
            await self.call(beat(name, full=True))
        file_id = (await self.call(CreateFile(path="/f"))).file_id
        request = AllocateChunks(file_id=file_id, first_index=0, count=chunk_count)
        return file_id, (await self.call(request)).chunks


@asynccontextmanager
async def standing(disk=None, clock=None):
    stand = Stand(disk or SimDisk(DISK_BYTES), clock or SimClock())
    await stand.host.start(LONE_ADDRESS)
    await stand.service.attach(stand.host)
    await stand.service.lead(stand.host.term)
    try:
        yield stand
    finally:
        await stand.service.stop()
        await stand.host.stop()


def test_a_silent_writers_file_is_discarded_and_its_chunks_are_garbage() -> None:
    async def main() -> None:
        async with standing() as stand:
            file_id, chunks = await stand.open_file(3)
            await stand.tick()
            stand.clock.advance(WRITER_LEASE_MS + 1)
            for name in ("s0", "s1"):
                held = tuple(
                    ReplicaReport(handle=c.handle, version=1, length_bytes=9) for c in chunks
                )
                await stand.call(beat(name, full=True, chunks=held))
            await stand.tick()
            assert file_id not in stand.state.temporary
            assert sorted(stand.state.garbage) == [c.handle for c in chunks]
            with pytest.raises(WriterFenced):
                await stand.call(PublishFile(file_id=file_id, path="/f", chunks=()))
            handles = tuple(c.handle for c in chunks)
            for name in ("s0", "s1"):
                assert (await stand.call(beat(name))).delete == handles
                await stand.call(beat(name, gone=handles))
            await stand.tick()
            assert len(stand.state.garbage) == 0

    asyncio.run(main())


def test_what_is_still_being_written_is_in_no_count() -> None:
    """Nor are the files made ahead: one file would seem to have a dozen chunks."""

    async def main() -> None:
        async with standing() as stand:
            file_id, chunks = await stand.open_file(2)
            report = await stand.call(GetClusterReport())
            assert (report.file_count, report.chunk_count) == (0, 0)
            sealed = tuple(
                SealedChunk(handle=c.handle, length_bytes=n, digest=1, replicas=("s0", "s1"))
                for c, n in zip(chunks, (1024, 9), strict=True)
            )
            await stand.call(PublishFile(file_id=file_id, path="/f", chunks=sealed))
            report = await stand.call(GetClusterReport())
            assert (report.file_count, report.chunk_count) == (1, 2)

    asyncio.run(main())


def test_a_writer_that_renews_keeps_its_file() -> None:
    async def main() -> None:
        async with standing() as stand:
            file_id, _ = await stand.open_file()
            for _ in range(3):
                stand.clock.advance(WRITER_LEASE_MS - 1)
                await stand.call(RenewWriters(file_ids=(file_id,)))
                await stand.tick()
            assert file_id in stand.state.temporary

    asyncio.run(main())


def test_the_files_of_a_process_whose_call_is_cut_off_are_discarded_in_seconds() -> None:
    async def main() -> None:
        async with standing() as stand:
            files = []
            for holder in ("gone", "paused"):
                request = CreateFile(path=f"/{holder}", holder=holder)
                files.append((await stand.call(request)).file_id)
            calls = [
                asyncio.create_task(stand.call(HoldWriters(holder=holder)))
                for holder in ("gone", "paused")
            ]
            await asyncio.sleep(0)
            calls[0].cancel()  # as the transport does with what runs for a connection that ended
            await asyncio.wait(calls[:1])
            stand.clock.advance(GONE_WRITER_MS + 1)
            await stand.tick()
            assert list(stand.state.temporary) == files[1:]
            calls[1].cancel()
            await asyncio.wait(calls)

    asyncio.run(main())


def test_the_trash_is_emptied_when_its_time_has_come_or_the_disks_are_full() -> None:
    async def main() -> None:
        async with standing() as stand:
            for name in "abcdefghijklmnop":
                await stand.call(MakeDirectory(path=f"/{name}/d", parents=True))
                await stand.call(Remove(path=f"/{name}", recursive=True))
                stand.clock.advance(1)
            await stand.call(beat("s0", full=True))
            await stand.tick()
            assert len(stand.state.trash) == 16
            nearly_full = with_fields(beat("s0", full=True), free_bytes=99)
            await stand.call(nearly_full)
            await stand.tick()
            left = sorted(one.path for one in stand.state.trash.values())
            assert left == [f"/{name}" for name in "klmnop"]
            await stand.call(beat("s0"))
            await stand.tick()
            assert len(stand.state.trash) == 6
            stand.clock.advance(RETENTION_MS + 1)
            await stand.tick()
            assert not stand.state.trash

    asyncio.run(main())


def test_nothing_is_kept_for_longer_than_can_be_written_down() -> None:
    """A time that no snapshot can hold, once in the log, would leave every master without one."""

    async def main() -> None:
        async with standing() as stand:
            await stand.call(MakeDirectory(path="/d"))
            beyond = SetPolicy(path="/d", retention_ms=2**64 - 1)
            with pytest.raises(UsageError, match="365000 days"):
                await stand.call(beyond)
            with pytest.raises(UsageError, match="365000 days"):
                await stand.call(Transact(changes=(beyond,)))
            await stand.call(SetPolicy(path="/d", retention_ms=365_000 * 86_400_000))
            await stand.call(MakeDirectory(path="/d/d/d", parents=True))
            await stand.call(Remove(path="/d/d", recursive=True))
            assert list(freeze_state(stand.state))

    asyncio.run(main())


def test_the_trash_takes_no_more_memory_than_it_may_and_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with standing() as stand:
            await stand.call(beat("s0", full=True))
            names = [*map(str, range(20)), "big", *map(str, range(20, 80)), "last"]
            for name in names:
                for below in range(200 if name == "big" else 1):
                    apply(stand, commands.MakeDirectory(1, f"/{name}/{below}", True, False))
                await stand.call(Remove(path=f"/{name}", recursive=True))
                stand.clock.advance(1)
            shown = trash_report(stand.state)
            assert (shown.things, shown.files, shown.directories) == (82, 0, 363)
            monkeypatch.setattr(housekeeping, "TRASH_INODES_MAX", 100)
            await stand.tick()
            shown = trash_report(stand.state)
            assert (shown.things, shown.directories) == (50, 100)
            assert "/last" in {one.path for one in stand.state.trash.values()}
            while stand.state.condemned:
                apply(stand, commands.Reap(1))
            assert len(stand.state.inodes) == 2 + 100

    asyncio.run(main())


def apply(stand: "Stand", command: commands.Command) -> None:
    stand.service.machine.apply(0, commands.encode_command(command))


def test_a_clone_that_nobody_waits_for_is_finished_all_the_same() -> None:
    async def main() -> None:
        async with standing() as stand:
            for number in range(1_500):
                command = commands.MakeDirectory(1, f"/t/{number}", True, False)
                stand.service.machine.apply(0, commands.encode_command(command))
            begun = commands.encode_command(commands.Clone(1, "/t", "/copy", False))
            stand.service.machine.apply(0, begun)
            assert stand.state.cloned_ids
            await stand.tick()
            assert not stand.state.cloned_ids
            assert stand.state.directory_count == 3_002

    asyncio.run(main())


def test_a_restarted_master_gives_open_writers_a_full_lease() -> None:
    async def main() -> None:
        disk, clock = SimDisk(DISK_BYTES), SimClock()
        async with standing(disk, clock) as stand:
            file_id, _ = await stand.open_file()
        clock.advance(10 * WRITER_LEASE_MS)
        disk.crash()
        async with standing(disk, clock) as stand:
            await stand.tick()
            clock.advance(WRITER_LEASE_MS)
            await stand.tick()
            assert file_id in stand.state.temporary
            clock.advance(1)
            await stand.tick()
            assert file_id not in stand.state.temporary

    asyncio.run(main())


def test_chunks_nobody_reports_are_lost_only_when_servers_had_time_to_report() -> None:
    async def main() -> None:
        disk, clock = SimDisk(DISK_BYTES), SimClock()
        async with standing(disk, clock) as stand:
            file_id, chunks = await stand.open_file()
            sealed = SealedChunk(
                handle=chunks[0].handle, length_bytes=7, digest=1, replicas=("s0", "s1")
            )
            await stand.call(PublishFile(file_id=file_id, path="/f", chunks=(sealed,)))
            assert (await stand.call(GetClusterReport())).health == "OK"
        async with standing(disk, clock) as stand:
            assert (await stand.call(GetClusterReport())).health == "DEGRADED"
            clock.advance(REPORT_GRACE_MS)
            assert (await stand.call(GetClusterReport())).health == "LOST"
            held = (ReplicaReport(handle=chunks[0].handle, version=1, length_bytes=7),)
            await stand.call(beat("s0", full=True, chunks=held))
            assert (await stand.call(GetClusterReport())).health == "DATA_AT_RISK"
            await stand.call(beat("s1", full=True, chunks=held))
            assert (await stand.call(GetClusterReport())).health == "OK"

    asyncio.run(main())


def test_a_full_disk_refuses_changes_and_all_goes_on_when_there_is_space_again() -> None:
    async def main() -> None:
        disk = SimDisk(DISK_BYTES)
        async with standing(disk) as stand:
            file_id, _ = await stand.open_file()
            await stand.tick()
            filler = disk.open("filler", create=True)
            filler.write_at(0, bytes(disk.free_bytes()))
            create = CreateFile(path="/g" * 2_000)

            async def fill() -> None:
                for _ in range(2_000):
                    await stand.call(create)

            with pytest.raises(NoSpace):
                await fill()
            accepted = len(stand.state.temporary)
            filler.truncate(0)
            await with_space(stand.host, stand.call, create)
            assert len(stand.state.temporary) == accepted + 1
            stand.clock.advance(WRITER_LEASE_MS + 1)
            await stand.tick()
            assert file_id not in stand.state.temporary

    asyncio.run(main())


def test_another_machine_can_make_a_change_of_its_own_and_of_the_files_one_entry() -> None:
    class Publisher:
        """Renames a file and counts it, or does neither."""

        def __init__(self, files: FileSystemMachine) -> None:
            self.files = files
            self.count = 0

        def apply(self, index: int, command: bytes) -> bytes:
            rename = commands.Rename(index, command.decode(), "/done", False)
            state, reply = self.files.preview(rename)
            if not isinstance(reply, commands.Refused):
                self.count += 1
                self.files.adopt(state)
            return commands.encode_reply(reply)

    async def main() -> None:
        files = FileSystemMachine()
        publisher = Publisher(files)
        machines = {FILE_SYSTEM_MACHINE: files, "publisher": publisher}
        host = lone_host(SimDisk(), machines)
        await host.start(LONE_ADDRESS)
        make = commands.MakeDirectory(1, "/d", False, False)
        await host.propose(FILE_SYSTEM_MACHINE, commands.encode_command(make))
        before = files.state
        refused = commands.decode_reply(await host.propose("publisher", b"/missing"))
        assert isinstance(refused, commands.Refused)
        assert (publisher.count, files.state) == (0, before)
        done = commands.decode_reply(await host.propose("publisher", b"/d"))
        assert (done, publisher.count) == (commands.Done(), 1)
        assert files.preview(make)[0].directory_count == 2
        assert files.state.directory_count == 1
        await host.stop()

    asyncio.run(main())


def test_a_large_tree_that_was_removed_is_taken_apart_by_itself() -> None:
    async def main() -> None:
        async with standing() as stand:
            paths = [f"/t/{number}" for number in range(2 * REAP_WORK_MAX)]
            for path in paths:
                stand.service.machine.apply(
                    0, commands.encode_command(commands.MakeDirectory(1, path, True, False))
                )
            await stand.call(MakeDirectory(path="/kept"))
            removed = await stand.call(Remove(path="/t", recursive=True, now=True))
            assert removed.directory_count == len(paths) + 1
            assert stand.state.condemned
            assert (await stand.call(GetClusterReport())).directory_count == 1
            await stand.host.until(lambda: not stand.state.condemned, timeout_ms=10_000)
            assert len(stand.state.inodes) == 3  # the root, the trash and what was kept

    asyncio.run(main())


def test_a_server_that_would_not_obey_gets_no_chunk_to_append_to(monkeypatch) -> None:
    monkeypatch.setattr(sealing, "SEAL_MS_MAX", -1)
    monkeypatch.setattr(appends, "OPEN_TRIES_MAX", 1)

    async def main() -> None:
        async with standing() as stand:
            for name in ("s0", "s1", "s2"):
                await stand.call(beat(name, full=True))
            tenure = stand.service._tenure
            tenure.strangers["s1"] = "s1:1"
            file_id = (await stand.call(CreateFile(path="/f"))).file_id
            await stand.call(PublishFile(file_id=file_id, path="/f", chunks=(), exclusive=False))
            with pytest.raises(NotEnoughChunkservers):  # there are none at these addresses
                await stand.call(GetAppendTarget(appender_id=1, path="/f"))
            created = {
                s.chunkserver_id: s.recent_creations for s in tenure.membership.all_servers()
            }
            assert (created["s1"], sum(created.values())) == (0, 2)

    asyncio.run(main())


@pytest.mark.parametrize("broken", ["Housekeeping.tick", "RepairWork.turn", "Appends._to_close"])
def test_a_mistake_in_what_a_leader_does_by_itself_does_not_end_it(broken, monkeypatch) -> None:
    owner, name = broken.split(".")
    kind = {"Housekeeping": Housekeeping, "RepairWork": RepairWork, "Appends": appends.Appends}
    work, failures = getattr(kind[owner], name), []
    again = asyncio.Event()

    def failing_once(self):
        if not failures:
            failures.append(KeyError("a mistake of ours"))
            raise failures[0]
        again.set()
        return work(self)

    monkeypatch.setattr(kind[owner], name, failing_once)
    monkeypatch.setattr(housekeeping, "TICK_MS", 10)
    monkeypatch.setattr(repair_work, "RETRY_MS", 10)
    monkeypatch.setattr(appends, "TICK_S", 0.01)

    async def main() -> None:
        async with standing():
            await asyncio.wait_for(again.wait(), 10)

    asyncio.run(main())


def test_files_that_cannot_be_sealed_keep_no_other_waiting(monkeypatch) -> None:
    tried = []
    both = asyncio.Event()

    async def cannot_seal(_self, file_id) -> None:
        tried.append(file_id)
        if len(set(tried)) == 2:
            both.set()
        raise NotEnoughChunkservers("their servers are dead")

    monkeypatch.setattr(appends.Appends, "_close_file", cannot_seal)
    monkeypatch.setattr(appends, "CLOSES_MAX", 1)
    monkeypatch.setattr(appends, "TICK_S", 0.01)

    async def main() -> None:
        async with standing() as stand:
            for path in ("/a", "/b"):
                status = await stand.call(CreateEmptyFile(path=path))
                command = commands.AppendChunk(1, status.file_id, NO_CHUNK, ("dead",))
                await stand.service.propose(command, commands.ChunkAppended)
            stand.clock.advance(REPORT_GRACE_MS + 1)
            await asyncio.wait_for(both.wait(), 10)

    asyncio.run(main())
