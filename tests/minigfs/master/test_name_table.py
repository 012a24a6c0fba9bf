"""The table of a directory's names, against a plain dict."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import FileId
from minigfs.master import name_table
from minigfs.master.name_table import NameTable

names = st.text(alphabet="ab-.é\U0001f600", min_size=1, max_size=3)
changes = st.lists(st.tuples(st.sampled_from(["add", "remove", "restore"]), names), max_size=120)


@pytest.fixture(scope="module", autouse=True)
def _small_nodes() -> Iterator[None]:
    """So that a hundred names make a tree of four levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name_table, "BLOCK_NAMES_MAX", 3)
        patch.setattr(name_table, "BRANCH_NODES_MAX", 3)
        yield


@given(changes=changes, start=names)
def test_table_behaves_as_a_sorted_dict_at_every_step(changes, start) -> None:
    table, model = NameTable(), {}
    for number, (change, name) in enumerate(changes):
        before = list(table.items_from(""))
        old = table
        if change == "add" and name not in model:
            table = table.insert(name, FileId(number))
            model[name] = number
        elif change == "remove" and name in model:
            table = table.remove(name)
            del model[name]
        assert list(old.items_from("")) == before, "a change touched the table before it"
        assert len(table) == len(model)
        assert table.get(name) == model.get(name)
    by_bytes = sorted(model.items(), key=lambda item: item[0].encode())
    assert list(table.items_from("")) == by_bytes
    after = [item for item in by_bytes if item[0].encode() >= start.encode()]
    assert list(table.items_from(start)) == after
    assert all(table.get(name) == number for name, number in model.items())


@given(changes=changes)
def test_a_restored_table_goes_on_with_the_same_blocks(changes) -> None:
    table = restored = NameTable()
    for number, (change, name) in enumerate(changes):
        if change == "restore":
            restored = NameTable.from_blocks(restored.blocks())
        elif change == "add" and table.get(name) is None:
            table = table.insert(name, FileId(number))
            restored = restored.insert(name, FileId(number))
        elif change == "remove" and table.get(name) is not None:
            table, restored = table.remove(name), restored.remove(name)
        assert restored == table
    blocks = list(table.blocks())
    assert all(names for names, _ in blocks)
    assert [table.block_at(index) for index in range(len(blocks) + 1)] == [*blocks, None]


@given(st.integers(0, 60))
def test_blocks_are_added_behind_and_taken_from_the_front(count) -> None:
    blocks = [((f"{n:03}a", f"{n:03}b"), (FileId(2 * n), FileId(2 * n + 1))) for n in range(count)]
    table = NameTable()
    for number, block in enumerate(blocks):
        table = table.with_block(*block)
        assert len(table) == 2 * number + 2
        assert table.block_at(number) == block
    assert table == NameTable.from_blocks(blocks)
    for number, (_, ids) in enumerate(blocks):
        taken, table = table.without_first_block()
        assert taken == ids
        assert list(table.blocks()) == blocks[number + 1 :]
        assert len(table) == 2 * (count - number - 1)
    assert table.without_first_block() == ((), table)
    assert table == NameTable()


def test_tables_differ_if_their_names_ids_or_blocks_do() -> None:
    table = NameTable().insert("a", FileId(1)).insert("b", FileId(2))
    assert table != NameTable().insert("a", FileId(1)).insert("b", FileId(3))
    assert table != NameTable().insert("a", FileId(1)).insert("c", FileId(2))
    assert table != NameTable.from_blocks([(("a",), (FileId(1),)), (("b",), (FileId(2),))])
    assert table != "ab"


def test_names_that_arrive_in_order_leave_full_blocks() -> None:
    table = NameTable()
    for number in range(10 * name_table.BLOCK_NAMES_MAX):
        table = table.insert(f"part-{number:05d}", FileId(number))
    assert len(list(table.blocks())) == 10
