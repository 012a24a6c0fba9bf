"""One confirmation of leadership serves all reads that came before it, none that came later."""

import asyncio

import pytest

from minigfs.errors import NotLeader
from minigfs.master.barrier import SharedBarrier


class Confirmations:
    """What the group would answer, when the test says so."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[None]] = []

    async def confirm(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun.append(future)
        await future


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_all_reads_of_a_moment_share_one_confirmation() -> None:
    async def main() -> None:
        group = Confirmations()
        barrier = SharedBarrier(group.confirm)
        reads = [asyncio.create_task(barrier.wait()) for _ in range(100)]
        await settle()
        assert len(group.begun) == 1
        group.begun[0].set_result(None)
        await asyncio.gather(*reads)

    asyncio.run(main())


def test_a_read_that_comes_later_waits_for_a_confirmation_that_began_later() -> None:
    async def main() -> None:
        group = Confirmations()
        barrier = SharedBarrier(group.confirm)
        early = asyncio.create_task(barrier.wait())
        await settle()
        late = [asyncio.create_task(barrier.wait()) for _ in range(10)]
        await settle()
        assert len(group.begun) == 1
        group.begun[0].set_result(None)
        await early
        await settle()
        assert len(group.begun) == 2
        assert not any(read.done() for read in late)
        group.begun[1].set_result(None)
        await asyncio.gather(*late)

    asyncio.run(main())


def test_a_refusal_reaches_every_read_and_the_next_one_asks_again() -> None:
    async def main() -> None:
        group = Confirmations()
        barrier = SharedBarrier(group.confirm)
        reads = [asyncio.create_task(barrier.wait()) for _ in range(3)]
        await settle()
        group.begun[0].set_exception(NotLeader("deposed"))
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotLeader] * 3
        again = asyncio.create_task(barrier.wait())
        await settle()
        group.begun[1].set_result(None)
        await again

    asyncio.run(main())


def test_a_caller_that_hangs_up_takes_nobody_with_it() -> None:
    async def main() -> None:
        group = Confirmations()
        barrier = SharedBarrier(group.confirm)
        gone, stays = (asyncio.create_task(barrier.wait()) for _ in range(2))
        await settle()
        gone.cancel()
        await settle()
        group.begun[0].set_result(None)
        await stays
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(main())
