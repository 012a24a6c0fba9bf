"""Members with real logs, threads and sockets: elections, hand-overs, joins, old copies."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable

import pytest

from minigfs.errors import (
    DamageError,
    InvalidConfig,
    MemberRemoved,
    NotLeader,
    OutcomeUnknown,
    Unreachable,
)
from minigfs.ports import SystemRng
from minigfs.raft import Role
from minigfs.raft.messages import Heartbeat
from minigfs.replication.admin import JoinMaster, RemoveMaster, join_group
from minigfs.replication.founding import found_group
from minigfs.transport.client import ConnectionPool
from tests.addresses import free_address
from tests.host_group import PATIENCE_MS, SECURITY, GroupMember, HostGroup


def in_group(test: Callable[[HostGroup], Awaitable[None]], root, count: int = 3) -> None:
    async def main() -> None:
        async with HostGroup(root, count) as group:
            await test(group)

    asyncio.run(main())


async def propose(group: HostGroup, name: bytes) -> bytes:
    """As a client does: ask whoever leads until somebody has answered."""
    while True:
        leader = await group.leader()
        try:
            return await leader.running.propose("tally", name)
        except NotLeader:
            pass


async def ask(member: GroupMember, request):
    pool = ConnectionPool(SECURITY)
    try:
        return await asyncio.to_thread(pool.call, member.address, request)
    finally:
        pool.close()


def test_what_the_leader_answers_every_member_applies_once(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader = await group.leader()
        replies = await asyncio.gather(
            *(leader.running.propose("tally", b"%d" % i) for i in range(200))
        )
        assert replies == [b"1"] * 200
        await group.all_have(b"199")
        for member in group.members:
            assert member.tally.counts == {b"%d" % i: 1 for i in range(200)}

    in_group(test, tmp_path)


def test_a_follower_refuses_and_names_the_leader(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, (follower, _) = await group.leader(), await group.followers()
        with pytest.raises(NotLeader) as refused:
            await follower.running.propose("tally", b"x")
        assert refused.value.hint == leader.address
        with pytest.raises(NotLeader):
            follower.running.require_leader()
        leader.running.require_leader()

    in_group(test, tmp_path)


def test_any_member_reads_what_was_acknowledged_before(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        for i in range(20):
            await propose(group, b"%d" % i)
            for member in group.members:
                await member.running.read_barrier()
                assert member.tally.counts[b"%d" % i] == 1

    in_group(test, tmp_path)


def test_when_the_leader_is_gone_another_leads_and_has_all_that_was_acknowledged(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        for i in range(50):
            await propose(group, b"%d" % i)
        gone = await group.leader()
        await gone.stop()
        assert await propose(group, b"afterwards") == b"1"
        await gone.start()
        await group.all_have(b"afterwards")
        for member in group.members:
            assert all(member.tally.counts[b"%d" % i] == 1 for i in range(50))

    in_group(test, tmp_path)


def test_followers_of_a_leader_that_ended_do_not_wait_for_its_time_to_be_up(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, followers = await group.leader(), await group.followers()
        for follower in followers:  # from now on they would have waited for ever
            follower.running._member.tick = lambda: None  # type: ignore[method-assign]
        await leader.stop()
        assert await followers[0].running.until(
            lambda: any(f.running.is_leader for f in followers), timeout_ms=PATIENCE_MS
        )

    in_group(test, tmp_path)


def test_without_a_majority_nothing_is_acknowledged_and_readers_are_told(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, followers = await group.leader(), await group.followers()
        for follower in followers:
            await follower.stop()
        host = leader.running
        with pytest.raises((OutcomeUnknown, NotLeader)):
            await host.propose("tally", b"lost?")
        with pytest.raises(NotLeader):
            await host.read_barrier()
        assert not host.is_leader
        await followers[0].start()
        assert await propose(group, b"again") == b"1"

    in_group(test, tmp_path)


def test_leadership_is_handed_over_and_watchers_hear_of_it(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, (follower, _) = await group.leader(), await group.followers()
        heard: list[tuple[str, int | None]] = []
        leader.running.watch_leadership(lambda term: heard.append(("old", term)))
        follower.running.watch_leadership(lambda term: heard.append(("new", term)))
        term = leader.running.term
        await leader.running.transfer(follower.running.member_id)
        assert not leader.running.is_leader
        assert await group.leader() is follower
        assert heard[:2] == [("old", term), ("old", None)]
        assert heard[2:] == [("new", follower.running.term)]
        assert follower.running.term == term + 1

    in_group(test, tmp_path)


def test_a_stopping_leader_hands_over_to_a_member_that_lives(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, (dead, living) = await group.leader(), await group.followers()
        await dead.stop()
        host = leader.running
        await host.hand_over()
        with pytest.raises(Unreachable, match="stopping"):
            await host.propose("tally", b"x")
        assert await living.running.until(lambda: living.running.is_leader, timeout_ms=PATIENCE_MS)

    in_group(test, tmp_path)


def test_members_know_of_each_other_what_people_ask_for(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader = await group.leader()
        for member in group.members:
            host = member.running
            assert await host.until(
                lambda host=host: (
                    all(m.pid for m in host.members())
                    and [m.role for m in host.members()].count("leader") == 1
                ),
                timeout_ms=PATIENCE_MS,
            )
            listed = host.members()
            assert {m.address for m in listed} == {m.address for m in group.members}
            assert {m.directory for m in listed} == {str(m.directory) for m in group.members}
            (leading,) = (m for m in listed if m.role == "leader")
            assert leading.member_id == leader.running.member_id

    in_group(test, tmp_path)


def test_who_was_not_let_in_yet_shows_what_it_began_with(tmp_path) -> None:
    """A leader that connects first does not make an old copy look new."""

    async def test() -> None:
        alone, *others = HostGroup(tmp_path).members
        found_group([(m.directory, m.address) for m in (alone, *others)], SystemRng())
        host = await alone.start()
        began_with = host.durable_end()
        leader = next(iter(set(host.view().configuration.voters) - {host.member_id}))
        term = host.term + 7
        host.message(
            Heartbeat(
                source=leader, target=host.member_id, term=term, commit_index=0, read_sequence=0
            )
        )
        assert await host.until(
            lambda: host._log.hard_state().current_term == term, timeout_ms=PATIENCE_MS
        )
        assert host.durable_end() == began_with
        host.connected(leader)
        assert host.durable_end()[0] == term
        await alone.stop()

    asyncio.run(test())


def test_a_newcomer_gets_the_log_votes_and_can_be_removed_for_ever(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        for i in range(100):
            await propose(group, b"%d" % i)
        newcomer = await group.add_newcomer("fourth")
        host = newcomer.running
        pool = ConnectionPool(SECURITY)
        seeds = [member.address for member in group.members[:3]]
        await join_group(host, newcomer.address, seeds, pool)
        pool.close()
        await group.all_have(b"99")
        for member in group.members:  # the last of them hear of it a moment later
            running = member.running
            assert await running.until(
                lambda running=running: host.member_id in running.view().configuration.voters,
                timeout_ms=PATIENCE_MS,
            )
        leader = await group.leader()
        if leader is newcomer:
            await host.transfer()
            leader = await group.leader()
        await ask(leader, RemoveMaster(member_id=host.member_id))
        await newcomer.stop()  # it may not have heard
        await newcomer.start()
        for other in group.members[:3]:  # as its process remembers
            newcomer.running.addresses.says(other.running.member_id, other.address)
        with pytest.raises(MemberRemoved):
            await newcomer.running.wait_failed()
        await newcomer.stop()
        leader = await group.leader()
        again = JoinMaster(member_id=host.member_id, address=newcomer.address)
        with pytest.raises(MemberRemoved):
            await ask(leader, again)

    in_group(test, tmp_path)


def test_a_group_of_one_grows_to_two(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        await propose(group, b"alone")
        newcomer = await group.add_newcomer("second")
        pool = ConnectionPool(SECURITY)
        await join_group(newcomer.running, newcomer.address, [group.members[0].address], pool)
        pool.close()
        await group.all_have(b"alone")
        assert await propose(group, b"together") == b"1"

    in_group(test, tmp_path, count=1)


def test_a_member_is_found_again_at_another_address(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        (moved, _) = await group.followers()
        member_id = moved.running.member_id
        await moved.stop()
        await propose(group, b"meanwhile")
        moved.address = free_address()
        await moved.start()
        await group.all_have(b"meanwhile")
        for member in group.members:
            host = member.running
            assert await host.until(
                lambda host=host: host.machines.member_addresses.get(member_id) == moved.address,
                timeout_ms=PATIENCE_MS,
            ), "the log says where it is"

    in_group(test, tmp_path)


def test_an_old_copy_of_a_members_directory_is_told_so_and_harms_nobody(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        await propose(group, b"first")
        (follower, _) = await group.followers()
        await follower.stop()
        shutil.copytree(follower.directory, tmp_path / "copy")
        await follower.start()
        for i in range(50):
            await propose(group, b"%d" % i)
        await group.all_have(b"49")
        leader = await group.leader()
        term = leader.running.term
        await follower.stop()
        shutil.rmtree(follower.directory)
        shutil.move(tmp_path / "copy", follower.directory)
        await follower.start()
        with pytest.raises(DamageError, match=r"old copy|its disk lost"):
            await follower.running.wait_failed()
        await follower.stop()
        assert leader.running.is_leader
        assert leader.running.term == term
        assert await propose(group, b"afterwards") == b"1"

    in_group(test, tmp_path)


def test_a_directory_that_was_lost_and_made_a_group_of_its_own_ends_where_it_is_missed(
    tmp_path,
) -> None:
    async def test(group: HostGroup) -> None:
        (lost, _) = await group.followers()
        await lost.stop()
        shutil.rmtree(lost.directory)
        found_group([(lost.directory, lost.address)], SystemRng())
        await lost.start()
        with pytest.raises(InvalidConfig, match="group of its own"):
            await lost.running.wait_failed()
        await lost.stop()
        assert await propose(group, b"afterwards") == b"1"

    in_group(test, tmp_path)


def test_a_leader_cut_off_knows_it_and_answers_what_it_could_not_decide(tmp_path) -> None:
    async def test(group: HostGroup) -> None:
        leader, followers = await group.leader(), await group.followers()
        host = leader.running
        for follower in followers:
            await follower.stop()
        began = asyncio.get_running_loop().time()
        with pytest.raises((OutcomeUnknown, NotLeader)):
            await host.propose("tally", b"x")
        took_ms = (asyncio.get_running_loop().time() - began) * 1000
        assert took_ms < 20 * host.settings.election_timeout_ms
        assert host.view().role is not Role.LEADER

    in_group(test, tmp_path)
