"""The leader's view of one member: the window of what is on the way, and where the match is."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from minigfs.raft.progress import Inflights, Progress, ProgressState


def replicating(*, count_max: int = 3, bytes_max: int = 100) -> Progress:
    progress = Progress(next_index=1, inflights=Inflights(count_max=count_max, bytes_max=bytes_max))
    progress.become_replicate()
    return progress


def test_an_acknowledgement_frees_the_window_up_to_and_with_its_index() -> None:
    progress = replicating(count_max=2)
    progress.sent(4, 10)
    progress.sent(7, 10)
    assert progress.inflights.full
    progress.acknowledged(3)
    assert progress.inflights.count == 2, "inside the first message: it is still on the way"
    progress.acknowledged(4)
    assert (progress.inflights.count, progress.inflights.full) == (1, False)
    progress.acknowledged(7)
    assert progress.inflights.count == 0


def test_acknowledged_bytes_leave_the_window() -> None:
    progress = replicating(bytes_max=100)
    progress.sent(1, 100)
    assert progress.inflights.full
    progress.acknowledged(1)
    assert (progress.inflights.size_bytes, progress.inflights.full) == (0, False)
    progress.sent(2, 60)
    progress.sent(3, 60)
    progress.become_probe()
    assert progress.inflights.size_bytes == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(0, 12))))
def test_the_window_holds_what_is_sent_and_not_acknowledged(
    steps: list[tuple[int, int, int]],
) -> None:
    window = Inflights(count_max=4, bytes_max=100)
    model: deque[tuple[int, int]] = deque()
    last = 0
    for entries, size_bytes, acknowledged in steps:
        if not window.full:
            last += entries
            window.add(last, size_bytes)
            model.append((last, size_bytes))
        window.free_to(acknowledged)
        model = deque(item for item in model if item[0] > acknowledged)
        assert window.count == len(model)
        assert window.size_bytes == sum(size for _, size in model)
        assert window.full == (len(model) >= 4 or window.size_bytes >= 100)


def test_a_late_acknowledgement_moves_nothing_back() -> None:
    progress = replicating()
    progress.sent(5, 10)
    progress.acknowledged(5)
    progress.acknowledged(2)
    assert (progress.match_index, progress.next_index) == (5, 6)


def test_a_success_older_than_the_match_does_not_end_probing() -> None:
    """It answers something sent before the connection was lost; the probe is still to be answered,
    and a pipeline started now would run into a member that is not there."""
    progress = replicating()
    progress.sent(5, 10)
    progress.acknowledged(5)
    progress.become_probe()
    progress.acknowledged(3)
    states = [progress.state]
    progress.acknowledged(5)
    states.append(progress.state)
    assert states == [ProgressState.PROBE, ProgressState.REPLICATE]


def test_a_rejected_probe_goes_on_right_behind_the_hint() -> None:
    progress = Progress(next_index=10, inflights=Inflights(count_max=3, bytes_max=100))
    progress.sent(9, 0)
    assert progress.rejected(9, 4)
    assert progress.next_index == 5
    progress.sent(4, 0)
    assert not progress.rejected(9, 1), "an answer to the probe before"
    assert progress.next_index == 5
    assert progress.rejected(4, 99), "a hint above the probe is no help: one step back"
    assert progress.next_index == 4
