"""Sets of chunk handles, against Python's own."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import ChunkHandle
from minigfs.master.handle_set import HandleSet

handles = st.integers(0, 2_000).map(ChunkHandle) | st.integers(0, 1 << 63).map(ChunkHandle)
steps = st.lists(st.tuples(st.sampled_from(("add", "discard", "take")), handles))


@given(first=st.lists(handles), steps=steps)
def test_whatever_is_done_to_it_it_holds_what_a_set_holds(
    first: list[ChunkHandle], steps: list[tuple[str, ChunkHandle]]
) -> None:
    ours, model = HandleSet(first), set(first)
    for step, handle in steps:
        if step == "add":
            ours.add(handle)
            model.add(handle)
        elif step == "discard":
            ours.discard(handle)
            model.discard(handle)
        else:
            count = min(handle % 300, len(model))
            taken = ours.take(count)
            assert len(taken) >= count
            assert len(set(taken)) == len(taken)
            assert model.issuperset(taken)
            model.difference_update(taken)
        assert (handle in ours) == (handle in model)
        assert len(ours) == len(model)
    assert sorted(ours) == sorted(model)
    assert ours == model


def test_what_is_taken_and_put_back_comes_last() -> None:
    ours = HandleSet(map(ChunkHandle, range(1_000)))
    met: set[ChunkHandle] = set()
    for _ in range(5):
        taken = ours.take(200)
        met.update(taken)
        ours.update(taken)
    assert len(met) == len(ours) == 1_000


def test_a_walk_meets_what_stays_once_whatever_changes_meanwhile() -> None:
    ours = HandleSet(map(ChunkHandle, range(3_000)))
    met: list[ChunkHandle] = []
    for handle in ours:
        met.append(handle)
        ours.discard(handle)  # done with
        ours.discard(ChunkHandle(handle + 1_000))
        ours.add(ChunkHandle(handle + 1_000))
        ours.add(ChunkHandle(10_000 + handle))
    assert [handle for handle in met if handle < 3_000] == list(range(3_000))
    assert len(met) == len(set(met))
