"""Servers are emptied for good, filled alike, and nothing is less safe on the way."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.master.repair import RepairLimits
from tests.minigfs.master.repair_world import RepairWorld, server_id

S0, S1, S2, S3, S4 = (server_id(n) for n in range(5))


def held_counts(world: RepairWorld) -> list[int]:
    return [len(disk.held) for disk in world.disks.values()]


def duty(world: RepairWorld, number: int) -> str:
    reports = world.membership.report(world.now_ms, world.state.draining)
    return next(report.duty for report in reports if report.id == server_id(number))


def test_a_decommissioned_server_is_emptied_and_says_when_it_can_go() -> None:
    world = RepairWorld(4)
    handles = [world.write((n % 4, (n + 1) % 4, (n + 2) % 4)) for n in range(8)]
    world.run(1)
    world.decommission(1)
    assert duty(world, 1) == "leaving"
    world.run(10)
    assert duty(world, 1) == "empty"
    assert world.disks[S1].held == {}
    assert all(world.is_whole(handle) for handle in handles)


def test_a_server_that_cannot_be_done_without_keeps_what_it_has() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1, 2))
    world.run(1)
    world.decommission(1)
    world.run(40)
    assert world.chunk(handle).replicas == (S0, S1, S2)
    assert duty(world, 1) == "leaving"
    world.add_server(3)
    world.run(5)
    assert set(world.chunk(handle).replicas) == {S0, S2, S3}
    assert duty(world, 1) == "empty"


def test_a_decommission_that_is_taken_back_leaves_everything_whole() -> None:
    world = RepairWorld(5)
    handles = [world.write((0, 1, 2)) for _ in range(6)]
    world.run(1)
    world.decommission(0)
    world.run(1.5)
    world.decommission(0, undo=True)
    world.run(10)
    assert duty(world, 0) == "serving"
    assert all(world.is_whole(handle) for handle in handles)


def test_the_single_replica_on_a_server_that_leaves_is_copied_before_it_is_given_up() -> None:
    world = RepairWorld(2, goal=1)
    handle = world.write((0,))
    world.run(1)
    world.decommission(0)
    world.run(5)
    assert world.chunk(handle).replicas == (S1,)
    assert world.is_whole(handle)


def test_asked_for_a_new_server_gets_its_part() -> None:
    world = RepairWorld(3)
    handles = [world.write((0, 1, 2)) for _ in range(40)]
    world.add_server(3)
    world.run(20)
    assert held_counts(world) == [40, 40, 40, 0], "a little is no reason to move by itself"
    world.repairs.rebalance.is_asked_for = True
    world.run(60)
    assert all(29 <= count <= 31 for count in held_counts(world))
    assert all(world.is_whole(handle) for handle in handles)
    assert not world.repairs.rebalance.is_asked_for, "it is told when it is done"


@pytest.mark.parametrize("seed", range(12))
def test_servers_are_filled_alike_however_late_they_speak_and_act(seed: int) -> None:
    rng = random.Random(seed)
    world = RepairWorld(3, goal=2)
    handles = [world.write(tuple(rng.sample(range(3), 2))) for _ in range(29)]
    world.add_server(3)
    world.relabel(3, host="h0")
    world.run(3)
    world.repairs.rebalance.is_asked_for = True
    world.speaks = lambda: rng.random() < 0.4
    for _ in range(400):
        world.run(0.5)
        if not world.repairs.rebalance.is_asked_for:
            break
    counts = Counter(s for handle in handles for s in world.chunk(handle).replicas)
    assert max(counts.values()) - min(counts.values()) <= 3


def test_great_differences_are_evened_out_without_being_asked() -> None:
    world = RepairWorld(3, goal=2)
    for disk in world.disks.values():
        disk.capacity_bytes, disk.free_bytes = 60_000, 30_000
    for _ in range(30):
        world.write((0, 1))
    world.run(60)
    assert max(held_counts(world)) <= 26
    assert min(held_counts(world)) >= 8


def test_a_move_never_brings_two_replicas_to_one_host() -> None:
    world = RepairWorld(4, goal=2, hosts=2)  # s0 and s2 share a host, s1 and s3 another
    handles = [world.write((0, 1)) for _ in range(20)]
    world.repairs.rebalance.is_asked_for = True
    world.run(60)
    host_of = {server: disk.host for server, disk in world.disks.items()}
    for handle in handles:
        assert len({host_of[server] for server in world.chunk(handle).replicas}) == 2
    assert Counter(s for handle in handles for s in world.chunk(handle).replicas) == dict.fromkeys(
        (S0, S1, S2, S3), 10
    )


def test_nothing_moves_while_something_is_missing() -> None:
    world = RepairWorld(4, limits=RepairLimits(server_count_ordered=1))
    short = [world.write((0, 1)) for _ in range(20)]
    world.repairs.rebalance.is_asked_for = True
    world.run(3)
    assert world.repairs.waiting_count
    assert {order.handle for order in world.orders_seen} <= set(short)


@given(
    sizes=st.lists(st.integers(0, 3), min_size=4, max_size=30),
    leaving=st.integers(0, 4),
    killed=st.integers(0, 4),
)
@settings(max_examples=40)
def test_moving_and_emptying_end_and_leave_all_whole(
    sizes: list[int], leaving: int, killed: int
) -> None:
    world = RepairWorld(5, goal=2)
    handles = [world.write((first, (first + 1) % 5)) for first in sizes]
    world.repairs.rebalance.is_asked_for = True
    world.decommission(leaving)
    world.run(3)
    world.kill(killed)
    world.run(25)
    world.revive(killed)
    world.run(60)
    assert all(world.is_whole(handle) for handle in handles)
    assert duty(world, leaving) == "empty"
    assert not world.repairs.rebalance.is_asked_for
