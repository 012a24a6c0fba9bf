"""Every line of a file in exactly one range, whatever the ranges and the block size."""

import gzip
import threading
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.errors import UnreadableInput
from minimr.formats.blocks import Block, read_blocks
from minimr.formats.kept_input import KeptInput
from minimr.formats.storage import Storage
from minimr.formats.text_input import block_batch, count_lines, line_batch, split_lines
from minimr.messages import FileRange

CONTENT = st.one_of(
    st.lists(st.sampled_from([b"", b"a", b"\r", b"line\r", b"x" * 9, b"\xff\xfe\0"])).map(
        b"\n".join
    ),
    st.binary(max_size=60),
)
EXAMPLES = settings(max_examples=150)


def lines_of(content: bytes) -> list[bytes]:
    """The oracle: lines end at LF only, a rest without LF is a line."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def whole(path: Path, compression: str = "") -> FileRange:
    size = path.stat().st_size
    return FileRange(
        url=f"file://{path}", start=0, length=size, file_bytes=size, compression=compression
    )


def cut(path: Path, cuts: Sequence[int]) -> list[FileRange]:
    size = path.stat().st_size
    bounds = sorted({0, size, *(each for each in cuts if each < size)})
    return [
        FileRange(url=f"file://{path}", start=start, length=end - start, file_bytes=size)
        for start, end in pairwise(bounds)
    ]


def blocks_of(ranges: Sequence[FileRange], block_bytes: int) -> list[Block]:
    return list(read_blocks(ranges, Storage(), block_bytes=block_bytes))


def check_views_agree(block: Block) -> None:
    """Records, Arrow lines and Arrow blocks show the same lines; each knows where it is from."""
    lines = split_lines(block)
    assert line_batch(block).column("line").to_pylist() == lines
    assert count_lines(block) == len(lines)
    shown = block_batch(block).column("block")[0].as_py()
    assert lines_of(shown) == lines
    assert len(shown) == block.size_bytes


@EXAMPLES
@given(
    content=CONTENT, cuts=st.lists(st.integers(1, 60), max_size=5), block_bytes=st.integers(1, 40)
)
def test_each_line_is_in_the_range_in_which_it_begins(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cuts: list[int], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "in"
    path.write_bytes(content)
    found: list[bytes] = []
    for each in cut(path, cuts):
        begin = each.start
        for block in blocks_of([each], block_bytes):
            check_views_agree(block)
            url, offset = block.origin_of(0)
            assert url == f"file://{path}"
            assert begin <= offset < each.start + each.length or not each.length
            assert content[offset:].startswith(block_batch(block).column(0)[0].as_py())
            begin = offset + block.size_bytes
            found += split_lines(block)
    assert found == lines_of(content)


@EXAMPLES
@given(contents=st.lists(CONTENT, max_size=6), block_bytes=st.integers(1, 400))
def test_many_small_files_give_all_lines_and_know_where_each_is_from(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], block_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("small")
    for number, content in enumerate(contents):
        (directory / str(number)).write_bytes(content)
    found: list[bytes] = []
    for block in blocks_of([whole(directory / str(n)) for n in range(len(contents))], block_bytes):
        check_views_agree(block)
        at = 0
        for line in split_lines(block):
            url, offset = block.origin_of(at)
            file = contents[int(url.rpartition("/")[2])]
            assert file[offset : offset + len(line)] == line
            assert offset == 0 or file[offset - 1 : offset] == b"\n"
            at += len(line) + 1
            found.append(line)
    assert found == [line for content in contents for line in lines_of(content)]


def test_small_files_share_a_block(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"line\n")
    ranges = [whole(tmp_path / str(number)) for number in range(50)]
    assert len(blocks_of(ranges, 1 << 20)) == 1


def test_a_line_longer_than_many_blocks_and_ranges_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"first\n" + b"x" * 300_000 + b"\nlast")
    ranges = cut(path, range(1000, 300_000, 1000))
    found = [line for each in ranges for b in blocks_of([each], 64) for line in split_lines(b)]
    assert [len(line) for line in found] == [5, 300_000, 4]


@EXAMPLES
@given(
    members=st.lists(CONTENT, min_size=1, max_size=4),
    padding=st.integers(0, 3),
    block_bytes=st.integers(1, 100),
)
def test_gzip_members_are_one_text(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[bytes],
    padding: int,
    block_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("gz") / "in.gz"
    path.write_bytes(b"".join(map(gzip.compress, members)) + bytes(padding))
    blocks = blocks_of([whole(path, "gzip")], block_bytes)
    assert [x for block in blocks for x in split_lines(block)] == lines_of(b"".join(members))
    position = 0
    for block in blocks:
        assert block.origin_of(0) == (f"file://{path}", position)
        position += block.size_bytes
    assert sum(block.stored_bytes for block in blocks) <= path.stat().st_size


def test_gzip_cut_off_anywhere_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.gz"
    packed = gzip.compress(b"one line\n" * 20, mtime=0) + gzip.compress(b"and more\n")
    border = len(gzip.compress(b"one line\n" * 20, mtime=0))
    for length in [*range(border), *range(border + 1, len(packed))]:
        path.write_bytes(packed[:length])
        if length == 0:
            continue  # an empty range holds nothing to unpack
        with pytest.raises(UnreadableInput, match=r"in\.gz ends in the middle"):
            blocks_of([whole(path, "gzip")], 1 << 20)


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip at all",
        gzip.compress(b"text\n", mtime=0) + b"garbage",
        gzip.compress(b"text\n", mtime=0)[:-8] + bytes(8),
        zlib.compress(b"text\n"),
    ],
)
def test_damaged_gzip_is_an_error_that_names_the_file(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "in.gz"
    path.write_bytes(packed)
    with pytest.raises(UnreadableInput, match=r"in\.gz is damaged"):
        blocks_of([whole(path, "gzip")], 1 << 20)


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_file_that_shrank_since_planning_is_an_error(tmp_path: Path, length: int) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"x\n" * length)
    planned = whole(path)
    path.write_bytes(b"x\n" * (length - 1))
    with pytest.raises(UnreadableInput, match="when the job was planned"):
        blocks_of([planned], 1 << 10)


def test_what_was_appended_since_planning_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"one\ntw")
    planned = whole(path)
    path.write_bytes(b"one\ntwo\nthree\n")
    assert [x for block in blocks_of([planned], 4) for x in split_lines(block)] == [b"one", b"tw"]


def test_reading_stops_when_the_reader_does(tmp_path: Path) -> None:
    path = tmp_path / "in.gz"
    path.write_bytes(gzip.compress(b"line\n" * 100_000, mtime=0))
    blocks = read_blocks([whole(path, "gzip")], Storage(), block_bytes=100)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert not [each for each in threading.enumerate() if each.name == "read-ahead"]


def test_other_file_systems_are_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    content = b"".join(b"line %d\n" % number for number in range(1000))
    fs.pipe_file("/blocks/in", content)
    try:
        ranges = [
            FileRange(url="memory:///blocks/in", start=a, length=b - a, file_bytes=len(content))
            for a, b in pairwise([0, 1000, 1007, len(content)])
        ]
        blocks = [block for each in ranges for block in blocks_of([each], 64)]
        assert [x for block in blocks for x in split_lines(block)] == lines_of(content)
    finally:
        fs.rm("/blocks", recursive=True)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of all files that are opened."""
    urls: list[str] = []
    open_input = Storage.open_input

    def note(storage: Storage, url: str):
        urls.append(url)
        return open_input(storage, url)

    monkeypatch.setattr(Storage, "open_input", note)
    return urls


def test_splits_of_one_remote_file_open_it_once_and_read_the_same(opened: list[str]) -> None:
    content = b"".join(b"%05d\n" % number for number in range(200))
    store = fsspec.filesystem("memory")
    for name in ("one", "two"):
        store.pipe(f"/kept/{name}", content)
    kept = Storage(kept=KeptInput())

    def lines_between(name: str, start: int, end: int) -> list[bytes]:
        url = f"memory:///kept/{name}"
        piece = FileRange(url=url, start=start, length=end - start, file_bytes=len(content))
        return [
            line
            for block in read_blocks([piece], kept, block_bytes=1 << 20)
            for line in split_lines(block)
        ]

    bounds = [*range(0, 1200, 70), 1200]
    for name in ("one", "two"):
        found = [lines_between(name, start, end) for start, end in pairwise(bounds)]
        assert [line for lines in found for line in lines] == content.splitlines()
        backwards = [lines_between(name, start, end) for start, end in [*pairwise(bounds)][::-1]]
        assert backwards == found[::-1]
    assert opened == ["memory:///kept/one", "memory:///kept/two"]


def test_a_file_that_could_not_be_read_to_the_end_is_not_kept(opened: list[str]) -> None:
    fsspec.filesystem("memory").pipe("/kept/short", b"a\nb\n")
    kept = Storage(kept=KeptInput())
    longer = FileRange(url="memory:///kept/short", start=0, length=9, file_bytes=10)
    for _ in range(2):
        with pytest.raises(UnreadableInput):
            list(read_blocks([longer], kept, block_bytes=1 << 20))
    assert len(opened) == 2
