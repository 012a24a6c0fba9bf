"""The driver: what a group of whole members promises its clients, on real logs."""

import errno

import pytest

from minigfs.errors import NoSpace, NotLeader, OutcomeUnknown, UsageError
from minigfs.ids import Origin
from minigfs.raft import ChangeKind, MembershipChange, NodeId, ProposalDropped
from minigfs.raft.messages import AppendEntries, Heartbeat, HeartbeatReply
from minigfs.replication.commands import OpenSession, decode_session_id, encode_session_command
from minigfs.replication.jobs import Lane
from minigfs.replication.member import MemberSettings
from minigfs.replication.peer_messages import RemovedNotice
from tests.minigfs.replication.hub import SESSIONS, Hub, Seat

SMALL_SNAPSHOTS = MemberSettings(
    snapshot_every_entries=10, keep_entries=2, piece_bytes=256, pieces_in_flight=2
)


def change(hub: Hub, kind: ChangeKind, name: str) -> None:
    leader = hub.leader()
    ticket = hub.ticket()
    leader.member.change_membership(MembershipChange(kind, NodeId(name)), ticket)
    assert hub.outcome(leader, ticket) == b""


# Commands


def test_a_command_is_applied_by_every_member_and_answered_by_the_machine() -> None:
    hub = Hub()
    assert [hub.ask(b"x"), hub.ask(b"y")] == [b"1", b"2"]
    assert hub.converge() == [b"x", b"y"]


def test_proposals_of_one_turn_travel_in_one_message_and_one_write() -> None:
    hub = Hub()
    leader = hub.leader()
    hub.tick(3)
    hub.sent.clear()
    tickets = [hub.propose(leader, b"%d" % number) for number in range(50)]
    due = leader.member.due()
    appends = [message for message in due.messages if isinstance(message, AppendEntries)]
    assert [len(message.entries) for message in appends] == [50, 50]
    assert [job.lane for job in due.jobs] == [Lane.LOG]
    hub.in_flight.extend(due.messages)
    leader.jobs.extend(due.jobs)
    leader.run_jobs()
    hub.run()
    assert [leader.outcomes[ticket].reply for ticket in tickets] == [
        b"%d" % number for number in range(1, 51)
    ]


def test_what_comes_during_a_write_shares_the_next_one() -> None:
    hub = Hub()
    leader = hub.leader()
    leader.held.add(Lane.LOG)
    tickets = []
    for number in range(20):
        tickets.append(hub.propose(leader, b"%d" % number))
        hub.run()
    assert len(leader.jobs) == 1
    syncs = 0

    def count(operation: str, path: str) -> None:
        nonlocal syncs
        syncs += operation == "sync"

    leader.disk.before_change = count
    leader.held.clear()
    hub.run()
    leader.run_jobs()
    hub.run()
    assert all(leader.outcomes[ticket].error is None for ticket in tickets)
    assert syncs <= 2


def test_heartbeats_leave_while_a_write_takes_its_time() -> None:
    hub = Hub()
    leader = hub.leader()
    term = leader.member.term
    leader.held.add(Lane.LOG)
    ticket = hub.propose(leader, b"slow")
    hub.tick(100)
    heartbeats = [message for message in hub.sent if isinstance(message, Heartbeat)]
    assert len(heartbeats) > 150
    assert leader.member.is_leader
    assert leader.member.term == term
    assert ticket not in leader.outcomes, "the leader counts itself after its own write"
    leader.held.clear()
    leader.run_jobs()
    assert hub.outcome(leader, ticket) == b"1"


def test_many_commands_are_applied_in_slices_so_that_others_get_their_turn() -> None:
    hub = Hub(settings=MemberSettings(apply_entries_max=10))
    leader = hub.leader()
    for number in range(35):
        hub.propose(leader, b"%d" % number)
    slices = []
    for _ in range(200):
        for seat in hub.alive:
            due = seat.member.due()
            hub.in_flight.extend(due.messages)
            seat.jobs.extend(due.jobs)
            seat.run_jobs()
            if seat is leader and due.outcomes:
                slices.append((len(due.outcomes), due.more))
        messages, hub.in_flight = hub.in_flight, []
        for message in messages:
            hub.deliver(message)
    assert slices == [(10, True), (10, True), (10, True), (5, False)]


def test_large_commands_are_applied_for_as_long_as_a_slice_may_take() -> None:
    hub = Hub(settings=MemberSettings(apply_ms_max=10))
    leader = hub.leader()
    apply = leader.machine.apply

    def apply_slowly(index: int, command: bytes) -> bytes:
        leader.now_ms += 20 if command == b"5" else 4
        return apply(index, command)

    leader.machine.apply = apply_slowly  # type: ignore[method-assign]
    tickets = [hub.propose(leader, b"%d" % number) for number in range(8)]
    slices = []
    while sum(slices) < len(tickets):
        for seat in hub.alive:
            due = seat.member.due()
            hub.in_flight.extend(due.messages)
            seat.jobs.extend(due.jobs)
            seat.run_jobs()
            if seat is leader and due.outcomes:
                slices.append(len(due.outcomes))
        messages, hub.in_flight = hub.in_flight, []
        for message in messages:
            hub.deliver(message)
    assert slices == [3, 3, 2]


def test_a_follower_refuses_and_names_the_leader() -> None:
    hub = Hub()
    leader, follower = hub.leader(), hub.follower()
    hub.tick(2)
    with pytest.raises(NotLeader, match=f"ask {leader.id}"):
        hub.propose(follower, b"x")
    with pytest.raises(NotLeader):
        follower.member.transfer_leadership(follower.id)
    with pytest.raises(NotLeader):
        follower.member.change_membership(
            MembershipChange(ChangeKind.ADD_LEARNER, NodeId("d")), hub.ticket()
        )


def test_a_command_no_machine_is_there_for_never_gets_into_the_log() -> None:
    hub = Hub()
    leader = hub.leader()
    before = leader.member.status().last_index
    with pytest.raises(UsageError, match="no machine 'jobs'"):
        hub.propose(leader, b"x", machine="jobs")
    with pytest.raises(UsageError, match="too large"):
        hub.propose(leader, bytes(64 << 20))
    assert leader.member.status().last_index == before


def test_a_proposal_another_leader_replaced_was_never_made_and_says_so() -> None:
    hub = Hub()
    old = hub.leader()
    hub.isolate(old.id)
    ticket = hub.propose(old, b"lost")
    hub.tick(60)
    others = [seat for seat in hub.alive if seat is not old]
    assert any(seat.member.is_leader for seat in others)
    new = next(seat for seat in others if seat.member.is_leader)
    kept = hub.propose(new, b"kept")
    hub.tick(2)
    assert ticket not in old.outcomes, "nothing is decided while nothing is heard"
    hub.heal()
    error = hub.outcome(old, ticket)
    assert isinstance(error, NotLeader)
    assert hub.outcome(new, kept) == b"1"
    assert hub.converge() == [b"kept"]


def test_a_proposal_the_next_leader_commits_is_answered_though_leadership_was_lost() -> None:
    hub = Hub()
    old = hub.leader()
    others = [seat for seat in hub.alive if seat is not old]
    # The entry reaches everybody, no acknowledgement comes back.
    hub.is_lost = lambda message: message.target == old.id
    ticket = hub.propose(old, b"survives")
    hub.run()
    hub.tick(60)
    assert not old.member.is_leader
    assert ticket not in old.outcomes
    hub.heal()
    assert hub.outcome(old, ticket) == b"1"
    assert hub.converge() == [b"survives"]
    assert hub.leader() in others


def test_two_proposals_at_one_index_are_told_apart() -> None:
    """The same member leads twice and proposes at the same index; only the second one lives."""
    hub = Hub()
    old = hub.leader()
    hub.isolate(old.id)
    first = hub.propose(old, b"first")
    hub.tick(60)
    index = old.member.status().last_index
    new = next(seat for seat in hub.alive if seat.member.is_leader)
    # It gets its log overwritten, leads again, and goes on until the index is reached once more.
    hub.heal()
    hub.tick(5)
    assert isinstance(hub.outcome(old, first), NotLeader)
    new.member.transfer_leadership(old.id)
    hub.tick(3)
    assert hub.leader() is old
    assert hub.ask(b"second") == b"1"
    assert old.member.status().last_index >= index
    assert hub.converge() == [b"second"]


def test_a_duplicate_request_is_answered_not_executed_across_a_leader_change() -> None:
    hub = Hub()
    reply = hub.ask(encode_session_command(OpenSession()), machine=SESSIONS)
    assert isinstance(reply, bytes)
    origin = Origin(decode_session_id(reply), 1, 0)
    assert hub.ask(b"once", origin=origin) == b"1"
    hub.crash(hub.leader().id)
    assert hub.ask(b"once", origin=origin) == b"1"
    hub.ask(b"other")
    assert hub.converge() == [b"once", b"other"]


def test_a_restarted_group_has_everything_it_acknowledged() -> None:
    hub = Hub(settings=SMALL_SNAPSHOTS)
    for number in range(25):
        hub.ask(b"%d" % number)
    for seat in hub.seats.values():
        seat.crash()
    for seat in hub.seats.values():
        seat.start()
    assert hub.ask(b"last") == b"26"
    assert hub.converge() == [b"%d" % number for number in range(25)] + [b"last"]


# Reads


def test_reads_of_one_turn_share_one_round_and_see_what_was_acknowledged() -> None:
    hub = Hub()
    leader = hub.leader()
    hub.ask(b"x")
    hub.tick(2)
    hub.sent.clear()
    tickets = [hub.ticket() for _ in range(30)]
    for ticket in tickets:
        leader.member.read(ticket)
    hub.run()
    assert {leader.outcomes[ticket].reply for ticket in tickets} == {b""}
    assert len([message for message in hub.sent if isinstance(message, Heartbeat)]) == 2


def test_a_follower_confirms_a_read_only_when_its_machines_have_come_that_far() -> None:
    hub = Hub()
    hub.leader()
    follower = hub.follower()
    hub.ask(b"x")
    follower.held.add(Lane.LOG)
    hub.ask(b"y")
    ticket = hub.ticket()
    follower.member.read(ticket)
    hub.tick(3)
    assert ticket not in follower.outcomes
    follower.held.clear()
    follower.run_jobs()
    assert hub.outcome(follower, ticket) == b""
    assert follower.machine.commands == [b"x", b"y"]


def test_a_leader_cut_off_confirms_no_read() -> None:
    hub = Hub()
    old = hub.leader()
    hub.isolate(old.id)
    ticket = hub.ticket()
    old.member.read(ticket)
    hub.tick(5)
    assert ticket not in old.outcomes
    assert isinstance(hub.outcome(old, ticket), NotLeader)


def test_a_read_without_a_leader_is_refused_as_an_outcome() -> None:
    hub = Hub()
    seat = hub["a"]
    ticket = hub.ticket()
    seat.member.read(ticket)
    assert [outcome.ticket for outcome in seat.member.due().outcomes] == [ticket]


# The disk


def fill(hub: Hub, seat: Seat) -> NoSpace:
    """Write until the leader's full disk makes it refuse."""
    for _ in range(2_000):
        try:
            ticket = hub.propose(seat, bytes(1_000))
        except NoSpace as error:
            return error
        assert isinstance(hub.outcome(seat, ticket), bytes), "what is taken in is done"
    raise AssertionError("it never refuses")


def test_a_leader_with_a_full_disk_refuses_changes_keeps_leading_and_recovers_by_itself() -> None:
    hub = Hub(settings=MemberSettings(reserve_bytes=4_096))
    leader = hub.leader()
    term = leader.member.term
    leader.disk.resize(leader.disk.used_bytes())
    error = fill(hub, leader)
    assert "disk is full" in str(error)
    assert leader.member.status().disk_is_full
    hub.tick(50)
    assert leader.member.is_leader
    assert leader.member.term == term
    ticket = hub.ticket()
    leader.member.read(ticket)
    assert hub.outcome(leader, ticket) == b"", "reads need no disk"
    leader.disk.resize(1 << 24)
    hub.tick(15)
    assert not leader.member.status().disk_is_full
    assert isinstance(hub.ask(b"again"), bytes)
    assert hub.converge()[-1] == b"again"


def test_a_write_that_met_a_full_disk_is_done_when_there_is_space() -> None:
    hub = Hub()
    leader = hub.leader()
    leader.disk.fail("write", errno.ENOSPC)
    ticket = hub.propose(leader, b"x")
    hub.tick(5)
    assert ticket not in leader.outcomes
    assert hub.outcome(leader, ticket) == b"1"
    assert hub.converge() == [b"x"]


def test_a_follower_with_a_full_disk_does_not_hold_up_the_group() -> None:
    hub = Hub(settings=MemberSettings(reserve_bytes=4_096))
    hub.leader()
    follower = hub.follower()
    follower.disk.resize(follower.disk.used_bytes())
    for number in range(200):
        assert hub.ask(b"%d" % number + bytes(1_000)) == b"%d" % (number + 1)
    assert follower.member.applied_index < hub.leader().member.applied_index
    assert follower.member.status().disk_is_full
    with pytest.raises(NotLeader):
        hub.propose(follower, b"x")
    follower.disk.resize(1 << 24)
    assert len(hub.converge()) == 200


def test_an_error_of_the_disk_ends_the_process() -> None:
    hub = Hub()
    leader = hub.leader()
    leader.disk.fail("sync", errno.EIO)
    hub.propose(leader, b"x")
    with pytest.raises(OSError, match="Input/output"):
        hub.run()


# Members


def test_a_member_is_added_promoted_and_removed() -> None:
    hub = Hub(settings=SMALL_SNAPSHOTS)
    for number in range(30):
        hub.ask(b"%d" % number)
    added = hub.add("d")
    change(hub, ChangeKind.ADD_LEARNER, "d")
    hub.converge()
    change(hub, ChangeKind.PROMOTE_LEARNER, "d")
    assert NodeId("d") in hub.leader().member.status().configuration.voters
    leaving = hub.follower() if hub.follower() is not added else hub["a"]
    change(hub, ChangeKind.REMOVE, leaving.id)
    hub.tick(60)
    assert leaving.member.status().is_removed
    assert not hub.leader().member.status().is_removed
    hub.crash(leaving.id)
    assert hub.ask(b"last") == b"31"
    assert len(hub.converge()) == 31


def test_a_removed_member_that_never_heard_of_it_is_told_and_rests() -> None:
    hub = Hub()
    leader, leaving = hub.leader(), hub.follower()
    hub.isolate(leaving.id)
    change(hub, ChangeKind.REMOVE, leaving.id)
    hub.heal()
    term = leader.member.term
    hub.tick(60)
    assert any(isinstance(message, RemovedNotice) for message in hub.sent)
    assert leaving.member.status().is_removed
    hub.sent.clear()
    hub.tick(60)
    assert not [message for message in hub.sent if message.source == leaving.id]
    assert leader.member.term == term
    ticket = hub.ticket()
    leaving.member.read(ticket)
    assert isinstance(hub.outcome(leaving, ticket), NotLeader)


def test_a_leader_that_removes_itself_answers_first_and_another_takes_over() -> None:
    hub = Hub()
    leader = hub.leader()
    change(hub, ChangeKind.REMOVE, leader.id)
    hub.tick(3)
    assert not leader.member.is_leader
    assert leader.member.status().is_removed
    assert hub.leader() is not leader
    assert hub.ask(b"x") == b"1"


def test_leadership_moves_within_moments_and_proposals_wait_for_it() -> None:
    hub = Hub()
    leader, follower = hub.leader(), hub.follower()
    leader.member.transfer_leadership(follower.id)
    with pytest.raises(ProposalDropped):
        hub.propose(leader, b"x")
    hub.tick(2)
    assert hub.leader() is follower
    assert follower.member.leads_for_certain
    assert hub.ask(b"x") == b"1"


def test_a_single_member_is_a_group() -> None:
    hub = Hub("a")
    assert hub.ask(b"x") == b"1"
    hub.crash("a")
    hub.restart("a")
    assert hub.ask(b"y") == b"2"


def test_a_job_of_the_past_life_and_unknown_peers_do_no_harm() -> None:
    hub = Hub()
    leader = hub.leader()
    leader.member.unreachable(NodeId("nobody"))
    leader.member.unreachable(hub.follower().id)
    stray = HeartbeatReply(source=NodeId("z"), target=leader.id, term=1, read_sequence=9)
    leader.member.receive(stray)
    assert hub.ask(b"x") == b"1"


def test_status_tells_who_leads_and_how_far_everybody_is() -> None:
    hub = Hub()
    hub.ask(b"x")
    hub.converge()
    leader = hub.leader()
    view = leader.member.status()
    assert view.leader_id == view.member_id == leader.id
    assert set(view.match_indexes.values()) == {view.last_index}
    assert view.commit_index == view.applied_index == leader.machines.applied_index
    assert hub.follower().member.status().match_indexes == {}


# Snapshots of the own machines


def test_snapshots_are_made_by_entries_and_the_log_is_compacted() -> None:
    hub = Hub(settings=SMALL_SNAPSHOTS)
    for number in range(40):
        hub.ask(b"%d" % number)
    hub.converge()
    for seat in hub.alive:
        view = seat.member.status()
        assert view.snapshot_index >= 30
        assert view.first_index == view.snapshot_index - 2 + 1
        assert len(seat.log.snapshots.names()) == 1


def test_snapshots_are_made_by_bytes() -> None:
    hub = Hub(settings=MemberSettings(snapshot_every_bytes=4_000, keep_entries=0))
    for _ in range(8):
        hub.ask(bytes(1_000))
    assert hub.leader().member.status().snapshot_index > 0


def test_commands_go_on_while_a_snapshot_takes_its_time_and_it_shows_its_own_moment() -> None:
    hub = Hub(settings=SMALL_SNAPSHOTS)
    for seat in hub.alive:
        seat.held.add(Lane.SNAPSHOT)
    for number in range(30):
        assert hub.ask(b"%d" % number) == b"%d" % (number + 1)
    leader = hub.leader()
    assert leader.member.status().snapshot_index == 0
    for seat in hub.alive:
        seat.held.clear()
        seat.run_jobs()
    hub.run()
    assert leader.member.status().snapshot_index > 0
    hub.crash(leader.id)
    hub.restart(leader.id)
    assert hub.converge() == [b"%d" % number for number in range(30)]


def test_a_snapshot_that_meets_a_full_disk_is_made_later() -> None:
    hub = Hub("a", settings=SMALL_SNAPSHOTS)
    seat = hub.leader()
    seat.held.add(Lane.SNAPSHOT)
    for number in range(12):
        hub.ask(b"%d" % number)
    assert len(seat.jobs) == 1
    seat.disk.fail("write", errno.ENOSPC)
    seat.held.clear()
    seat.run_jobs()
    hub.run()
    assert seat.member.status().snapshot_index == 0
    assert seat.log.snapshots.names() == []
    hub.tick(110)
    assert seat.member.status().snapshot_index > 0
    assert hub.ask(b"x") == b"13"


# Outcomes nobody can know


def test_a_proposal_that_a_received_snapshot_covers_has_an_unknown_outcome() -> None:
    hub = Hub(settings=SMALL_SNAPSHOTS)
    old = hub.leader()
    hub.isolate(old.id)
    ticket = hub.propose(old, b"lost")
    hub.tick(60)
    new = next(seat for seat in hub.alive if seat is not old and seat.member.is_leader)
    for number in range(40):
        hub.outcome(new, hub.propose(new, b"%d" % number))
    hub.heal()
    error = hub.outcome(old, ticket)
    assert isinstance(error, OutcomeUnknown)
    assert hub.converge() == [b"%d" % number for number in range(40)]
