"""Less on a disk than was acknowledged is an old copy; everything else is a member that is late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import MemberRolledBack
from minigfs.raft import NodeId
from minigfs.replication.old_copies import Acknowledgements

MEMBER = NodeId("c")
POSITIONS = st.tuples(st.integers(1, 4), st.integers(1, 30))


def test_who_acknowledged_nothing_may_have_any_log() -> None:
    known = Acknowledgements()
    known.note(3, {NodeId("b"): 7, MEMBER: 0})
    known.check(MEMBER, 0, 0)


@pytest.mark.parametrize(("term", "index"), [(2, 100), (3, 9), (0, 0)])
def test_an_earlier_term_or_a_shorter_log_in_the_same_term_is_an_old_copy(term, index) -> None:
    known = Acknowledgements()
    known.note(3, {MEMBER: 10})
    with pytest.raises(MemberRolledBack, match=r"entry 10 of term 3.*old copy"):
        known.check(MEMBER, term, index)


@pytest.mark.parametrize(("term", "index"), [(3, 10), (3, 11), (4, 2)])
def test_what_a_later_leader_has_overridden_is_no_old_copy(term, index) -> None:
    known = Acknowledgements()
    known.note(3, {MEMBER: 10})
    known.check(MEMBER, term, index)


@given(st.lists(POSITIONS, min_size=1), POSITIONS)
def test_in_whatever_order_it_is_told_the_latest_counts(told, disk) -> None:
    known = Acknowledgements()
    for term, index in told:
        known.note(term, {MEMBER: index})
    if disk < max(told):
        with pytest.raises(MemberRolledBack):
            known.check(MEMBER, *disk)
    else:
        known.check(MEMBER, *disk)
