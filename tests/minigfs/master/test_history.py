"""A position is in a history if and only if that history went through it, forks included."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import ChunkHandle
from minigfs.master import commands
from minigfs.master.heartbeat_messages import HistoryPosition
from minigfs.master.history import TenureMark, contains, newest_position
from minigfs.master.snapshot import freeze_state, restore_state
from minigfs.master.transition import transition
from tests.minigfs.master.harness import Driver

MARKS = (TenureMark(1, 2, 11), TenureMark(4, 310, 44), TenureMark(5, 400, 55))


def position(term: int, index: int, nonce: int) -> HistoryPosition:
    return HistoryPosition(term=term, index=index, nonce=nonce)


def test_what_a_master_told_is_in_its_history_and_in_those_that_grew_from_it() -> None:
    for count in range(1, len(MARKS) + 1):
        told = newest_position(MARKS[:count], MARKS[count - 1].first_index + 7)
        assert told is not None
        assert contains(MARKS, told, commit_index=1_000)


def test_an_older_copy_does_not_have_what_was_told_after_it_was_made() -> None:
    later = position(4, 350, 44)
    assert not contains(MARKS[:1], later, 1_000)
    assert not contains(MARKS[:2], later, 349)
    assert contains(MARKS[:2], later, 350)


def test_a_fork_that_reached_the_same_term_and_index_is_told_apart() -> None:
    fork = (*MARKS[:2], TenureMark(5, 360, 56))
    assert not contains(fork, position(5, 400, 55), 1_000)
    assert not contains(fork, position(4, 370, 44), 1_000)
    assert contains(fork, position(4, 359, 44), 1_000)


def test_an_index_before_its_term_began_is_no_place_in_it() -> None:
    assert not contains(MARKS, position(4, 309, 44), 1_000)


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=20),
    cut=st.integers(0, 20),
    more=st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=20),
)
def test_no_copy_is_believed_by_who_has_seen_more_than_it_holds(
    steps: list[tuple[bool, int]], cut: int, more: list[tuple[bool, int]]
) -> None:
    """Masters tell a server each position; a copy made at some point goes its own way."""
    told: list[HistoryPosition] = []
    marks, commit, term = (TenureMark(1, 1, 1),), 1, 1
    copy, told_at_copy = (marks, commit, term), 0
    for number, (elects, entries) in enumerate(steps):
        if number == cut:
            copy, told_at_copy = (marks, commit, term), len(told)
        if elects:
            term += 1
            marks, commit = (*marks, TenureMark(term, commit + 1, 100 + number)), commit + 1
        commit += entries
        newest = newest_position(marks, commit)
        assert newest is not None
        told.append(newest)
    marks_copy, commit_copy, term_copy = copy
    for number, (_, entries) in enumerate([(True, 1), *more]):
        term_copy += 1
        mark = TenureMark(term_copy, commit_copy + 1, 500 + number)
        marks_copy, commit_copy = (*marks_copy, mark), commit_copy + entries
    assert all(contains(marks, seen, commit) for seen in told)
    if cut < len(steps):
        assert all(contains(marks_copy, seen, commit_copy) for seen in told[:told_at_copy])
        assert not any(contains(marks_copy, seen, commit_copy) for seen in told[told_at_copy:])


def test_the_marks_are_part_of_the_state_and_of_its_snapshot() -> None:
    driver = Driver()
    for mark in MARKS:
        driver.apply(commands.BeginTenure(9, mark.term, mark.first_index, mark.nonce))
    assert driver.state.tenures == MARKS
    restored = restore_state(list(freeze_state(driver.state)))
    assert restored.tenures == MARKS
    assert restored == driver.state


def test_garbage_knows_whether_it_was_ever_published_until_it_is_forgotten() -> None:
    driver = Driver()
    driver.write("/published", 2_000)
    abandoned = driver.open_file("/abandoned")
    (first,) = driver.allocate(abandoned, 0, 1)
    (second,) = driver.allocate(abandoned, 0, 1)
    driver.apply(commands.DiscardFiles(9, (abandoned,)))
    driver.apply(commands.Remove(9, "/published", False))
    assert set(driver.state.garbage) == {ChunkHandle(1), ChunkHandle(2), first, second}
    assert set(driver.state.never_published) == {first, second}
    assert restore_state(list(freeze_state(driver.state))) == driver.state
    state, _ = transition(driver.state, commands.ForgetGarbage(9, (first, ChunkHandle(1))))
    assert set(state.never_published) == {second}
