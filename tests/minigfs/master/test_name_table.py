"""The table of a directory's names, against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.ids import FileId
from minigfs.master import name_table
from minigfs.master.name_table import NameTable

names = st.text(alphabet="ab-.é\U0001f600", min_size=1, max_size=3)
changes = st.lists(st.tuples(st.booleans(), names), max_size=120)


@given(changes=changes, start=names)
def test_table_behaves_as_a_sorted_dict_at_every_step(changes, start) -> None:
    small_blocks = name_table.BLOCK_NAMES_MAX
    name_table.BLOCK_NAMES_MAX = 3
    try:
        table, model = NameTable(), {}
        for number, (add, name) in enumerate(changes):
            before = list(table.items_from(""))
            old = table
            if add and name not in model:
                table = table.insert(name, FileId(number))
                model[name] = number
            elif not add and name in model:
                table = table.remove(name)
                del model[name]
            assert list(old.items_from("")) == before, "a change touched the table before it"
            assert len(table) == len(model)
            assert table.get(name) == model.get(name)
        by_bytes = sorted(model.items(), key=lambda item: item[0].encode())
        assert list(table.items_from("")) == by_bytes
        after = [item for item in by_bytes if item[0].encode() >= start.encode()]
        assert list(table.items_from(start)) == after
    finally:
        name_table.BLOCK_NAMES_MAX = small_blocks


def test_names_that_arrive_in_order_leave_full_blocks() -> None:
    table = NameTable()
    for number in range(10 * name_table.BLOCK_NAMES_MAX):
        table = table.insert(f"part-{number:05d}", FileId(number))
    assert len(table._blocks) == 10
