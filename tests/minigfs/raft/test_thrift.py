"""A thrifty leader: who is sent new entries at once, who later, and who takes a laggard's place."""

import dataclasses

import pytest

from minigfs.raft import ChangeKind, NodeId, RaftConfig
from minigfs.raft.messages import AppendEntries
from tests.minigfs.raft.group import Group


def thrifty(config: RaftConfig) -> RaftConfig:
    return dataclasses.replace(config, thrifty=True)


def settled(size: int, leader: str = "1") -> Group:
    """A group in which everybody has everything."""
    group = Group(size, configure=thrifty)
    group.elect(leader)
    tell_rest(group)
    return group


def tell_rest(group: Group) -> None:
    group.leader().node.tell_rest()
    group.run()


def holders(group: Group, data: bytes) -> str:
    """The members that have a command, names joined."""
    return "".join(
        member.id
        for member in group.alive
        for index in range(member.node.state.log.first_index, member.node.state.log.last_index + 1)
        if member.node.state.log.entries(index, index, 1)[0].data == data
    )


@pytest.mark.parametrize(
    ("size", "leader", "at_once"),
    [(1, "1", "1"), (2, "1", "12"), (3, "1", "12"), (3, "2", "12"), (3, "3", "13"), (4, "4", "124"),
     (5, "1", "123")],
)  # fmt: skip
def test_a_majority_is_sent_entries_at_once_and_commits_them(
    size: int, leader: str, at_once: str
) -> None:
    group = settled(size, leader)
    group.propose(b"new")
    assert holders(group, b"new") == at_once
    assert group[leader].machine == [b"new"]


def test_the_rest_is_sent_a_run_of_entries_in_one_message() -> None:
    group = settled(3)
    for number in range(5):
        group.propose(b"%d" % number)
    assert group.leader().node.has_untold
    assert holders(group, b"4") == "12"
    sent_before = len(group.sent)
    tell_rest(group)
    assert not group.leader().node.has_untold
    runs = [m for m in group.sent[sent_before:] if isinstance(m, AppendEntries) and m.entries]
    assert [(run.target, len(run.entries)) for run in runs] == [("3", 5)]
    assert group["3"].node.state.log.last_index == group["1"].node.state.log.last_index


def test_a_member_that_hangs_holds_a_commit_up_until_the_rest_is_told() -> None:
    group = settled(3)
    group.isolate("2")
    group.propose(b"new", at="1")
    assert group["1"].machine == []
    tell_rest(group)
    assert group["1"].machine == [b"new"]


def test_who_does_not_keep_up_gives_its_place_to_another_and_gets_it_back() -> None:
    group = settled(3)
    group.isolate("2")
    group.propose(b"first")
    tell_rest(group)
    group.propose(b"second")
    tell_rest(group)
    group.propose(b"third")
    assert group["1"].machine == [b"first", b"second", b"third"], "nobody waits for 2 any more"
    group.heal()
    group.tick(3)
    tell_rest(group)
    tell_rest(group)
    group.propose(b"fourth")
    assert holders(group, b"fourth") == "12"


def test_everybody_is_sent_everything_where_too_few_keep_up() -> None:
    group = settled(5)
    for name in "235":
        group.isolate(name)
    for number in range(3):
        group.propose(b"%d" % number, at="1")
        tell_rest(group)
    sent_before = len(group.sent)
    group.propose(b"last", at="1")
    appends = [m for m in group.sent[sent_before:] if isinstance(m, AppendEntries) and m.entries]
    assert {append.target for append in appends} == {"2", "3", "4", "5"}


def test_a_leader_whose_disk_does_not_keep_up_counts_on_two_others() -> None:
    group = settled(3)
    group.slow_disks.add(NodeId("1"))
    group.propose(b"first")
    assert group["1"].node.status().commit_index < group["1"].node.state.log.last_index
    for _ in range(2):
        tell_rest(group)
    position = group.propose(b"second")
    assert holders(group, b"second") == "123"
    assert group["1"].node.status().commit_index == position.index


def test_a_full_window_is_no_place_for_new_entries() -> None:
    group = Group(
        3, configure=lambda config: dataclasses.replace(thrifty(config), inflight_count_max=1)
    )
    group.elect("1")
    tell_rest(group)
    group.drop = lambda message: message.source == "2"
    group.propose(b"first", at="1")
    group.propose(b"second", at="1")
    assert "3" in holders(group, b"second")


def test_a_member_that_does_not_vote_is_told_with_the_rest() -> None:
    group = settled(3)
    group.add("0")
    group.change(ChangeKind.ADD_LEARNER, "0")
    tell_rest(group)
    tell_rest(group)
    group.propose(b"new")
    assert holders(group, b"new") == "12"
    tell_rest(group)
    assert sorted(holders(group, b"new")) == ["0", "1", "2", "3"]


def test_a_leader_that_hands_over_sends_the_target_everything() -> None:
    group = settled(3)
    group.propose(b"new")
    assert holders(group, b"new") == "12"
    group["1"].node.transfer_leadership(NodeId("3"))
    group.run()
    assert group.leader().id == "3"


def test_the_successor_by_vote_has_what_was_committed() -> None:
    """The one that was to be told later cannot win against what it does not have (5.4.1)."""
    group = settled(3)
    group.propose(b"new")
    group.crash("1")
    group["3"].node.campaign()
    group.run()
    assert not group["3"].is_leader
    group.elect("2")
    assert group["3"].machine == [b"new"]
