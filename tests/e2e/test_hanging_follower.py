"""A follower that hangs delays the changes that were sent to it first, and no others."""

import time
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from tests.master_group import MasterGroup

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHANGES = 100
DELAY_S_MAX = 1.0  # two moments of ``GroupNews`` on a quiet machine
USUAL_S_MAX = 0.1


def test_whichever_follower_hangs_clients_hardly_notice(tmp_path: Path) -> None:
    with MasterGroup(tmp_path) as group:
        client = MinigfsClient(group.config)
        leader = group.wait_for_leader()
        for follower in group.others(leader):
            group.pause(follower)
            waits_s = []
            for number in range(CHANGES):
                began_s = time.monotonic()
                client.make_directory(f"/{follower}-{number}")
                waits_s.append(time.monotonic() - began_s)
            group.resume(follower)
            assert max(waits_s) < DELAY_S_MAX
            assert sorted(waits_s)[CHANGES // 2] < USUAL_S_MAX, "it goes on without the follower"
        assert group.wait_for_leader() == leader
