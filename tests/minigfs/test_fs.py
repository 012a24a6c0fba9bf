"""What our file system promises beyond fsspec's contract: outages show, files appear whole."""

import gzip
import io
import os
import pickle
import threading
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from minigfs.cluster import ClusterLayout
from minigfs.errors import (
    DirectoryNotEmpty,
    FileExists,
    FileMissing,
    InvalidConfig,
    IsDirectory,
    NotDirectory,
    PreconditionFailed,
    Unreachable,
)
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024  # of the shared cluster, see conftest.py
BIG = os.urandom(3 * CHUNK_BYTES + 12_345)  # four chunks, the last one partial


@pytest.fixture
def fs(cluster: ClusterLayout) -> MinigfsFileSystem:
    return MinigfsFileSystem(home=str(cluster.home))


@pytest.fixture
def root(fs: MinigfsFileSystem) -> Iterator[str]:
    path = f"/fs-{uuid.uuid4().hex}"
    fs.makedirs(path)
    yield path
    fs.rm(path, recursive=True)


class Boom(Exception):
    pass


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("minigfs:///a/b", "/a/b"),
        ("minigfs://127.0.0.1:7001/a/b/", "/a/b"),
        ("/a//b/", "/a/b"),
        ("a/b", "/a/b"),
        ("minigfs:///", "/"),
        ("minigfs://", "/"),
        ("", "/"),
    ],
)
def test_every_form_of_a_path_means_one_path(given: str, path: str) -> None:
    assert MinigfsFileSystem._strip_protocol(given) == path
    assert MinigfsFileSystem._strip_protocol(path) == path


def test_a_url_can_name_the_masters(cluster: ClusterLayout, root: str) -> None:
    master = next(iter(MinigfsFileSystem(home=str(cluster.home)).client.config.masters))
    options = {"token_file": str(cluster.token_file)}
    with fsspec.open(f"minigfs://{master}{root}/a", "wb", **options) as file:
        file.write(b"by url")
    with fsspec.open(f"minigfs://{master}{root}/a", "rb", **options) as file:
        assert file.read() == b"by url"


def test_a_url_with_two_slashes_is_answered_with_the_right_one() -> None:
    with pytest.raises(InvalidConfig, match="minigfs:///logs/a"):
        fsspec.open("minigfs://logs/a", "rb")


def test_the_protocol_is_registered_by_the_installed_package() -> None:
    assert fsspec.get_filesystem_class("minigfs") is MinigfsFileSystem


# -- a file appears whole or not at all -----------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one byte", "four chunks"])
def test_what_is_written_is_read(fs: MinigfsFileSystem, root: str, content: bytes) -> None:
    with fs.open(f"{root}/f", "wb") as file:
        file.write(content)
    with fs.open(f"{root}/f", "rb") as file:
        assert (file.size, file.read()) == (len(content), content)
    assert fs.info(f"{root}/f")["size"] == len(content)


def test_nothing_is_visible_before_close(fs: MinigfsFileSystem, root: str) -> None:
    file = fs.open(f"{root}/f", "wb")
    file.write(BIG)
    file.flush()
    assert not fs.exists(f"{root}/f")
    assert fs.ls(root) == []
    file.close()
    assert fs.cat_file(f"{root}/f") == BIG


def _write_by_open(fs: MinigfsFileSystem, path: str) -> None:
    with fs.open(path, "wb") as file:
        file.write(BIG)
        raise Boom


def _write_text(fs: MinigfsFileSystem, path: str) -> None:
    with fs.open(path, "w") as file:
        file.write("new")
        raise Boom


def _write_compressed(fs: MinigfsFileSystem, path: str) -> None:
    with fs.open(path, "wb", compression="gzip") as file:
        file.write(BIG)
        raise Boom


def _write_by_fsspec_open(fs: MinigfsFileSystem, path: str) -> None:
    with fsspec.open(f"minigfs://{path}", "wt", **fs.storage_options) as file:
        file.write("new")
        raise Boom


def _write_and_close_in_finally(fs: MinigfsFileSystem, path: str) -> None:
    file = fs.open(path, "wb")
    try:
        file.write(BIG)
        raise Boom
    finally:
        file.close()


def _write_through_arrow(fs: MinigfsFileSystem, path: str) -> None:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    with PyFileSystem(FSSpecHandler(fs)).open_output_stream(path) as stream:
        stream.write(BIG)
        raise Boom


@pytest.mark.parametrize(
    "write",
    [
        _write_by_open,
        _write_text,
        _write_compressed,
        _write_by_fsspec_open,
        _write_and_close_in_finally,
        _write_through_arrow,
    ],
)
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_while_writing_leaves_the_destination_unchanged(
    fs: MinigfsFileSystem, root: str, write: object, before: bytes | None
) -> None:
    path = f"{root}/f"
    if before is not None:
        fs.pipe_file(path, before)
    with pytest.raises(Boom):
        write(fs, path)  # type: ignore[operator]
    assert (fs.cat_file(path) if fs.exists(path) else None) == before


def test_a_file_written_while_an_exception_is_handled_is_published(
    fs: MinigfsFileSystem, root: str
) -> None:
    try:
        raise Boom
    except Boom:
        with fs.open(f"{root}/report", "wb") as file:
            file.write(b"went wrong")
    assert fs.cat_file(f"{root}/report") == b"went wrong"


def test_a_with_block_that_ends_well_publishes_whatever_is_handled_around_it(
    fs: MinigfsFileSystem, root: str
) -> None:
    def writing() -> Iterator[None]:
        with fs.open(f"{root}/f", "wb") as file:
            file.write(b"whole")
            yield

    writer = writing()
    next(writer)
    try:
        raise Boom
    except Boom:
        next(writer, None)
    assert fs.cat_file(f"{root}/f") == b"whole"


def test_commit_publishes_from_inside_an_except_clause(fs: MinigfsFileSystem, root: str) -> None:
    file = fs.open(f"{root}/f", "wb")
    file.write(b"as far as we came")
    try:
        raise Boom
    except Boom:
        file.commit()
    assert fs.cat_file(f"{root}/f") == b"as far as we came"
    assert file.closed


def test_a_dropped_file_is_never_published(fs: MinigfsFileSystem, root: str) -> None:
    file = fs.open(f"{root}/f", "wb")
    file.write(BIG)
    del file
    assert not fs.exists(f"{root}/f")


def test_a_transaction_publishes_at_its_end_or_not_at_all(fs: MinigfsFileSystem, root: str) -> None:
    with fs.transaction:
        fs.pipe_file(f"{root}/a", b"a")
        assert not fs.exists(f"{root}/a")
    assert fs.cat_file(f"{root}/a") == b"a"
    with pytest.raises(Boom), fs.transaction:  # noqa: PT012 - the end of the block is tested
        fs.pipe_file(f"{root}/b", b"b")
        raise Boom
    assert not fs.exists(f"{root}/b")


def test_the_files_of_a_transaction_appear_together_or_not_at_all(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/taken", b"before")
    with pytest.raises(FileExistsError), fs.transaction:  # noqa: PT012 - its end is what fails
        fs.pipe_file(f"{root}/first", b"first")
        with fs.open(f"{root}/later-taken", "xb") as file:
            file.write(b"mine")
        MinigfsFileSystem(home=fs.storage_options["home"], timeout_ms=9_000).pipe_file(
            f"{root}/later-taken", b"theirs"
        )
    assert not fs.exists(f"{root}/first")
    assert fs.cat_file(f"{root}/later-taken") == b"theirs"
    with fs.transaction as transaction:
        fs.pipe_file(f"{root}/first", b"first")
        transaction.change.rename(f"{root}/taken", f"{root}/moved")
        transaction.change.require_missing(f"{root}/moved")
    assert fs.cat([f"{root}/first", f"{root}/moved"]) == {
        f"{root}/first": b"first",
        f"{root}/moved": b"before",
    }
    fs.pipe_file(f"{root}/after", b"no transaction any more")
    assert fs.cat_file(f"{root}/after") == b"no transaction any more"


def test_a_copy_shares_the_bytes_and_nothing_else(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a/f", BIG)
    fs.cp_file(f"{root}/a/f", f"{root}/new/place/f")
    fs.clone(f"{root}/a", f"{root}/b")
    fs.pipe_file(f"{root}/a/f", b"changed")
    assert fs.cat_file(f"{root}/new/place/f") == fs.cat_file(f"{root}/b/f") == BIG
    with pytest.raises(FileMissing):
        fs.clone(f"{root}/none", f"{root}/c/d")
    assert not fs.exists(f"{root}/c")


def test_compressed_files_are_closed_whole(fs: MinigfsFileSystem, root: str) -> None:
    with fs.open(f"{root}/f.gz", "wb", compression="infer") as file:
        file.write(BIG)
    assert gzip.decompress(fs.cat_file(f"{root}/f.gz")) == BIG
    with fs.open(f"{root}/f.gz", "rb", compression="infer") as file:
        assert file.read() == BIG
    with fs.open(f"{root}/t.gz", "w", compression="gzip", encoding="utf-8") as file:
        file.write("zähl\n")
    assert gzip.decompress(fs.cat_file(f"{root}/t.gz")) == "zähl\n".encode()


def test_exclusive_creation_is_decided_by_the_master(fs: MinigfsFileSystem, root: str) -> None:
    first, second = fs.open(f"{root}/f", "xb"), fs.open(f"{root}/f", "xb")
    first.write(b"first")
    second.write(b"second")
    first.close()
    with pytest.raises(FileExists):
        second.close()
    with pytest.raises(FileExistsError):
        fs.open(f"{root}/f", "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{root}/f", b"third", mode="create")
    assert fs.cat_file(f"{root}/f") == b"first"


def test_changes_at_any_place_of_a_file_appear_when_it_is_closed(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    expected = bytearray(BIG)
    with fs.open(f"{root}/f", "r+b") as file:
        assert (file.read(10), file.tell()) == (BIG[:10], 10)
        for offset in (0, CHUNK_BYTES - 3, len(BIG) - 2):
            file.seek(offset)
            file.write(b"changed")
            expected[offset : offset + 7] = b"changed"
        file.flush()
        assert fs.cat_file(f"{root}/f") == BIG
    assert fs.cat_file(f"{root}/f") == expected
    with fs.open(f"{root}/f", "r+b") as file:
        file.truncate(5)
    assert fs.cat_file(f"{root}/f") == expected[:5]
    with fs.open(f"{root}/z.zip", "w+b") as file, zipfile.ZipFile(file, "w") as packed:
        packed.writestr("name", "content")
    with fs.open(f"{root}/z.zip", "rb") as file:
        assert zipfile.ZipFile(file).read("name") == b"content"
    with fs.open(f"{root}/t", "w") as file:
        file.write("one\ntwo\n")
    with fs.open(f"{root}/t", "r+") as file:
        assert file.readline() == "one\n"
        file.seek(0, io.SEEK_END)
        file.write("three\n")
    assert fs.read_text(f"{root}/t") == "one\ntwo\nthree\n"


def test_a_file_that_is_only_looked_at_is_not_written_again(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", b"content")
    before = fs.info(f"{root}/f")["file_id"]
    with fs.open(f"{root}/f", "r+b") as file:
        assert file.read() == b"content"
    assert fs.info(f"{root}/f")["file_id"] == before


def handles(fs: MinigfsFileSystem, path: str) -> list[int]:
    return [chunk.handle for chunk in fs.client.locations(path).chunks]


def test_a_file_is_changed_in_place_and_only_the_chunks_that_change_are_made_anew(
    fs: MinigfsFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    before, key, info = handles(fs, f"{root}/f"), fs.ukey(f"{root}/f"), fs.info(f"{root}/f")
    monkeypatch.setattr("minigfs.client.updater._MEMORY_BYTES_MAX", 5)  # the rest on the disk
    with fs.open(f"{root}/f", "r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(b"in place" * 3)
        file.seek(CHUNK_BYTES + 4)
        assert file.read(8) == b"lacein p"
        assert file.read(20)[-4:] == BIG[CHUNK_BYTES + 28 :][:4]
    after = handles(fs, f"{root}/f")
    assert [index for index in range(4) if before[index] != after[index]] == [1]
    assert fs.info(f"{root}/f")["file_id"] == info["file_id"]
    assert fs.ukey(f"{root}/f") != key
    assert fs.cat_file(f"{root}/f", CHUNK_BYTES, CHUNK_BYTES + 24) == b"in place" * 3


def test_changes_are_in_a_file_after_fsync_and_others_write_beside_them(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    first, second = fs.open(f"{root}/f", "r+b"), fs.open(f"{root}/f", "r+b")
    first.write(b"first")
    first.fsync()
    assert fs.cat_file(f"{root}/f", 0, 5) == b"first"
    second.seek(2 * CHUNK_BYTES)
    second.write(b"second")
    with fs.open(f"{root}/f", "ab") as file:
        file.write(b"appended")
    first.write(b" again")
    first.close()
    second.close()
    expected = bytearray(BIG + b"appended")
    expected[:11] = b"first again"
    expected[2 * CHUNK_BYTES : 2 * CHUNK_BYTES + 6] = b"second"
    assert fs.cat_file(f"{root}/f") == expected
    third = fs.open(f"{root}/f", "r+b")
    third.write(b"third")
    del third
    with pytest.raises(Boom), fs.open(f"{root}/f", "r+b") as file:  # noqa: PT012 - its end
        file.write(b"4")
        file.fsync()
        file.write(b"5")
        raise Boom
    assert fs.cat_file(f"{root}/f", 0, 5) == b"4irst"


def test_no_update_is_lost_silently_and_none_is_made_by_an_exception(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", b"0")
    first, second = fs.open(f"{root}/f", "r+b"), fs.open(f"{root}/f", "r+b")
    first.write(b"1")
    second.write(b"2")
    first.close()
    with pytest.raises(PreconditionFailed):
        second.close()
    assert fs.cat_file(f"{root}/f") == b"1"
    with pytest.raises(Boom), fs.open(f"{root}/f", "r+b") as file:  # noqa: PT012 - its end
        file.write(b"3")
        raise Boom
    with pytest.raises(FileNotFoundError):
        fs.open(f"{root}/none", "r+b")
    with pytest.raises(FileExistsError):
        fs.open(f"{root}/f", "x+b")
    assert fs.cat_file(f"{root}/f") == b"1"
    with fs.transaction:
        with fs.open(f"{root}/f", "r+b") as file:
            file.write(b"4")
        fs.pipe_file(f"{root}/beside", b"5")
        assert fs.cat_file(f"{root}/f") == b"1"
    assert (fs.cat_file(f"{root}/f"), fs.cat_file(f"{root}/beside")) == (b"4", b"5")


def test_what_is_appended_comes_after_what_was_there(fs: MinigfsFileSystem, root: str) -> None:
    for part in (BIG, b"", b"and more"):
        with fs.open(f"{root}/f", "ab") as file:
            before = file.tell()
            file.write(part)
            assert file.tell() == before + len(part)
    assert fs.cat_file(f"{root}/f") == BIG + b"and more"
    first, second = fs.open(f"{root}/f", "ab"), fs.open(f"{root}/f", "ab")
    for file, part in ((first, b"1"), (second, b"2"), (first, b"3")):
        file.write(part)
        file.flush()
    assert fs.tail(f"{root}/f", 7) == b"more123"
    first.close()
    second.close()
    with pytest.raises(Boom), fs.open(f"{root}/f", "ab") as file:  # noqa: PT012 - its end
        file.write(b"4")
        file.flush()
        file.write(b"5")
        raise Boom
    assert fs.tail(f"{root}/f", 8) == b"more1234"
    with pytest.raises(Boom), fs.transaction:  # noqa: PT012 - its end
        with fs.open(f"{root}/f", "ab") as file:
            file.write(b"not")
        raise Boom
    with fs.transaction:
        for name in ("f", "new"):
            with fs.open(f"{root}/{name}", "ab") as file:
                file.write(b"!")
        assert fs.tail(f"{root}/f", 1) == b"4"
    assert (fs.tail(f"{root}/f", 2), fs.cat_file(f"{root}/new")) == (b"4!", b"!")
    with fs.open(f"{root}/t", "a") as text:
        text.write("one\n")
    with fs.open(f"{root}/t", "a") as text:
        text.write("two\n")
    assert fs.read_text(f"{root}/t") == "one\ntwo\n"


@pytest.mark.parametrize("mode", ["a+b", "rw", "bb"])
def test_other_modes_are_refused(fs: MinigfsFileSystem, mode: str) -> None:
    with pytest.raises(NotImplementedError, match="cannot open with mode"):
        fs.open("/f", mode)


# -- reading --------------------------------------------------------------------------------------


def test_any_read_equals_the_slice(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    with fs.open(f"{root}/f", "rb", block_size=1000) as file:
        for offset, length in [(0, 10), (CHUNK_BYTES - 3, 7), (len(BIG) - 5, 100), (17, 200_000)]:
            file.seek(offset)
            assert file.read(length) == BIG[offset : offset + length]
        assert file.seek(-4, io.SEEK_END) == len(BIG) - 4
        assert file.read() == BIG[-4:]
        file.seek(0)
        assert b"".join(file) == BIG
    assert fs.cat_file(f"{root}/f", -10, -2) == BIG[-10:-2]
    assert fs.cat_file(f"{root}/f", 5) == BIG[5:]
    assert fs.head(f"{root}/f", 9) == BIG[:9]
    assert fs.tail(f"{root}/f", 9) == BIG[-9:]


def test_ranges_come_back_in_order_with_errors_in_their_places(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    starts = [i * 9973 for i in range(20)]
    paths = [f"{root}/f"] * 20 + [f"{root}/none"]
    found = fs.cat_ranges(paths, [*starts, 0], [*(s + 100 for s in starts), 1])
    assert found[:20] == [BIG[s : s + 100] for s in starts]
    assert isinstance(found[20], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, [*starts, 0], 1, on_error="raise")


def test_arrow_reads_the_page_cache_itself(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    with fs.open(f"{root}/f", "rb") as file:
        file.read(10)
        assert (file.read_buffer(5), file.tell()) == (BIG[10:15], 15)
        assert file.read_buffer() == BIG[15:]
        arrow = pa.PythonFile(file, mode="r")
        views = []
        for _ in range(2):
            arrow.seek(0)
            views.append(arrow.read_buffer(CHUNK_BYTES))
        assert views[0].address == views[1].address
        assert views[0].to_pybytes() == arrow.read_at(CHUNK_BYTES, 0) == BIG[:CHUNK_BYTES]


def test_many_files_are_read_at_once_and_errors_are_raised_returned_or_left_out(
    fs: MinigfsFileSystem, root: str
) -> None:
    contents = {f"{root}/{n}": os.urandom(1000 * n) for n in range(12)}
    fs.pipe(contents)
    assert fs.cat(list(contents)) == fs.cat(f"{root}/*") == contents
    assert fs.cat(f"{root}/3") == contents[f"{root}/3"]
    some = [f"{root}/1", f"{root}/none"]
    with pytest.raises(FileNotFoundError):
        fs.cat(some)
    assert fs.cat(some, on_error="omit") == {some[0]: contents[some[0]]}
    returned = fs.cat(some, on_error="return")
    assert returned[some[0]] == contents[some[0]]
    assert isinstance(returned[some[1]], FileNotFoundError)


def test_text_says_how_far_it_has_come_and_wrong_options_are_refused(
    fs: MinigfsFileSystem, root: str
) -> None:
    with fs.open(f"{root}/t", "w", encoding="utf-8", newline="\r\n") as file:
        assert file.tell() == 0
        file.write("zähl\n")
        assert file.tell() == len("zähl\r\n".encode())
    assert fs.read_text(f"{root}/t", encoding="utf-8", newline="") == "zähl\r\n"
    with pytest.raises(TypeError, match="replicas"):
        fs.open(f"{root}/t", "wb", replicas=2)
    assert fs.open(f"{root}/t", "rb", cache_type="parts", fill_cache=False).read(1) == b"z"


def test_an_open_file_pickles_with_its_position(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    with fs.open(f"{root}/f", "rb") as file:
        file.seek(70_000)
        with pickle.loads(pickle.dumps(file)) as copy:
            assert copy.read(10) == BIG[70_000:70_010]


def test_the_file_system_pickles_without_its_connections(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", b"here")
    copy = pickle.loads(pickle.dumps(fs))
    assert copy == fs
    assert copy.cat_file(f"{root}/f") == b"here"


def test_one_instance_serves_many_threads(fs: MinigfsFileSystem, root: str) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        content = os.urandom(CHUNK_BYTES + number)
        fs.pipe_file(f"{root}/{number}", content)
        if fs.cat_file(f"{root}/{number}") != content:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(fs.ls(root)) == 8


def test_a_forked_child_reads_and_writes(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    child = os.fork()
    if child == 0:  # no pytest machinery in here
        status = 1
        try:
            fs.pipe_file(f"{root}/child", fs.cat_file(f"{root}/f"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert fs.cat_file(f"{root}/child") == BIG


def test_locations_cover_the_range_and_name_three_servers(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    everything = fs.locations(f"{root}/f")
    assert [(one["start"], one["length"]) for one in everything] == [
        (start, min(CHUNK_BYTES, len(BIG) - start)) for start in range(0, len(BIG), CHUNK_BYTES)
    ]
    assert all(len(set(one["addresses"])) == 3 for one in everything)
    middle = fs.locations(f"{root}/f", CHUNK_BYTES + 1, CHUNK_BYTES)
    assert [one["start"] for one in middle] == [CHUNK_BYTES, 2 * CHUNK_BYTES]
    assert fs.locations(f"{root}/f", len(BIG), 10) == []


# -- the tree -------------------------------------------------------------------------------------


def test_a_directory_moves_by_one_rename(fs: MinigfsFileSystem, root: str) -> None:
    for name in ("a", "b/c"):
        fs.pipe_file(f"{root}/from/{name}", name.encode())
    ids = {path: fs.info(path)["file_id"] for path in fs.find(f"{root}/from")}
    fs.mv(f"{root}/from", f"{root}/new/place")
    moved = {path: fs.info(path)["file_id"] for path in fs.find(f"{root}/new/place")}
    assert sorted(moved.values()) == sorted(ids.values())  # the same inodes, nothing copied
    assert not fs.exists(f"{root}/from")
    assert fs.cat_file(f"{root}/new/place/b/c") == b"b/c"


def test_a_file_takes_the_place_of_a_file_but_a_directory_of_nothing(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe({f"{root}/new": b"new", f"{root}/old": b"old", f"{root}/d/f": b"", f"{root}/e/g": b""})
    fs.mv(f"{root}/new", f"{root}/old")
    assert fs.cat_file(f"{root}/old") == b"new"
    with pytest.raises(FileExists):
        fs.rename(f"{root}/d", f"{root}/e")
    with pytest.raises(FileExists):
        fs.rename(f"{root}/old", f"{root}/d/f")
    fs.mv(f"{root}/old", f"{root}/d")
    assert sorted(fs.find(root)) == [f"{root}/d/f", f"{root}/d/old", f"{root}/e/g"]


def test_moving_what_is_missing_says_so_and_makes_nothing(fs: MinigfsFileSystem, root: str) -> None:
    with pytest.raises(FileMissing):
        fs.mv(f"{root}/none", f"{root}/new/none")
    assert fs.ls(root) == []


def test_find_walk_glob_and_du_agree_with_what_was_written(
    fs: MinigfsFileSystem, root: str
) -> None:
    sizes = {f"{root}/{name}": len(name) for name in ("a", "d/bb", "d/e/ccc", "d/e/f/dddd")}
    fs.pipe({path: b"x" * size for path, size in sizes.items()})
    assert fs.find(root) == sorted(sizes)
    assert fs.du(root, total=False) == sizes
    assert fs.du(root) == sum(sizes.values())
    assert fs.find(root, maxdepth=2) == [f"{root}/a", f"{root}/d/bb"]
    assert fs.find(root, maxdepth=1, withdirs=True) == [root, f"{root}/a", f"{root}/d"]
    assert [path for path, _dirs, _files in fs.walk(root)] == [
        root,
        f"{root}/d",
        f"{root}/d/e",
        f"{root}/d/e/f",
    ]
    assert fs.glob(f"{root}/d/*") == [f"{root}/d/bb", f"{root}/d/e"]
    assert fs.glob(f"{root}/**/ccc") == [f"{root}/d/e/ccc"]
    assert fs.find(f"{root}/none") == fs.glob(f"{root}/none/*") == []


def test_directories_behave_as_python_expects(fs: MinigfsFileSystem, root: str) -> None:
    fs.mkdir(f"{root}/d/e")
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{root}/d")
    fs.makedirs(f"{root}/d", exist_ok=True)
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir(f"{root}/d")
    fs.rmdir(f"{root}/d/e")
    with pytest.raises(IsDirectory):
        fs.rm(f"{root}/d")
    fs.touch(f"{root}/f")
    with pytest.raises(NotDirectory):
        fs.rmdir(f"{root}/f")
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{root}/none")
    with pytest.raises(IsADirectoryError):
        fs.open(f"{root}/d", "rb")
    with pytest.raises(FileNotFoundError):
        fs.open(f"{root}/none", "rb")


def test_touch_without_truncate_keeps_the_content(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/f", b"kept")
    fs.touch(f"{root}/f", truncate=False)
    assert fs.cat_file(f"{root}/f") == b"kept"
    fs.touch(f"{root}/f")
    assert fs.cat_file(f"{root}/f") == b""


def test_ukey_changes_with_every_write_and_survives_a_rename(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/f", b"one")
    first = fs.ukey(f"{root}/f")
    fs.mv(f"{root}/f", f"{root}/g")
    assert fs.ukey(f"{root}/g") == first
    fs.pipe_file(f"{root}/g", b"one")
    assert fs.ukey(f"{root}/g") != first
    assert fs.created(f"{root}/g") <= fs.modified(f"{root}/g")
    assert fs.modified(f"{root}/g").tzinfo is not None


# -- local copies ---------------------------------------------------------------------------------


def test_a_local_copy_appears_whole_or_not_at_all(
    fs: MinigfsFileSystem, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.pipe_file(f"{root}/f", BIG)
    target = tmp_path / "copy"
    fs.get_file(f"{root}/f", str(target))
    assert target.read_bytes() == BIG

    class Stop(fsspec.callbacks.Callback):
        def relative_update(self, inc: int = 1) -> None:
            raise Boom

    with pytest.raises(Boom):
        fs.get_file(f"{root}/f", str(target), callback=Stop())
    with pytest.raises(Boom):
        fs.put_file(str(target), f"{root}/new", callback=Stop())
    assert target.read_bytes() == BIG
    assert list(tmp_path.iterdir()) == [target]
    assert not fs.exists(f"{root}/new")


# -- outages --------------------------------------------------------------------------------------


def test_no_question_is_answered_while_the_master_is_down(cluster: ClusterLayout) -> None:
    nobody = MinigfsFileSystem(
        masters="127.0.0.1:9", token_file=str(cluster.token_file), timeout_ms=200
    )
    for question in (
        lambda: nobody.exists("/a"),
        lambda: nobody.isfile("/a"),
        lambda: nobody.isdir("/a"),
        lambda: nobody.glob("/a/*"),
        lambda: nobody.find("/a"),
        lambda: list(nobody.walk("/a")),
        lambda: nobody.du("/a"),
        lambda: nobody.open("/a", "wb"),
    ):
        with pytest.raises(Unreachable):
            question()
