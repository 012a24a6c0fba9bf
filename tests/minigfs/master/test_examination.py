"""The pages of an examination are, together, every chunk of every file, each once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.master import examination
from minigfs.master.examine_messages import Examine, ExaminedChunk
from minigfs.master.membership import Membership
from minigfs.master.state import FileInode
from tests.minigfs.master.harness import CHUNK_BYTES, SERVERS, Driver

FILES = st.dictionaries(
    st.sampled_from(["/a", "/a-b", "/d/a", "/d/b/c", "/d/b-c", "/d/b/d/e", "/e"]),
    st.integers(0, 7),
)


def pages(driver: Driver, path: str) -> list[tuple[str, ExaminedChunk | None]]:
    found: list[tuple[str, ExaminedChunk | None]] = []
    request = Examine(path=path)
    for _ in range(100):
        page = examination.examine_page(driver.state, Membership(), request, 0)
        for file in page.files:
            found += [(file.status.path, chunk) for chunk in file.chunks or (None,)]
        if not page.more:
            return found
        request = Examine(path=path, start_after=page.start_after, first_index=page.first_index)
    raise AssertionError("it does not end")


@settings(max_examples=60)
@given(files=FILES, chunks_max=st.integers(1, 9), entries_max=st.integers(1, 9))
def test_every_chunk_comes_once_however_small_the_pages_are(
    files: dict[str, int], chunks_max: int, entries_max: int
) -> None:
    driver = Driver()
    for path, chunks in files.items():
        driver.write(path, chunks * CHUNK_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "CHUNKS_PER_PAGE_MAX", chunks_max)
        patch.setattr(examination, "_ENTRIES_PER_PAGE_MAX", entries_max)
        found = pages(driver, "/")
    expected = [
        (path, index)
        for path in sorted(files)
        for index in (range(files[path]) if files[path] else (None,))
    ]
    assert [(path, chunk and chunk.index) for path, chunk in found] == expected
    for path, chunk in found:
        if chunk is not None:
            inode = next(
                inode
                for inode in driver.state.inodes.values()
                if isinstance(inode, FileInode) and chunk.handle in inode.chunks
            )
            assert path.endswith(inode.name)
            assert chunk.replicas == SERVERS[:2]
            assert chunk.length_bytes == CHUNK_BYTES


def test_a_file_that_is_replaced_between_two_pages_does_not_stop_them() -> None:
    driver = Driver()
    driver.write("/a", 5 * CHUNK_BYTES)
    driver.write("/b", CHUNK_BYTES)
    driver.write("/a", CHUNK_BYTES)
    request = Examine(path="/", start_after="/a", first_index=3)
    page = examination.examine_page(driver.state, Membership(), request, 0)
    assert [file.status.path for file in page.files] == ["/b"]
    assert not page.more


def test_a_server_that_was_never_heard_of_is_named_as_such() -> None:
    driver = Driver()
    driver.write("/a", CHUNK_BYTES)
    page = examination.examine_page(driver.state, Membership(), Examine(path="/a"), 0)
    assert {server.chunkserver_id for server in page.servers} == set(SERVERS[:2])
    assert not any(server.alive or server.address for server in page.servers)
