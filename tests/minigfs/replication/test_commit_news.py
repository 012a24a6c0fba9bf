"""Commit news wait for entries to carry them, and go alone if none come."""

import asyncio
from collections.abc import Iterable

from minigfs.raft import Entry, NodeId
from minigfs.raft.messages import AppendEntries, Heartbeat
from minigfs.replication.commit_news import CommitNews
from minigfs.replication.peer_messages import PeerMessage

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def append(target: NodeId, commit: int, *, entries: int = 0) -> AppendEntries:
    return AppendEntries(
        source=A,
        target=target,
        term=3,
        prev_log_index=commit,
        prev_log_term=3,
        entries=tuple(Entry(index=commit + 1 + i, term=3) for i in range(entries)),
        leader_commit=commit,
    )


class Sent:
    """What left by itself, and the moment it did."""

    def __init__(self) -> None:
        self.messages: list[PeerMessage] = []
        self.happened = asyncio.Event()

    def send(self, messages: Iterable[PeerMessage]) -> None:
        self.messages.extend(messages)
        self.happened.set()


def test_all_but_news_goes_at_once() -> None:
    async def run() -> None:
        news = CommitNews(Sent().send)
        heartbeat = Heartbeat(source=A, target=B, term=3, commit_index=1, read_sequence=0)
        entries = append(B, 1, entries=2)
        assert news.hold([heartbeat, append(C, 1), entries]) == [heartbeat, entries]
        news.stop()

    asyncio.run(run())


def test_news_that_nothing_follows_leaves_by_itself_and_only_the_newest_does() -> None:
    async def run() -> None:
        sent = Sent()
        news = CommitNews(sent.send)
        assert news.hold([append(B, 1), append(C, 1)]) == []
        assert news.hold([append(B, 2)]) == []
        await asyncio.wait_for(sent.happened.wait(), 10)
        assert sent.messages == [append(B, 2), append(C, 1)]

    asyncio.run(run())


def test_entries_to_the_same_member_take_the_place_of_news() -> None:
    async def run() -> None:
        sent = Sent()
        news = CommitNews(sent.send)
        news.hold([append(B, 1), append(C, 1)])
        assert news.hold([append(B, 2, entries=1)]) == [append(B, 2, entries=1)]
        await asyncio.wait_for(sent.happened.wait(), 10)
        assert sent.messages == [append(C, 1)]

    asyncio.run(run())


def test_nothing_leaves_once_it_is_stopped() -> None:
    async def run() -> None:
        sent = Sent()
        news = CommitNews(sent.send)
        news.hold([append(B, 1)])
        news.stop()
        later = CommitNews(sent.send)
        later.hold([append(C, 1)])  # its moment comes after that of the first
        await asyncio.wait_for(sent.happened.wait(), 10)
        assert sent.messages == [append(C, 1)]

    asyncio.run(run())
