"""Reads, the tree, and outages of our file system, beyond what fsspec's contract asks."""

import io
import os
import pickle
import threading
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
    Unreachable,
)
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024  # of the shared cluster, see conftest.py
BIG = os.urandom(3 * CHUNK_BYTES + 12_345)  # four chunks, the last one partial


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
