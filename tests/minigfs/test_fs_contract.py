"""fsspec's contract, point by point, where its defaults would be wrong for us."""

import datetime as dt
import errno
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath

import fsspec
import pytest

from minigfs.cluster import ClusterLayout
from minigfs.errors import FileMissing, PreconditionFailed
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e


def test_the_class_is_imported_without_sockets_arrow_or_a_client() -> None:
    heavy = "{'pyarrow', 'numpy', 'pandas', 'polars', 'xxhash', 'minigfs.client.client'}"
    program = f"import sys, minigfs.fs; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_where_the_cluster_is_can_stand_in_the_environment(
    cluster: ClusterLayout, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masters = MinigfsFileSystem(home=str(cluster.home)).client.config.masters
    monkeypatch.setenv("FSSPEC_MINIGFS_MASTERS", ",".join(masters))
    monkeypatch.setenv("FSSPEC_MINIGFS_TOKEN_FILE", str(cluster.token_file))
    monkeypatch.setenv("MINIMR_HOME", "/nowhere")
    with fsspec.open(f"minigfs://{root}/f", "wb", skip_instance_cache=True) as file:
        file.write(b"x")
    here = MinigfsFileSystem(home=str(cluster.home))
    assert here.cat_file(f"{root}/f") == b"x"


def test_paths_come_in_every_form_and_go_back_into_urls(fs: MinigfsFileSystem) -> None:
    strip = MinigfsFileSystem._strip_protocol
    assert strip([PurePosixPath("/a/b"), "minigfs:///c/", Path("/d")]) == ["/a/b", "/c", "/d"]
    assert fs.unstrip_protocol("/a/b") == "minigfs:///a/b"
    assert fs.unstrip_protocol(fs.unstrip_protocol("/a/b")) == "minigfs:///a/b"
    assert strip(fs.unstrip_protocol("/a/b")) == "/a/b"
    assert (fs.protocol, fs.root_marker, fs.sep) == ("minigfs", "/", "/")
    assert fs.fsid.startswith("minigfs-")


def test_listings_have_what_arrow_pandas_and_duckdb_look_for(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/d/f", b"12345")
    (directory,) = fs.ls(root)
    assert (directory["name"], directory["type"], directory["size"]) == (
        f"{root}/d",
        "directory",
        0,
    )
    (file,) = fs.ls(f"{root}/d/f")
    assert (file["name"], file["type"], file["size"]) == (f"{root}/d/f", "file", 5)
    assert file == fs.info(f"{root}/d/f/")
    assert {"mtime", "created", "chunks", "replication"} <= file.keys()
    now = dt.datetime.now(tz=dt.UTC)
    assert abs(now - fs.modified(f"{root}/d/f")) < dt.timedelta(minutes=5)
    assert abs(now - fs.created(f"{root}/d")) < dt.timedelta(minutes=5)
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{root}/none")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{root}/none")
    assert fs.sizes([f"{root}/d/f"]) == [5]
    assert isinstance(fs.checksum(f"{root}/d/f"), int)
    with pytest.raises(IsADirectoryError):
        fs.checksum(f"{root}/d")


def test_the_checksum_follows_the_bytes(fs: MinigfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"1" * 100_000)
    before = fs.checksum(f"{root}/a")
    fs.mv(f"{root}/a", f"{root}/b")
    fs.cp_file(f"{root}/b", f"{root}/c")
    assert fs.checksum(f"{root}/b") == fs.checksum(f"{root}/c") == before
    with fs.open(f"{root}/b", "r+b") as file:
        file.write(b"2")
    assert fs.checksum(f"{root}/b") != before == fs.checksum(f"{root}/c")


def test_no_listing_is_remembered(fs: MinigfsFileSystem, root: str) -> None:
    other = pickle.loads(pickle.dumps(fs))
    assert fs.ls(root) == []
    other.pipe_file(f"{root}/f", b"x")
    assert fs.ls(root, detail=False) == [f"{root}/f"]
    other.rm(f"{root}/f")
    assert not fs.exists(f"{root}/f")
    fs.invalidate_cache()


def test_missing_parents_are_made_unless_they_shall_not_be(
    cluster: ClusterLayout, fs: MinigfsFileSystem, root: str
) -> None:
    for number, mode in enumerate(("wb", "xb", "ab", "w+b")):
        with fs.open(f"{root}/made/{number}/f", mode) as file:
            file.write(b"x")
        assert fs.cat_file(f"{root}/made/{number}/f") == b"x"
    strict = MinigfsFileSystem(home=str(cluster.home), auto_mkdir=False)
    for mode in ("wb", "xb", "ab", "w+b"):
        with pytest.raises(FileNotFoundError, match="auto_mkdir"):
            strict.open(f"{root}/none/f", mode)
    assert not fs.exists(f"{root}/none")
    strict.pipe_file(f"{root}/f", b"in a directory that is there")
    with pytest.raises(FileNotFoundError):
        fs.mkdir(f"{root}/x/y", create_parents=False)
    with pytest.raises(OSError, match="not empty") as caught:
        fs.rmdir(f"{root}/made")
    assert caught.value.errno == errno.ENOTEMPTY


def test_files_answer_as_those_of_io_and_of_fsspec(fs: MinigfsFileSystem, root: str) -> None:
    content = bytes(range(256)) * 1_000
    fs.pipe_file(f"{root}/f", content)
    with fs.open(f"{root}/f", "rb", cache_type="readahead", cache_options={}) as file:
        buffer = bytearray(100)
        assert (file.readinto(buffer), bytes(buffer)) == (100, content[:100])
        assert file.readinto1(buffer) > 0
        file.seek(0)
        assert content.startswith(file.read1(50))
        assert (file.size, file.full_name) == (len(content), f"minigfs://{root}/f")
        assert file.details["size"] == len(content)
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert isinstance(file, io.BufferedIOBase)
    with fs.open(f"{root}/g", "wb") as file:
        file.write(b"x")
        file.flush()
        file.fsync()
        assert not fs.exists(f"{root}/g")


def test_a_close_that_failed_publishes_nothing_when_it_is_repeated(
    fs: MinigfsFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fs.open(f"{root}/f", "wb")
    file.write(b"x")

    def fail() -> None:
        raise FileMissing("the master lost it")

    monkeypatch.setattr(file._unpublished, "publish", fail)
    with pytest.raises(FileMissing):
        file.close()
    monkeypatch.undo()
    file.close()
    assert file.closed
    assert not fs.exists(f"{root}/f")


def test_a_failed_transaction_leaves_an_instance_that_writes(
    fs: MinigfsFileSystem, root: str
) -> None:
    fs.pipe_file(f"{root}/taken", b"before")
    with pytest.raises(PreconditionFailed), fs.transaction as transaction:  # noqa: PT012 - its end
        fs.pipe_file(f"{root}/a", b"a")
        transaction.change.require_missing(f"{root}/taken")
    assert not fs.exists(f"{root}/a")
    fs.pipe_file(f"{root}/a", b"written at once")
    assert fs.cat_file(f"{root}/a") == b"written at once"


def test_instances_of_different_threads_share_their_connections(
    cluster: ClusterLayout, root: str
) -> None:
    found: list[MinigfsFileSystem] = []

    def make() -> None:
        found.append(MinigfsFileSystem(home=str(cluster.home)))
        found[-1].ls(root)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].client._shared is found[1].client._shared


def test_names_are_exclusive_whoever_asks_and_the_master_decides(
    fs: MinigfsFileSystem, root: str
) -> None:
    """Eight threads create one path: one of them does."""
    outcomes: list[bool] = []

    def create(number: int) -> None:
        try:
            fs.pipe_file(f"{root}/one", bytes([number]), mode="create")
        except FileExistsError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]
