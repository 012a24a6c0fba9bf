"""What an open chunk is sealed with: every acknowledged byte, whoever answers."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import ChunkserverId
from minigfs.master.append_messages import FrozenReplica
from minigfs.master.leases import agreeing, enough_answers, length_to_keep

A, B, C = (ChunkserverId(name) for name in "abc")
MISSING = FrozenReplica(is_here=False)


def holds(length: int, committed: int = 0) -> FrozenReplica:
    return FrozenReplica(is_here=True, length_bytes=length, committed_bytes=committed)


def doubtful(length: int) -> FrozenReplica:
    return FrozenReplica(is_here=True, length_bytes=length, is_doubtful=True)


def test_two_of_three_members_decide_while_three_live_but_not_one() -> None:
    assert enough_answers(3, {A: holds(1), B: holds(1)}, 3)
    assert not enough_answers(3, {A: holds(1)}, 3)


def test_one_member_decides_when_nobody_else_lives_or_ever_was() -> None:
    assert enough_answers(3, {A: holds(1)}, 1)
    assert enough_answers(1, {A: holds(1)}, 1)


def test_a_chunk_nobody_has_is_given_up_only_if_all_members_say_so() -> None:
    assert enough_answers(3, {A: MISSING, B: MISSING, C: MISSING}, 3)
    assert not enough_answers(3, {A: MISSING, B: MISSING}, 0)
    assert length_to_keep({A: MISSING, B: MISSING, C: MISSING}) == 0


def test_members_that_have_lost_it_are_not_waited_for() -> None:
    assert enough_answers(3, {A: MISSING, B: MISSING, C: holds(1)}, 3)
    assert enough_answers(3, {A: MISSING, C: holds(1)}, 2)
    assert not enough_answers(3, {A: MISSING, C: holds(1)}, 3)


def test_a_member_in_doubt_decides_nothing_while_another_may_know_better() -> None:
    assert not enough_answers(3, {A: doubtful(10)}, 1)
    assert enough_answers(3, {A: doubtful(10), B: holds(30)}, 2)
    assert enough_answers(3, {A: doubtful(10), B: doubtful(20), C: doubtful(10)}, 3)
    assert enough_answers(3, {A: doubtful(10), B: doubtful(10)}, 2), "a power cut, and C is gone"
    assert not enough_answers(3, {A: doubtful(10), B: doubtful(10)}, 3)
    assert length_to_keep({A: doubtful(10), B: holds(30)}) == 30
    assert length_to_keep({A: doubtful(40), B: holds(30)}) == 30
    assert length_to_keep({A: doubtful(10), B: doubtful(20), C: doubtful(10)}) == 20


def test_the_longest_state_that_two_members_have_is_kept() -> None:
    assert length_to_keep({A: holds(30), B: holds(30), C: holds(20)}) == 30
    assert length_to_keep({A: holds(30), B: holds(20)}) == 20
    assert length_to_keep({A: holds(30)}) == 30


def test_a_member_that_lost_acknowledged_bytes_does_not_count() -> None:
    assert length_to_keep({A: holds(30, 30), B: holds(10)}) == 30
    assert length_to_keep({A: holds(30, 30), B: holds(30), C: holds(10)}) == 30


def test_members_that_differ_from_most_are_left_out() -> None:
    assert agreeing((A, B, C), {A: 1, B: 2, C: 2}) == ((B, C), 2)
    assert agreeing((A, B, C), {C: 5, A: 5}) == ((A, C), 5)
    assert agreeing((A, B), {A: 1, B: 2}) == ((A,), 1)


@given(st.data())
def test_whoever_answers_no_acknowledged_byte_is_cut(data: st.DataObject) -> None:
    """Members have a prefix of the primary's order; acknowledged is what all of them had when the
    first was frozen."""
    lengths = data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=4))
    acknowledged = min(lengths)
    members = [ChunkserverId(str(i)) for i in range(len(lengths))]
    answers = {
        member: holds(length, data.draw(st.integers(0, acknowledged)))
        for member, length in zip(members, lengths, strict=True)
        if data.draw(st.booleans())
    }
    if not answers or not enough_answers(len(members), answers, len(answers)):
        return
    kept = length_to_keep(answers)
    assert kept >= acknowledged
    assert any(answer.length_bytes >= kept for answer in answers.values())
