"""Which replicas are made, and which are given up (GFS sections 4.3, 4.4)."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from minigfs.ids import FileId
from minigfs.master import commands
from minigfs.master.commands import ReplicaChange
from minigfs.master.membership import ALIVE_MS
from minigfs.master.repair import RepairLimits
from minigfs.master.standing import SILENCE_BORNE_MS
from minigfs.master.state import FileSystemState, Inode
from minigfs.master.trash import chunks_in_trash
from tests.minigfs.master.harness import Driver
from tests.minigfs.master.repair_world import LENGTH_BYTES, RepairWorld, server_id

S0, S1, S2, S3, S4 = (server_id(n) for n in range(5))


def test_a_chunk_that_was_acknowledged_by_too_few_is_topped_up() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1))
    world.run(2)
    assert world.chunk(handle).replicas == (S0, S1, S2)
    assert world.is_whole(handle)


def test_a_server_that_is_away_for_a_moment_moves_no_data() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.kill(0)
    world.run(SILENCE_BORNE_MS / 1000 - 2)
    world.revive(0)
    world.run(60)
    assert not world.orders_seen
    assert world.is_whole(handle)


def test_a_server_that_stays_away_is_made_up_for_and_what_it_has_is_deleted_when_it_is_back() -> (
    None
):
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.kill(0)
    world.run(SILENCE_BORNE_MS / 1000 + 3)
    assert set(world.chunk(handle).replicas) == {S1, S2, S3}
    assert world.good(handle) == [S0, S1, S2, S3]
    world.revive(0)
    world.run(3)
    assert world.is_whole(handle)


def test_with_nobody_else_to_take_it_a_chunk_waits_for_the_server_to_come_back() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1, 2))
    world.kill(2)
    world.run(120)
    assert not world.orders_seen
    assert world.chunk(handle).replicas == (S0, S1, S2)
    world.revive(2)
    world.run(3)
    assert world.is_whole(handle)
    assert not world.orders_seen


def test_a_single_replica_waits_for_nobody() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.kill(0)
    world.kill(1)
    world.run(ALIVE_MS / 1000 + 3)
    assert S3 in world.chunk(handle).replicas
    assert {S2, S3} <= set(world.good(handle))


def test_a_damaged_replica_is_made_anew_where_it_is() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.run(1)
    world.damage(1, handle)
    world.run(2)
    assert world.chunk(handle).replicas == (S0, S1, S2)
    assert world.is_whole(handle)
    assert [order.sources[-1:] != ("s1:1",) for order in world.orders_seen] == [True]


def test_a_replica_that_is_gone_is_made_anew() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1, 2))
    world.run(1)
    world.lose(2, handle)
    world.run(2)
    assert world.is_whole(handle)


def test_a_damaged_replica_on_a_full_disk_is_replaced_elsewhere_and_deleted() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.fill(1)
    world.run(1)
    world.damage(1, handle)
    world.run(3)
    assert set(world.chunk(handle).replicas) == {S0, S2, S3}
    assert world.is_whole(handle)


def test_replicas_wrongly_said_to_be_damaged_are_believed_again_after_a_look() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1, 2))
    world.run(1)
    for server in (S0, S1, S2):
        world.membership.mark_damaged(handle, server)
    world.run(5)
    assert world.membership.present_count(world.chunk(handle), world.now_ms) == 3


def test_a_copy_that_was_made_for_a_master_that_is_gone_is_made_use_of() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1))
    world.disks[S3].held[handle] = True  # the order came from a leader that died before it logged
    world.elect()
    world.run(3)
    assert set(world.chunk(handle).replicas) == {S0, S1, S3}
    assert world.is_whole(handle)


def test_a_new_master_repairs_what_it_was_told_nothing_about() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2))
    world.kill(2)
    world.elect()
    world.run(ALIVE_MS / 1000 + 1)
    assert not world.orders_seen, "the silent server may just be slow"
    world.run(SILENCE_BORNE_MS / 1000)
    assert set(world.chunk(handle).replicas) == {S0, S1, S3}


def test_the_replica_that_is_too_many_is_the_one_that_shares_its_host() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2, 3), goal=3)
    world.relabel(1, host="h0")
    world.relabel(2, rack="far")
    world.run(3)
    assert len(world.chunk(handle).replicas) == 3
    assert {S0, S1} - set(world.chunk(handle).replicas)
    assert world.is_whole(handle)


def test_nothing_is_given_up_while_a_member_has_not_said_what_it_has() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1, 2, 3), goal=3)
    world.disks[S3].alive = False  # so it cannot answer the question it is asked
    world.membership.server(S3).reported = False
    world.turn()
    assert len(world.chunk(handle).replicas) == 4


def test_chunks_with_a_single_replica_are_copied_first_and_blocking_ones_before_their_equals() -> (
    None
):
    one_at_a_time = RepairLimits(server_count_ordered=1)
    world = RepairWorld(2, goal=3, limits=one_at_a_time)
    two = world.write((0, 1))
    ones = [world.write((0,)) for _ in range(3)]
    blocking = world.write((0,))
    world.repairs.boost(blocking)
    world.run(10)
    assert [order.handle for order in world.orders_seen] == [blocking, *ones]
    assert two not in {order.handle for order in world.orders_seen}


def test_what_lives_is_copied_before_what_was_removed() -> None:
    world = RepairWorld(2, limits=RepairLimits(server_count_ordered=1))
    handles = [world.write((0,)) for _ in range(4)]
    world.repairs.removed = set(handles[:2])
    world.run(10)
    assert [order.handle for order in world.orders_seen] == [*handles[2:], *handles[:2]]


def test_no_server_is_ordered_more_than_its_limits() -> None:
    limits = RepairLimits(server_bytes_ordered=3 * LENGTH_BYTES, server_count_ordered=2)
    world = RepairWorld(3, goal=2, limits=limits)
    handles = [world.write((0,)) for _ in range(20)]
    most = 0
    for _ in range(40):
        world.run(0.5)
        most = max(most, *(len(world.repairs.orders_for(s)) for s in world.disks))
        assert all(
            sum(order.length_bytes for order in world.repairs.orders_for(s)) <= 3 * LENGTH_BYTES
            for s in world.disks
        )
    assert most == 2
    targets = Counter(s for handle in handles for s in world.chunk(handle).replicas)
    assert targets == {S0: 20, S1: 10, S2: 10}


def test_the_bandwidth_of_the_cluster_is_shared_by_its_servers() -> None:
    world = RepairWorld(5, limits=RepairLimits(cluster_bytes_per_second=5_000))
    world.write((0, 1))
    world.run(1)
    assert {order.bytes_per_second for order in world.orders_seen} == {1_000}


def test_a_copy_that_fails_is_tried_elsewhere_and_again_later() -> None:
    world = RepairWorld(4)
    world.copies_fail = True
    handle = world.write((0, 1))
    world.run(3)
    assert len(world.orders_seen) == 2, "once at each server that could take it"
    world.copies_fail = False
    world.run(10)
    assert world.is_whole(handle)


def test_chunks_whose_copies_always_fail_keep_no_other_from_its_turn() -> None:
    world = RepairWorld(2, goal=2, limits=RepairLimits(server_count_ordered=1))
    hopeless = [world.write((0,)) for _ in range(40)]
    for handle in hopeless:
        world.disks[S0].held[handle] = False  # nobody can read it there, and nobody said so
    others = [world.write((0,)) for _ in range(5)]
    world.run(300)
    assert all(world.is_whole(handle) for handle in others)


def test_a_removed_file_is_repaired_no_more_and_its_replicas_go_everywhere() -> None:
    world = RepairWorld(4)
    handle = world.write((0, 1))
    world.disks[S3].held[handle] = True
    world.disks[S3].new.add(handle)
    world.remove_file(handle)
    world.run(3)
    assert not any(handle in disk.held for disk in world.disks.values())


def test_a_copy_of_a_file_that_is_removed_before_the_copy_counts_goes_as_well() -> None:
    world = RepairWorld(2, goal=2)
    handle = world.write((0,))
    removed = False
    decide = world.repairs.turn

    def decide_and_remove(state: FileSystemState, now_ms: int) -> tuple[ReplicaChange, ...]:
        nonlocal removed
        changes = decide(state, now_ms)
        if any(S1 in change.add for change in changes) and not removed:
            removed = True
            world.remove_file(handle)
        return changes

    world.repairs.turn = decide_and_remove  # type: ignore[method-assign]  # between its steps
    world.run(10)
    assert removed
    assert not any(handle in disk.held for disk in world.disks.values())


def test_many_chunks_are_looked_at_in_slices() -> None:
    world = RepairWorld(4, goal=1)
    handles = range(1, 5_001)
    world.repairs.look_at(tuple(handles))
    turns = 0
    while world.repairs.is_busy:
        world.repairs.turn(world.state, world.now_ms)
        turns += 1
    assert turns >= 10


events = st.lists(
    st.one_of(
        st.tuples(st.just("kill"), st.integers(0, 4)),
        st.tuples(st.just("revive"), st.integers(0, 4)),
        st.tuples(st.just("damage"), st.integers(0, 4), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 4), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from((1, 6, 20))),
        st.tuples(st.just("elect")),
        st.tuples(st.just("fail"), st.booleans()),
    ),
    max_size=25,
)


@given(servers=st.integers(3, 5), events=events)
@settings(max_examples=60)
def test_whatever_fails_no_order_loses_a_chunk_and_in_the_end_all_are_whole(
    servers: int, events: list[tuple]
) -> None:
    world = RepairWorld(servers)
    handles = [world.write(tuple((n + i) % servers for i in range(3))) for n in range(6)]
    for event in events:
        happen(world, servers, handles, event)
    world.copies_fail = False
    for number in range(servers):
        world.revive(number)
    tell_of_damage(world)
    savable = [handle for handle in handles if world.good(handle)]
    world.run(90)
    assert [handle for handle in savable if not world.is_whole(handle)] == []
    seen = len(world.orders_seen)
    lost = set(handles) - set(savable)
    world.run(60)
    assert {order.handle for order in world.orders_seen[seen:]} <= lost, "repair is never done"


def happen(world: RepairWorld, servers: int, handles: list, event: tuple) -> None:
    """One event; the last good replica is never what fails."""
    match event:
        case ("kill", number):
            world.kill(number % servers)
        case ("revive", number):
            world.revive(number % servers)
        case ("damage", number, which):
            if len(world.good(handles[which])) > 1:
                world.damage(number % servers, handles[which])
        case ("lose", number, which):
            if len(world.good(handles[which])) > 1:
                world.lose(number % servers, handles[which])
        case ("wait", seconds):
            world.run(seconds)
        case ("elect",):
            world.elect()
            tell_of_damage(world)
        case ("fail", fails):
            world.copies_fail = fails


def tell_of_damage(world: RepairWorld) -> None:
    """Readers meet what is damaged, also under a new master."""
    world.beat_all()
    for disk in world.disks.values():
        for handle, is_good in disk.held.items():
            if not is_good:
                world.membership.mark_damaged(handle, disk.server)


def test_damage_that_is_read_before_the_server_names_the_chunk_is_healed_all_the_same() -> None:
    world = RepairWorld(3)
    handle = world.write((0, 1, 2))
    world.damage(1, handle)
    world.run(3)
    assert world.is_whole(handle)


def test_what_only_removed_files_have_is_known_by_a_walk_through_the_trash(driver: Driver) -> None:
    driver.make_directory("/d/e")
    kept = driver.write("/kept", 1500)
    removed = [driver.write(path, 1500) for path in ("/d/a", "/d/e/b", "/c")]
    expected = {h for file_id in removed for h in driver.state.inodes[file_id].chunks}
    driver.apply(commands.Remove(9, "/d", True, 1_000))
    driver.apply(commands.Remove(9, "/c", False, 1_000))
    assert set(chunks_in_trash(driver.state)) - {None} == expected
    assert expected.isdisjoint(driver.state.inodes[kept].chunks)


def test_no_step_through_the_trash_takes_long(driver: Driver) -> None:
    driver.make_directory("/d")
    for number in range(300):
        driver.write(f"/d/empty-{number}", 0)
    driver.apply(commands.Remove(9, "/d", True, 1_000))
    counted = CountedInodes(driver.state.inodes)
    walk = chunks_in_trash(with_fields(driver.state, inodes=counted))
    steps = 0
    for _ in walk:
        steps += 1
        assert counted.lookups <= steps
    assert steps > 300


class CountedInodes:
    """How often somebody looked for one."""

    def __init__(self, inodes: Mapping[FileId, Inode]) -> None:
        self._inodes = inodes
        self.lookups = 0

    def __getitem__(self, file_id: FileId) -> Inode:
        self.lookups += 1
        return self._inodes[file_id]
