"""News of commits leave when nothing was committed for a moment, and not before."""

import asyncio

from minigfs.replication.commit_news import QUIET_S, CommitNews


class Told:
    """How often followers were told, and the moment they were."""

    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.happened.set()


def test_one_commit_is_told_once() -> None:
    async def run() -> None:
        told, marker = Told(), Told()
        CommitNews(told).committed()
        await asyncio.wait_for(told.happened.wait(), 10)
        CommitNews(marker).committed()
        await asyncio.wait_for(marker.happened.wait(), 10)
        assert told.count == 1

    asyncio.run(run())


def test_nothing_is_told_while_commits_follow_each_other() -> None:
    async def run() -> None:
        told, loop = Told(), asyncio.get_running_loop()
        news = CommitNews(told)
        end = loop.time() + 10 * QUIET_S
        while loop.time() < end:
            news.committed()
            await asyncio.sleep(0)
        assert told.count == 0
        await asyncio.wait_for(told.happened.wait(), 10)
        assert told.count == 1

    asyncio.run(run())


def test_nothing_is_told_once_it_is_stopped() -> None:
    async def run() -> None:
        told, marker = Told(), Told()
        news = CommitNews(told)
        news.committed()
        news.stop()
        CommitNews(marker).committed()  # its moment comes after that of the first
        await asyncio.wait_for(marker.happened.wait(), 10)
        assert told.count == 0

    asyncio.run(run())
