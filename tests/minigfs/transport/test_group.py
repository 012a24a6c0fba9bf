"""How long calls wait for a leader that was silent: pure, with a clock of their own."""

import time
from typing import cast

import pytest

from minigfs.errors import DeadlineExceeded, MinigfsError, NotLeader
from minigfs.master.messages import HoldWriters
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool
from minigfs.transport.connection import Payload
from minigfs.transport.group import GroupCaller
from minigfs.transport.messages import Empty, ReplyT, Request
from minigfs.transport.security import Security
from tests.stepped_clock import SteppedClock

LEADER, FOLLOWERS = "m0:1", ("m1:1", "m2:1")


class Pool(ConnectionPool):
    """The leader takes its time; the others name it."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__(Security(b"t", "c1"), clock=clock)
        self.clock = clock
        self.takes_ms = 0
        self.patience_ms: list[int] = []  # with the leader

    def call(
        self,
        address: Address,
        request: Request[ReplyT],
        *,
        timeout_ms: int = 10_000,
        payload: Payload = b"",
    ) -> ReplyT:
        if address != LEADER:
            raise NotLeader("ask another", hint=LEADER)
        self.patience_ms.append(timeout_ms)
        self.clock.sleep(min(timeout_ms, self.takes_ms) / 1000)
        if timeout_ms < self.takes_ms:
            raise DeadlineExceeded("late")
        return cast("ReplyT", Empty())


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    clock = SteppedClock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return Pool(clock)


@pytest.fixture
def caller(pool: Pool) -> GroupCaller:
    return GroupCaller(pool, [LEADER, *FOLLOWERS], clock=pool.clock)


def is_heard(caller: GroupCaller, *, timeout_ms: int = 1_200, once: bool = True) -> bool:
    """As heartbeats are, which wait for no election."""
    try:
        caller.call(HoldWriters(holder="h"), timeout_ms=timeout_ms, once=once)
    except MinigfsError:
        return False
    return True


def test_after_a_pause_a_leader_that_is_slow_hears_who_asks_only_once(
    pool: Pool, caller: GroupCaller
) -> None:
    assert is_heard(caller)
    pool.takes_ms = 1_300
    assert not is_heard(caller)
    pool.takes_ms = 600
    heard = [is_heard(caller) for _ in range(4)]
    assert heard == [False, False, True, True], pool.patience_ms


def test_a_silent_leader_costs_little_each_time_and_each_further_try_has_twice_the_time(
    pool: Pool, caller: GroupCaller
) -> None:
    pool.takes_ms = 100_000
    assert not is_heard(caller, timeout_ms=10_000, once=False)
    pool.patience_ms.clear()
    assert not is_heard(caller, timeout_ms=10_000, once=False)
    assert pool.patience_ms[:4] == [250, 500, 1_000, 2_000]
