"""Pages of large directories."""

import time

from msgspec.structs import replace

from minigfs.ids import FileId
from minigfs.master.listing import PAGE_BYTES_MAX, find_page, list_page
from minigfs.master.name_table import NameTable
from minigfs.master.state import ROOT_ID, DirectoryInode, FileInode, initial_state


def large_directory(names: list[str]):
    """A state whose root has these files, without the cost of publishing each."""
    state = initial_state()
    table = NameTable()
    inodes = state.inodes.mutate()
    for number, name in enumerate(names):
        file_id = FileId(number + 2)
        table = table.insert(name, file_id)
        inodes[file_id] = FileInode(file_id, ROOT_ID, name, 0, 0, 3, 0, "", ())
    inodes[ROOT_ID] = DirectoryInode(ROOT_ID, ROOT_ID, "", 0, 0, table)
    return replace(state, inodes=inodes.finish())


def all_pages(page_of, state, limit: int) -> list[list[str]]:
    pages, after, more = [], "", True
    while more:
        page = page_of(state, "/", after, limit)
        pages.append([entry.path for entry in page.entries])
        after, more = pages[-1][-1], page.more
    return pages


def test_a_directory_of_100_000_entries_pages_in_order_and_fast() -> None:
    names = [f"part-{i * 7919 % 100_000:05d}" for i in range(100_000)]
    state = large_directory(names)
    for page_of in (list_page, find_page):
        started = time.process_time()
        pages = all_pages(page_of, state, 1_000)
        seconds = time.process_time() - started
        assert [len(page) for page in pages] == [1_000] * 100
        assert [path for page in pages for path in page] == sorted(f"/{n}" for n in names)
        assert seconds < 3, "a page must not cost what lies before it"


def test_a_page_of_long_paths_is_cut_before_it_outgrows_a_frame() -> None:
    names = [f"{i:05d}" + "x" * 250 for i in range(9_000)]
    pages = all_pages(list_page, large_directory(names), 10_000)
    assert len(pages) > 1
    assert sum(len(page) for page in pages) == 9_000
    assert max(sum(map(len, page)) for page in pages) < PAGE_BYTES_MAX


def test_a_limit_of_nothing_still_makes_progress() -> None:
    state = large_directory(["a", "b"])
    assert all_pages(list_page, state, 0) == [["/a"], ["/b"]]
