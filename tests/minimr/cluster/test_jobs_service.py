"""The coordinator behind real requests, on a real log: long polls, full disks, restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from minigfs.config import FileSystemConfig
from minigfs.errors import NoSpace
from minigfs.master.options import MasterOptions
from minigfs.master.service import FileSystemService
from minigfs.ports import Disk, SystemClock, SystemRng
from minigfs.transport.messages import ReplyT, Request
from minigfs.transport.security import Security
from minimr.cluster.jobs_service import CoordinatorService
from minimr.errors import NoSuchJob
from minimr.ids import JobId
from minimr.messages import (
    CancelJob,
    GetJob,
    HelloWorker,
    JobSpec,
    JobState,
    ListJobs,
    ListWorkers,
    PollTask,
    SubmitJob,
)
from minimr.plan.naming import staging_url
from tests.lone_host import LONE_ADDRESS, lone_host, with_space
from tests.minimr.coordinator.harness import make_spec, worker_info
from tests.sim.disk import SimDisk


class Master:
    """Both services on one log, without a network."""

    def __init__(self, disk: Disk, discarded: list[str]) -> None:
        config = FileSystemConfig(cluster_id="c")
        options = MasterOptions(
            directory=Path("/nowhere"), listen="127.0.0.1:0", security=Security(b"t"),
            config=config,
        )  # fmt: skip
        clock = SystemClock()
        files = FileSystemService(config, options, clock, SystemRng())
        self.jobs = CoordinatorService(files, clock, discard_staging=discarded.append)
        self.services = [files, self.jobs]
        self.host = lone_host(disk, {**files.machines, **self.jobs.machines})

    async def call(self, request: Request[ReplyT]) -> ReplyT:
        return await self.jobs.handlers()[type(request)](request)  # type: ignore[return-value]

    async def start(self) -> None:
        await self.host.start(LONE_ADDRESS)
        for service in self.services:
            await service.attach(self.host)
            await service.lead(self.host.term)

    async def stop(self) -> None:
        for service in reversed(self.services):
            await service.stop()
        await self.host.stop()


def with_master(
    test: Callable[[Master], Awaitable[None]], disk: Disk, discarded: list[str] | None = None
) -> None:
    async def main() -> None:
        master = Master(disk, discarded if discarded is not None else [])
        await master.start()
        try:
            await test(master)
        finally:
            await master.stop()

    asyncio.run(main())


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


def local_spec(name: str = "count-1") -> JobSpec:
    return make_spec(name, maps=1, reduces=1)


def test_a_poll_that_waits_is_answered_by_a_later_submit(disk: SimDisk) -> None:
    async def test(master: Master) -> None:
        poll = asyncio.create_task(master.call(PollTask(worker=worker_info("w"), wait_ms=20_000)))
        await asyncio.sleep(0)
        assert not poll.done()
        await master.call(SubmitJob(spec=local_spec()))
        offer = await asyncio.wait_for(poll, 5)
        assert offer.assignment is not None

    with_master(test, disk)


def test_a_task_is_not_given_to_a_poll_whose_caller_is_gone(disk: SimDisk) -> None:
    async def test(master: Master) -> None:
        gone = asyncio.create_task(
            master.call(PollTask(worker=worker_info("gone"), wait_ms=20_000))
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await master.call(SubmitJob(spec=local_spec()))
        offer = await master.call(PollTask(worker=worker_info("here"), wait_ms=5_000))
        assert offer.assignment is not None

    with_master(test, disk)


def test_errors_of_the_coordinator_reach_the_caller(disk: SimDisk) -> None:
    async def test(master: Master) -> None:
        with pytest.raises(NoSuchJob):
            await master.call(GetJob(job_id=JobId("nobody-1")))

    with_master(test, disk)


def test_a_full_disk_refuses_a_submit_and_takes_it_later() -> None:
    disk = SimDisk(8 << 20)

    async def test(master: Master) -> None:
        filler = disk.open("filler", create=True)
        filler.write_at(0, bytes(disk.free_bytes()))
        accepted: list[JobId] = []

        async def fill() -> None:
            for number in range(100):
                spec = msgspec.structs.replace(local_spec(f"big-{number}"), code=bytes(100_000))
                await master.call(SubmitJob(spec=spec))
                accepted.append(spec.job_id)

        with pytest.raises(NoSpace):
            await fill()
        assert [job.job_id for job in (await master.call(ListJobs())).jobs] == accepted
        filler.truncate(0)
        status = await with_space(master.host, master.call, SubmitJob(spec=local_spec()))
        assert status.state is JobState.RUNNING

    with_master(test, disk)


def test_jobs_are_there_after_a_restart_and_workers_are_learnt_again(disk: SimDisk) -> None:
    async def before(master: Master) -> None:
        await master.call(HelloWorker(worker=worker_info("w")))
        await master.call(SubmitJob(spec=local_spec()))

    async def after(master: Master) -> None:
        (status,) = (await master.call(ListJobs())).jobs
        assert status.state is JobState.RUNNING
        assert (await master.call(ListWorkers())).workers == ()

    with_master(before, disk)
    with_master(after, disk)


def test_the_staging_of_a_cancelled_job_is_removed(disk: SimDisk) -> None:
    discarded: list[str] = []

    async def test(master: Master) -> None:
        spec = local_spec()
        await master.call(SubmitJob(spec=spec))
        await master.call(CancelJob(job_id=spec.job_id))
        status = await master.call(GetJob(job_id=spec.job_id, wait_ms=5_000))
        while not status.state.is_final or len(discarded) < 2:
            await asyncio.sleep(0.01)
            status = await master.call(GetJob(job_id=spec.job_id))
        assert status.state is JobState.CANCELLED
        assert discarded == [spec.staging, spec.staging + "-attempts"]

    with_master(test, disk, discarded)


def test_staging_that_a_killed_master_left_behind_is_removed_by_the_next(disk: SimDisk) -> None:
    job_id = JobId("count-1")
    spec = msgspec.structs.replace(
        local_spec(job_id), output="file:///out", staging=staging_url("file:///out", job_id)
    )
    discarded: list[str] = []

    async def before(master: Master) -> None:
        await master.call(SubmitJob(spec=spec))
        await master.call(CancelJob(job_id=job_id))
        while not (await master.call(GetJob(job_id=job_id))).state.is_final:
            await asyncio.sleep(0.01)

    async def after(master: Master) -> None:
        assert (await master.call(GetJob(job_id=job_id))).state is JobState.CANCELLED
        async with asyncio.timeout(5):
            while len(discarded) < 2:
                await asyncio.sleep(0.01)

    with_master(before, disk)
    with_master(after, disk, discarded)
    assert discarded == [spec.staging, spec.staging + "-attempts"]


def test_submitting_twice_makes_one_job(disk: SimDisk) -> None:
    async def test(master: Master) -> None:
        first, second = await asyncio.gather(
            master.call(SubmitJob(spec=local_spec())), master.call(SubmitJob(spec=local_spec()))
        )
        assert first.job_id == second.job_id
        other = msgspec.structs.replace(local_spec("count-2"))
        await master.call(SubmitJob(spec=other))
        assert len((await master.call(ListJobs())).jobs) == 2

    with_master(test, disk)
