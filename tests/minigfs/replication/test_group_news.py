"""The rest is told every moment while things happen, commits at the end of a quiet one."""

import asyncio

from minigfs.replication.group_news import MOMENT_S, GroupNews


class Told:
    """What followers were told, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def news(self) -> GroupNews:
        return GroupNews(
            tell_rest=lambda: self._waiting.put_nowait("rest"),
            tell_commit=lambda: self._waiting.put_nowait("commit"),
        )

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                self.calls.append(await self._waiting.get())
        return self.calls

    def so_far(self) -> list[str]:
        while not self._waiting.empty():
            self.calls.append(self._waiting.get_nowait())
        return self.calls


def test_the_rest_is_told_once_and_then_the_commit() -> None:
    async def run() -> None:
        told, marker = Told(), Told()
        told.news().happened()
        await told.until(2)
        marker.news().happened()
        assert await marker.until(2) == ["rest", "commit"]
        assert told.so_far() == ["rest", "commit"], "nothing more comes of one event"

    asyncio.run(run())


def test_while_things_happen_the_rest_is_told_and_no_commit() -> None:
    async def run() -> None:
        told, loop = Told(), asyncio.get_running_loop()
        news = told.news()
        end = loop.time() + 10 * MOMENT_S
        while loop.time() < end:
            news.happened()
            await asyncio.sleep(0)
        calls = told.so_far()
        assert 1 <= len(calls) <= 11
        assert set(calls) == {"rest"}
        assert (await told.until(len(calls) + 2))[-1] == "commit"

    asyncio.run(run())


def test_nothing_is_told_once_it_is_stopped() -> None:
    async def run() -> None:
        told, marker = Told(), Told()
        news = told.news()
        news.happened()
        news.stop()
        marker.news().happened()  # its moment comes after that of the first
        await marker.until(1)
        assert told.so_far() == []

    asyncio.run(run())
