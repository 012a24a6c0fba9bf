"""Keeps back for a moment what a leader's next message will say as well.

When a command is committed the core tells every follower at once, by an AppendEntries without
entries. On a busy leader the next entries follow within the millisecond and carry the same commit
index, so these messages, and the answers to them, would double the work of a commit. Here such a
message waits a little for entries to take its place. To drop it then is what Raft allows of any
message; nobody waits for it but a follower whose state is read without asking the leader.
"""

import asyncio
from collections.abc import Callable, Iterable

from minigfs.raft import NodeId
from minigfs.raft.messages import AppendEntries
from minigfs.replication.peer_messages import PeerMessage

__all__ = ["CommitNews"]

HOLD_S = 0.005


class CommitNews:
    """Belongs to a running loop. ``send`` takes what nothing else said in time."""

    def __init__(self, send: Callable[[Iterable[PeerMessage]], None]) -> None:
        self._send = send
        self._held: dict[NodeId, AppendEntries] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, messages: Iterable[PeerMessage]) -> list[PeerMessage]:
        """Those to be sent now; of the others the newest for each member is kept."""
        now: list[PeerMessage] = []
        for message in messages:
            if not isinstance(message, AppendEntries):
                now.append(message)
            elif message.entries:
                self._held.pop(message.target, None)
                now.append(message)
            else:
                self._held[message.target] = message
        if self._held and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HOLD_S, self._let_go)
        return now

    def stop(self) -> None:
        """Send nothing any more."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _let_go(self) -> None:
        self._timer = None
        held, self._held = self._held, {}
        if held:
            self._send(held.values())
