"""The fsspec file system beside a whole cluster in this process: no start-up to wait for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver
from minigfs.client.client import MinigfsClient
from minigfs.fs import MinigfsFileSystem
from tests.cluster_in_process import with_cluster

Use = Callable[[MinigfsFileSystem], None]


@pytest.fixture
def beside_cluster(tmp_path: Path) -> Callable[[Use], None]:
    """Run something with the file system of a cluster."""

    def run(use: Use) -> None:
        def use_client(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
            fs = MinigfsFileSystem(skip_instance_cache=True)
            fs._lazy_client = client
            use(fs)

        with_cluster(tmp_path, use_client)

    return run


def test_what_is_no_path_is_not_there(beside_cluster: Callable[[Use], None]) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        for path in ("/a/../b", "/./a", "/a\0b", "/" + "x" * 256, "/\udcff"):
            assert (fs.exists(path), fs.isfile(path), fs.isdir(path)) == (False, False, False)
            with pytest.raises(ValueError, match=r"udcff|remove it|longer|without"):
                fs.pipe_file(path, b"content")

    beside_cluster(use)


def test_files_of_one_name_are_not_moved_over_each_other(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        fs.pipe({"/a/f": b"a", "/b/f": b"b"})
        with pytest.raises(FileExistsError, match="/a/f and /b/f"):
            fs.mv(["/a/f", "/b/f"], "/into/")
        assert fs.find("/") == ["/a/f", "/b/f"]

    beside_cluster(use)


def test_what_lies_in_a_directory_that_is_removed_is_removed_with_it(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        for paths in ("/d/**", ["/d", "/d/sub", "/d/sub/b"]):
            fs.pipe({"/d/a": b"", "/d/sub/b": b""})
            fs.rm(paths, recursive=True)
            assert fs.find("/") == []

    beside_cluster(use)


def test_a_path_that_is_there_is_never_taken_for_a_pattern(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        fs.pipe({"/a1": b"1", "/a[1]": b"literal", "/d/*": b"star", "/d/x": b"x"})
        assert fs.cat("/a[1]") == b"literal"
        fs.mv("/a[1]", "/b?")
        fs.rm(["/b?", "/d/*"])
        assert fs.find("/") == ["/a1", "/d/x"]
        assert fs.expand_path(["/a[1]", "/d/*"]) == ["/a1", "/d/x"]
        assert fs.expand_path(["/none*", "/d"]) == ["/d"]
        assert fs.expand_path("/[d]", recursive=True) == ["/d", "/d/x"]
        for path in ("/none*", ["/none*"], []):
            with pytest.raises(FileNotFoundError):
                fs.expand_path(path)

    beside_cluster(use)


def test_text_that_is_written_and_read_knows_its_place(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        with fs.open("/f", "w+") as file:
            file.write("one\ntwo\n")
            file.seek(0)
            assert file.readline() == "one\n"
            place = file.tell()
            assert place == 4
            assert file.readline() == "two\n"
            file.seek(place)
            file.write("2\n")
        assert fs.cat_file("/f") == b"one\n2\no\n"

    beside_cluster(use)


def test_a_file_that_is_changed_keeps_its_number_of_replicas(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        for mode in ("r+b", "ab"):
            fs.pipe_file("/f", b"content")
            fs.client.set_replication("/f", 2)
            with fs.transaction, fs.open("/f", mode) as file:
                file.write(b"C")
            assert fs.info("/f")["replication"] == 2

    beside_cluster(use)


def test_the_key_of_a_file_changes_while_it_is_appended_to(
    beside_cluster: Callable[[Use], None],
) -> None:
    def use(fs: MinigfsFileSystem) -> None:
        keys = []
        with fs.open("/f", "ab") as file:
            for _ in range(3):
                file.write(b"more")
                file.flush()
                keys.append(fs.ukey("/f"))
        keys.append(fs.ukey("/f"))
        assert len(set(keys)) == 4
        assert fs.ukey("/f") == keys[-1]

    beside_cluster(use)
