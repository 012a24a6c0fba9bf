"""Durable, then applied, then answered: proposals on a real log."""

import asyncio
import errno
import signal
import subprocess
import sys
import time

import pytest

from minigfs.errors import CorruptLog, NoSpace, OutcomeUnknown, Unreachable, UsageError
from minigfs.ports import RealDisk
from minigfs.replication.host import COMMAND_BYTES_MAX, ReplicatedHost
from minigfs.replication.wal import PREALLOCATED_BYTES, Record, WriteAheadLog
from tests.minigfs.replication.observed_disk import ObservedDisk


class Journal:
    """A machine that remembers every command."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, bytes]] = []

    def apply(self, index: int, command: bytes) -> bytes:
        if command == b"broken":
            raise ZeroDivisionError
        self.applied.append((index, command))
        return b"reply to " + command


def host_on(disk) -> tuple[ReplicatedHost, dict[str, Journal]]:
    machines = {"a": Journal(), "b": Journal()}
    return ReplicatedHost(WriteAheadLog(disk, "wal"), machines), machines


def test_proposals_are_answered_and_come_back_in_order_after_a_restart(tmp_path) -> None:
    async def first() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        await host.start()
        assert await host.propose("a", b"1") == b"reply to 1"
        assert await host.propose("b", b"2") == b"reply to 2"
        assert await host.propose("a", b"3") == b"reply to 3"
        assert host.commit_index == 3
        await host.stop()

    async def second() -> None:
        host, machines = host_on(RealDisk(tmp_path))
        await host.start()
        assert machines["a"].applied == [(1, b"1"), (3, b"3")]
        assert machines["b"].applied == [(2, b"2")]
        assert host.commit_index == 3
        await host.stop()

    asyncio.run(first())
    asyncio.run(second())


def test_a_hundred_concurrent_proposals_share_a_few_syncs(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start()
        before = disk.sync_count
        await asyncio.gather(*(host.propose("a", b"%d" % i) for i in range(100)))
        assert disk.sync_count - before <= 5
        assert machines["a"].applied == [(i + 1, b"%d" % i) for i in range(100)]
        await host.stop()

    asyncio.run(main())


def test_nothing_is_applied_or_answered_before_it_is_durable(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start()
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
        await host.start()
        proposal = asyncio.create_task(host.propose("a", b"x"))
        await asyncio.sleep(0)
        proposal.cancel()
        await host.propose("a", b"y")
        assert machines["a"].applied == [(1, b"x"), (2, b"y")]
        await host.stop()

    asyncio.run(main())


def test_a_full_disk_refuses_proposals_until_there_is_space_again(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start()
        await host.propose("a", b"1")
        disk.space_bytes = 4096
        with pytest.raises(NoSpace):
            await host.propose("a", bytes(2 * PREALLOCATED_BYTES))
        disk.sync_error = errno.ENOSPC
        with pytest.raises(NoSpace):
            await host.propose("a", b"also refused")
        disk.space_bytes = None
        await host.propose("a", b"2")
        await host.stop()
        again, machines = host_on(disk)
        await again.start()
        assert machines["a"].applied == [(1, b"1"), (2, b"2")]
        await again.stop()

    asyncio.run(main())


def test_a_failing_disk_ends_the_host_and_leaves_the_outcome_open(tmp_path) -> None:
    async def main() -> None:
        disk = ObservedDisk(tmp_path)
        host, machines = host_on(disk)
        await host.start()
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
        await host.start()
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
        await host.start()
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
        await host.start()
        with pytest.raises(UsageError):
            await host.propose("a", bytes(COMMAND_BYTES_MAX + 1))
        await host.stop()

    asyncio.run(main())


def test_a_log_with_a_gap_in_its_indexes_is_corrupt(tmp_path) -> None:
    wal = WriteAheadLog(RealDisk(tmp_path), "wal")
    list(wal.read_all())
    wal.append([Record(1, 1, b"\x01ax"), Record(1, 3, b"\x01ay")])
    wal.sync()
    wal.close()

    async def main() -> None:
        host, _ = host_on(RealDisk(tmp_path))
        with pytest.raises(CorruptLog, match="index 3"):
            await host.start()
        await host.stop()

    asyncio.run(main())


PROPOSER = """
import asyncio, itertools, sys
from minigfs.ports import RealDisk
from minigfs.replication.host import ReplicatedHost
from minigfs.replication.wal import WriteAheadLog

class Machine:
    def apply(self, index, command):
        return command

async def main(root):
    host = ReplicatedHost(WriteAheadLog(RealDisk(root), "wal"), {"a": Machine()})
    await host.start()
    async def propose(worker):
        for i in itertools.count():
            reply = await host.propose("a", b"%d-%d " % (worker, i) * (1 + i % 60))
            sys.stdout.write(reply.decode().split()[0] + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(propose(w) for w in range(8)))

asyncio.run(main(sys.argv[1]))
"""


def test_every_acknowledged_proposal_survives_kill_9_again_and_again(tmp_path) -> None:
    acknowledged_count = 0
    for round_number in range(3):
        root = tmp_path / str(round_number % 2)  # the third round goes on in the first one's log
        root.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", PROPOSER, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip()]
        time.sleep(0.15 + 0.05 * round_number)
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
        process.wait()
        process.stdout.close()
        wal = WriteAheadLog(RealDisk(root), "wal")
        found = list(wal.read_all())
        wal.close()
        assert [r.log_index for r in found] == list(range(1, len(found) + 1))
        names = {r.payload[2:].split()[0].decode() for r in found}
        assert set(acknowledged) <= names
        acknowledged_count += len(acknowledged)
    assert acknowledged_count > 30
