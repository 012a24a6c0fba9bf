"""Where a member listens: its own word, then the log's, then the directory's."""

from minigfs.raft import NodeId
from minigfs.replication.addresses import MemberAddresses

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def test_a_members_own_word_counts_most_and_the_directorys_least() -> None:
    logged = {A: "log:1", B: "log:2"}
    addresses = MemberAddresses({A: "old:1", B: "old:2", C: "old:3"}, lambda: logged)
    addresses.says(A, "new:1")
    assert [addresses.get(member) for member in (A, B, C)] == ["new:1", "log:2", "old:3"]
    assert addresses.get(NodeId("d")) is None


def test_an_entry_on_its_way_into_the_log_does_not_undo_what_the_member_said_meanwhile() -> None:
    logged: dict[NodeId, str] = {}
    addresses = MemberAddresses({A: "old:1"}, lambda: logged)
    addresses.says(A, "new:1")
    logged[A] = "old:1"  # proposed before it moved
    assert addresses.get(A) == "new:1"
    assert addresses.unlogged([A]) == {A: "new:1"}, "it is logged next"
    logged[A] = "new:1"
    assert addresses.unlogged([A]) == {}


def test_only_what_is_known_is_logged() -> None:
    addresses = MemberAddresses({A: "old:1"}, dict)
    assert addresses.unlogged([A, B]) == {A: "old:1"}
