"""Durable, then applied, then answered: proposals on a real log."""

import asyncio
import errno
import signal
import subprocess
import sys

import pytest

from minigfs.errors import NoSpace, OutcomeUnknown, Unreachable, UsageError
from minigfs.ports import RealDisk
from minigfs.replication.durable_log import LogSettings
from minigfs.replication.host import HostSettings, ReplicatedHost
from minigfs.replication.member import COMMAND_BYTES_MAX
from minigfs.replication.settings import MemberSettings
from tests.lone_host import LONE_ADDRESS, lone_host
from tests.minigfs.replication.observed_disk import ObservedDisk
from tests.sim.disk import SimDisk

SEGMENT_BYTES = 1 << 20
SETTINGS = HostSettings(member=MemberSettings(reserve_bytes=SEGMENT_BYTES // 4))


class Journal:
    """A machine that remembers every command."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        if command == b"broken":
            raise ZeroDivisionError
        self.applied.append(command)
        return b"reply to " + command

    def freeze(self):
        return iter(list(self.applied))

    def restore(self, records) -> None:
        self.applied = list(records)


def host_on(disk) -> tuple[ReplicatedHost, dict[str, Journal]]:
    machines = {"a": Journal(), "b": Journal()}
    log_settings = LogSettings(segment_bytes=SEGMENT_BYTES)
    return lone_host(disk, machines, settings=SETTINGS, log_settings=log_settings), machines


def test_proposals_are_answered_and_come_back_in_order_after_a_restart(tmp_path) -> None:
    async def first() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        assert await host.propose("a", b"1") == b"reply to 1"
        assert await host.propose("b", b"2") == b"reply to 2"
        assert await host.propose("a", b"3") == b"reply to 3"
        await host.stop()

    async def second() -> None:
        host, machines = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        assert machines["a"].applied == [b"1", b"3"]
        assert machines["b"].applied == [b"2"]
        await host.stop()

    asyncio.run(first())
    asyncio.run(second())


def test_a_hundred_concurrent_proposals_share_a_few_syncs(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start(LONE_ADDRESS)
        before = disk.sync_count
        await asyncio.gather(*(host.propose("a", b"%d" % i) for i in range(100)))
        assert disk.sync_count - before <= 5
        assert machines["a"].applied == [b"%d" % i for i in range(100)]
        await host.stop()

    asyncio.run(main())


def test_a_backlog_is_applied_a_slice_a_turn_however_many_writes_end_meanwhile(tmp_path) -> None:
    one_a_slice = HostSettings(member=MemberSettings(apply_entries_max=1))

    async def main() -> int:
        machine = Journal()
        host = lone_host(RealDisk(tmp_path), {"a": machine}, settings=one_a_slice)
        await host.start(LONE_ADDRESS)
        proposals, applied_in_a_turn = [], []
        for turn in range(2_000):
            if turn < 500:  # a write each, as far as the disk keeps up
                proposals += [asyncio.create_task(host.propose("a", b"x")) for _ in range(2)]
            before = len(machine.applied)
            await asyncio.sleep(0)
            applied_in_a_turn.append(len(machine.applied) - before)
        await asyncio.gather(*proposals)
        await host.stop()
        return max(applied_in_a_turn)

    assert asyncio.run(main()) <= 2, "one when it is due, and one when a write returns"


def test_nothing_is_applied_or_answered_before_it_is_durable(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start(LONE_ADDRESS)
        disk.may_sync.clear()
        proposal = asyncio.create_task(host.propose("a", b"x"))
        done, _ = await asyncio.wait([proposal], timeout=0.05)
        assert not done, "the loop goes on while the sync is under way, and nobody is told"
        assert machines["a"].applied == []
        disk.may_sync.set()
        assert await proposal == b"reply to x"
        await host.stop()

    asyncio.run(main())


def test_a_cancelled_proposal_is_applied_all_the_same(tmp_path) -> None:
    async def main() -> None:
        host, machines = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        proposal = asyncio.create_task(host.propose("a", b"x"))
        await asyncio.sleep(0)
        proposal.cancel()
        await host.propose("a", b"y")
        assert machines["a"].applied == [b"x", b"y"]
        await host.stop()

    asyncio.run(main())


def test_a_full_disk_refuses_proposals_until_there_is_space_again() -> None:
    async def main() -> None:
        disk = SimDisk(8 * SEGMENT_BYTES)
        host, _ = host_on(disk)
        await host.start(LONE_ADDRESS)
        assert await host.propose("a", b"1") == b"reply to 1"
        filler = disk.open("filler", create=True)
        filler.write_at(0, bytes(disk.free_bytes()))

        async def fill() -> int:
            for taken in range(100):
                try:
                    await host.propose("a", bytes(SEGMENT_BYTES // 8))
                except NoSpace:
                    return taken
            raise AssertionError("a full disk took everything")

        taken = await fill()
        assert host.is_leader
        filler.close()
        disk.remove("filler")
        while True:  # it looks again by itself, now and then
            try:
                await host.propose("a", b"2")
                break
            except NoSpace:
                await host.until(lambda: False, timeout_ms=50)
        await host.stop()
        again, machines = host_on(disk)
        await again.start(LONE_ADDRESS)
        applied = machines["a"].applied
        assert (applied[0], len(applied), applied[-1]) == (b"1", taken + 2, b"2")
        await again.stop()

    asyncio.run(main())


def test_a_failing_disk_ends_the_host_and_leaves_the_outcome_open(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start(LONE_ADDRESS)
        failed = asyncio.create_task(host.wait_failed())
        disk.sync_error = errno.EIO
        with pytest.raises(OutcomeUnknown):
            await host.propose("a", b"x")
        with pytest.raises(OSError, match="the disk failed"):
            await failed
        assert machines["a"].applied == []
        with pytest.raises(Unreachable):
            await host.propose("a", b"y")
        await host.stop()

    asyncio.run(main())


def test_a_machine_that_raises_ends_the_host(tmp_path) -> None:
    async def main() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        failed = asyncio.create_task(host.wait_failed())
        with pytest.raises(OutcomeUnknown):
            await host.propose("a", b"broken")
        with pytest.raises(ZeroDivisionError):
            await failed
        await host.stop()

    asyncio.run(main())


def test_stopping_finishes_what_was_proposed_and_refuses_more(tmp_path) -> None:
    async def main() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        proposals = [asyncio.create_task(host.propose("a", b"%d" % i)) for i in range(10)]
        await asyncio.sleep(0)
        await host.stop()
        assert [await p for p in proposals] == [b"reply to %d" % i for i in range(10)]
        with pytest.raises(Unreachable):
            await host.propose("a", b"late")

    asyncio.run(main())


def test_a_command_too_large_for_a_record_is_refused(tmp_path) -> None:
    async def main() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        with pytest.raises(UsageError):
            await host.propose("a", bytes(COMMAND_BYTES_MAX + 1))
        await host.stop()

    asyncio.run(main())


PROPOSER = """
import asyncio, itertools, sys
from minigfs.ports import RealDisk
from tests.lone_host import LONE_ADDRESS, lone_host

class Machine:
    def apply(self, index, command):
        return command
    def freeze(self):
        return iter(())
    def restore(self, records):
        pass

async def main(root):
    host = lone_host(RealDisk(root), {"a": Machine()})
    await host.start(LONE_ADDRESS)
    async def propose(worker):
        for i in itertools.count():
            reply = await host.propose("a", b"%s-%d-%d " % (sys.argv[2].encode(), worker, i) * 9)
            sys.stdout.write(reply.decode().split()[0] + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(propose(w) for w in range(8)))

asyncio.run(main(sys.argv[1]))
"""


def test_every_acknowledged_proposal_survives_kill_9_again_and_again(tmp_path) -> None:
    acknowledged: list[str] = []
    for round_number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROPOSER, str(tmp_path), str(round_number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(15 + round_number)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
        process.wait()
        process.stdout.close()

    async def main() -> list[bytes]:
        host, machines = host_on(RealDisk(tmp_path))
        await host.start(LONE_ADDRESS)
        await host.stop()
        return machines["a"].applied

    names = [command.split()[0].decode() for command in asyncio.run(main())]
    assert set(acknowledged) <= set(names)
    assert len(names) == len(set(names)), "nothing is applied twice"
    assert len(acknowledged) > 30
