"""Members behind the compacted log, and nodes that start from a snapshot (section 7)."""

import pytest

from minigfs.raft import ChangeKind, Entry, NodeId, PeerStatus, RaftConfig
from minigfs.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    InstallSnapshot,
    InstallSnapshotReply,
)
from minigfs.raft.progress import ProgressState
from tests.minigfs.raft.group import Group

A, B, C = NodeId("1"), NodeId("2"), NodeId("3")


def peer(group: Group, name: str) -> PeerStatus:
    return group.leader().node.status().peers[NodeId(name)]


def test_a_member_below_the_compacted_log_gets_a_snapshot() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    group.propose(b"after")
    group.tick(3)
    assert any(isinstance(m, InstallSnapshot) for m in group.sent)
    assert group["3"].machine == group["1"].machine
    assert peer(group, "3").state is ProgressState.REPLICATE
    assert group["3"].node.status().first_index == 12


def test_nothing_but_heartbeats_goes_to_a_member_that_is_loading_a_snapshot() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    group.drop = lambda message: isinstance(message, InstallSnapshot)
    group.tick(2)
    assert peer(group, "3").state is ProgressState.SNAPSHOT
    group.sent.clear()
    group.propose(b"more")
    group.tick(3)
    assert {type(m) for m in group.sent if m.target == C} == {Heartbeat}


@pytest.mark.parametrize("reported", [True, False])
def test_a_lost_snapshot_is_sent_again(reported: bool) -> None:
    """At once (a heartbeat later) if the driver reports it, otherwise when its time is over."""
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    group.drop = lambda message: isinstance(message, InstallSnapshot)
    group.tick(2)
    group.drop = lambda message: False
    if reported:
        group["1"].node.report_snapshot(C, delivered=False)
        group.tick(3)
    else:
        group.tick(RaftConfig(node_id=A).snapshot_retry_ticks + 3)
    assert group["3"].machine == group["1"].machine


def test_a_snapshot_is_acknowledged_and_applied_when_it_is_on_disk() -> None:
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    install: list[InstallSnapshot] = []

    def hold(message: object) -> bool:
        if isinstance(message, InstallSnapshot):
            install.append(message)
            return True
        return False

    group.drop = hold
    group.tick(2)
    late = group["3"]
    late.node.step(install[0])
    assert late.take_ready() == ()
    assert late.machine == []
    late.node.campaign()
    assert late.node.status().current_term == 1, "no campaign before the machine is replaced"
    late.finish_write()
    (reply,) = late.take_ready()
    assert reply.match_index == 11  # type: ignore[union-attr]
    assert late.machine == group["1"].machine


def test_an_old_snapshot_takes_nothing_back() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"a")
    group["1"].compact()
    snapshot = group["1"].storage.snapshot()
    group.propose(b"b")
    before = group["2"].node.status()
    group.deliver(InstallSnapshot(source=A, target=B, term=1, snapshot=snapshot))
    group.run()
    assert group["2"].node.status() == before
    assert group["2"].machine == [b"a", b"b"]


def test_a_snapshot_that_matches_the_log_keeps_the_entries_behind_it() -> None:
    """Rule 6 of InstallSnapshot: retain log entries following it."""
    group = Group(3)
    group.elect("1")
    group.propose(b"a")
    group["1"].compact()
    snapshot = group["1"].storage.snapshot()
    group.crash("2")
    group.restart("2")  # it knows no commit index any more
    assert group["2"].node.status().commit_index == 0
    group.deliver(InstallSnapshot(source=A, target=B, term=1, snapshot=snapshot))
    status = group["2"].node.status()
    assert (status.commit_index, status.last_index, status.first_index) == (2, 2, 1)
    group.run()
    assert group["2"].machine == [b"a"]


def test_a_compacted_prev_log_is_no_conflict() -> None:
    """A late AppendEntries from before the snapshot must not wipe the log behind it."""
    group = Group(3)
    group.elect("1")
    for number in range(5):
        group.propose(b"%d" % number)
    late = [m for m in group.sent if isinstance(m, AppendEntries) and m.target == B]
    group["2"].compact()
    group.sent.clear()
    for message in late:
        group.deliver(message)
    group.run()
    replies = [m for m in group.sent if isinstance(m, AppendEntriesReply)]
    assert {reply.success for reply in replies} == {True}
    assert group["2"].node.status().last_index == 6
    assert group["2"].machine == group["1"].machine


def test_a_restart_from_a_snapshot_goes_on_behind_it() -> None:
    group = Group(3)
    group.elect("1")
    for number in range(5):
        group.propose(b"%d" % number)
    group["2"].compact()
    group.crash("2")
    group.propose(b"meanwhile")
    group.restart("2")
    assert group["2"].node.status().last_applied == 6
    group.tick(3)
    assert group["2"].machine == group["1"].machine


def test_a_snapshot_records_the_configuration_in_force_at_its_index() -> None:
    """Not the one in force now: whoever restores it goes on with the entries behind it."""
    group = Group(3)
    leader = group.elect("1")
    group.propose(b"x")
    group.change(ChangeKind.ADD_LEARNER, "9")
    assert leader.node.snapshot_metadata_at(2).configuration == group.configuration
    assert leader.node.snapshot_metadata_at(3).configuration.learners == ("9",)
    group.isolate("1")
    group.change(ChangeKind.REMOVE, "9", at="1")
    assert leader.node.snapshot_metadata_at(3).configuration.learners == ("9",)


def test_a_member_that_gets_a_snapshot_gets_its_configuration() -> None:
    """The change lies below the snapshot: no entry will ever tell the member of it again."""
    group = Group(3)
    group.elect("1")
    group.isolate("3")
    group.change(ChangeKind.ADD_LEARNER, "9")
    group["1"].compact()
    group.heal()
    group.tick(3)
    assert any(isinstance(m, InstallSnapshot) for m in group.sent)
    assert group["3"].node.status().configuration.learners == ("9",)
    assert group["3"].node.status().configuration_index == 2


def test_a_snapshot_that_matches_the_log_keeps_the_configurations_behind_it() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"a")
    group["1"].compact()
    snapshot = group["1"].storage.snapshot()
    group.change(ChangeKind.ADD_LEARNER, "9")
    group.crash("2")
    group.restart("2")
    group.deliver(InstallSnapshot(source=A, target=B, term=1, snapshot=snapshot))
    assert group["2"].node.status().commit_index == 2
    assert group["2"].node.status().configuration.learners == ("9",)


def test_a_snapshot_records_the_term_of_its_last_entry() -> None:
    group = Group(3)
    group.elect("1")
    group.propose(b"x")
    group.elect("2")
    assert group.terms("1") == [0, 1, 1, 2]
    for index, term in ((1, 1), (2, 1), (3, 2)):
        assert group["1"].node.snapshot_metadata_at(index).last_included_term == term


def test_a_snapshot_that_matches_acknowledges_no_more_than_itself() -> None:
    """What follows it in this log may be another leader's."""
    group = Group(3)
    group.elect("1")
    group.propose(b"a")
    group["1"].compact()
    snapshot = group["1"].storage.snapshot()
    group.isolate("2")
    group.crash("2")
    group.restart("2")
    group["2"].node.step(
        AppendEntries(
            source=A,
            target=B,
            term=1,
            prev_log_index=2,
            prev_log_term=1,
            entries=(Entry(index=3, term=1, data=b"of an old leader"),),
            leader_commit=0,
        )
    )
    group.pump(group["2"])
    group.sent.clear()
    group["2"].node.step(InstallSnapshot(source=C, target=B, term=2, snapshot=snapshot))
    group.pump(group["2"])
    (reply,) = [message for message in group.sent if isinstance(message, InstallSnapshotReply)]
    assert (reply.match_index, group["2"].node.status().last_index) == (2, 3)


def test_a_late_acknowledgement_does_not_end_the_wait_for_a_snapshot() -> None:
    """It is of entries below the compacted log: sending on from there would only find out again
    that a snapshot is needed, and send the whole of it a second time."""
    group = Group(3)
    leader = group.elect("1")
    group.isolate("3")
    for number in range(10):
        group.propose(b"%d" % number)
    group["1"].compact()
    group.heal()
    group.drop = lambda message: isinstance(message, InstallSnapshot)
    group.tick(2)
    leader.node.step(
        AppendEntriesReply(
            source=C, target=A, term=1, success=True, prev_log_index=0, match_index=1
        )
    )
    assert peer(group, "3").state is ProgressState.SNAPSHOT
