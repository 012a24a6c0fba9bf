"""Moments of a member that only a held-up disk or a late message brings about."""

from minigfs.errors import NoSpace, NotLeader
from minigfs.raft import ChangeKind, Configuration, Entry, EntryKind, MembershipChange, NodeId
from minigfs.raft.messages import AppendEntries, HeartbeatReply, PreVote, ReadIndexReply
from minigfs.replication.jobs import Lane
from minigfs.replication.member import MemberSettings
from minigfs.replication.peer_messages import PeerMessage, RemovedNotice
from tests.minigfs.replication.hub import LIST, Hub, Seat


def bring_uncommitted_removal(hub: Hub, seat: Seat, removed: NodeId) -> None:
    """The leader's message brings a committed command and, behind it, a removal that is not."""
    leader = hub.leader()
    status = seat.member.status()
    configuration = status.configuration.changed(MembershipChange(ChangeKind.REMOVE, removed))
    first = status.last_index + 1
    seat.member.receive(
        AppendEntries(
            source=leader.id,
            target=seat.id,
            term=status.term,
            prev_log_index=status.last_index,
            prev_log_term=seat.log.term(status.last_index),
            entries=(
                Entry(index=first, term=status.term, kind=EntryKind.NOOP),
                Entry(
                    index=first + 1,
                    term=status.term,
                    kind=EntryKind.CONFIGURATION,
                    configuration=configuration,
                ),
            ),
            leader_commit=first,
        )
    )


def test_a_member_does_not_rest_before_its_removal_is_committed() -> None:
    """Another leader may delete that entry; resting, the member would be lost for ever."""
    hub = Hub()
    seat = hub.follower()
    hub.tick(3)
    bring_uncommitted_removal(hub, seat, seat.id)
    hub.pump(seat)
    status = seat.member.status()
    assert (status.applied_index, status.last_index) == (
        status.commit_index,
        status.commit_index + 1,
    )
    assert not status.is_removed


def test_nobody_is_told_of_a_removal_that_is_not_committed() -> None:
    hub = Hub()
    leader = hub.leader()
    one, other = (seat for seat in hub.alive if seat is not leader)
    hub.tick(3)
    bring_uncommitted_removal(hub, one, other.id)
    hub.pump(one)
    hub.sent.clear()
    term = one.member.term
    one.member.receive(
        PreVote(source=other.id, target=one.id, term=term + 1, last_log_index=0, last_log_term=0)
    )
    hub.pump(one)
    assert not any(isinstance(message, RemovedNotice) for message in hub.sent)


def test_a_read_is_not_confirmed_by_a_round_that_began_before_it() -> None:
    """The answers to that round may be old: in between another leader may have been elected."""
    hub = Hub()
    old = hub.leader()
    hub.tick(3)
    late: list[PeerMessage] = []

    def keep(message: PeerMessage) -> bool:
        if isinstance(message, HeartbeatReply):
            late.append(message)
            return True
        return False

    hub.is_lost = keep
    before, after = hub.ticket(), hub.ticket()
    old.member.read(before)
    hub.run()
    hub.isolate(old.id)
    others = [seat for seat in hub.alive if seat is not old]
    for _ in range(100):
        for seat in others:
            seat.member.tick()
        hub.run()
    new = next(seat for seat in others if seat.member.leads_for_certain)
    hub.propose(new, b"newer")
    hub.run()
    assert new.machine.commands == [b"newer"]
    assert old.member.is_leader, "and does not know better"
    old.member.read(after)
    hub.pump(old)
    for message in late:
        old.member.receive(message)
    hub.pump(old)
    assert old.outcomes[before].error is None
    assert after not in old.outcomes


def test_entries_waiting_to_be_applied_give_way_to_a_snapshot_that_covers_them() -> None:
    """A follower that is slow to apply gets a snapshot of the state it has not come to yet."""
    settings = MemberSettings(snapshot_every_entries=10, keep_entries=0, apply_entries_max=1)
    hub = Hub("ab", settings=settings)
    hub.add("c", Configuration())
    leader = hub.leader()
    slow = hub["c"]
    for number in range(60):
        hub.ask(b"%d" % number)
    hub.run()
    term, last = leader.member.term, leader.member.commit_index
    snapshot = leader.member.status().snapshot_index
    entries = tuple(leader.log.entries(leader.log.first_index(), last, 1 << 30))
    assert snapshot > 40
    # What the follower has: the same entries as no-ops, committed, and handed out but not applied.
    slow.member.receive(
        AppendEntries(
            source=leader.id,
            target=slow.id,
            term=term,
            prev_log_index=0,
            prev_log_term=0,
            entries=tuple(
                Entry(index=index, term=term, kind=EntryKind.NOOP) for index in range(1, 31)
            ),
            leader_commit=30,
        )
    )
    del entries
    ticket = hub.ticket()
    leader.member.change_membership(MembershipChange(ChangeKind.ADD_LEARNER, NodeId("c")), ticket)
    for _ in range(200):
        for seat in hub.alive:
            seat.member.tick()
            due = seat.member.due()  # one entry applied a turn
            hub.in_flight.extend(due.messages)
            seat.jobs.extend(due.jobs)
            seat.run_jobs()
        messages, hub.in_flight = hub.in_flight, []
        for message in messages:
            hub.deliver(message)
    hub.tick(5)
    assert slow.member.applied_index == leader.member.applied_index
    assert slow.machine.commands == leader.machine.commands


def test_a_late_answer_to_a_read_given_up_at_the_removal_is_ignored() -> None:
    """The member asks its leader for a read, learns that it was removed, and tells its caller so;
    then the leader's answer comes."""
    hub = Hub()
    hub.leader()
    hub.tick(3)
    seat = hub.follower()
    hub.is_lost = lambda message: isinstance(message, ReadIndexReply)
    ticket = hub.ticket()
    seat.member.read(ticket)
    hub.run()
    (answer,) = [message for message in hub.sent if isinstance(message, ReadIndexReply)]
    seat.member.receive(
        RemovedNotice(source=hub.leader().id, target=seat.id, term=seat.member.term)
    )
    hub.pump(seat)
    assert isinstance(seat.outcomes[ticket].error, NotLeader)
    seat.member.receive(answer)
    hub.pump(seat)


def fill_until_refused(hub: Hub, seat: Seat) -> int:
    """Proposals taken in while the disk holds up every write; how many."""
    for taken in range(1_000):
        try:
            hub.propose(seat, bytes(500))
        except NoSpace:
            return taken
        if not seat.member.status().disk_is_full:  # it finds out by looking for room ahead
            seat.held.clear()
            hub.run()
            seat.held.add(Lane.LOG)
    raise AssertionError("it never refuses")


def test_a_nearly_full_disk_refuses_clients_before_the_reserve_is_touched() -> None:
    """Also what was taken in already and is not written yet counts against the room."""
    hub = Hub("a", settings=MemberSettings(reserve_bytes=8_192))
    seat = hub.leader()
    seat.disk.resize(seat.disk.used_bytes())
    taken = fill_until_refused(hub, seat)
    assert taken > 10
    seat.held.clear()
    hub.run()
    assert seat.member.applied_index >= taken, "what was taken in is written"
    assert seat.log.room_bytes >= 8_192


def test_what_a_new_leader_logs_first_goes_into_the_reserve() -> None:
    """Else nobody could even read while the disks of all members are full."""
    hub = Hub("a", settings=MemberSettings(reserve_bytes=8_192))
    seat = hub.leader()
    seat.disk.resize(seat.disk.used_bytes())
    fill_until_refused(hub, seat)
    seat.held.clear()
    hub.run()
    applied = seat.member.applied_index
    seat.member.propose(LIST, b"tenure", None, hub.ticket(), to_lead=True)
    seat.held.clear()
    hub.run()
    assert seat.member.applied_index == applied + 1
