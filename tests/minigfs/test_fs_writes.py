"""A file appears whole or not at all: by close, by a transaction, as a copy."""

import gzip
import os
from collections.abc import Callable, Iterator

import fsspec
import pytest

from minigfs.errors import (
    FileMissing,
)
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024  # of the shared cluster, see conftest.py
BIG = os.urandom(3 * CHUNK_BYTES + 12_345)  # four chunks, the last one partial


class Boom(Exception):
    pass


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
    fs: MinigfsFileSystem,
    root: str,
    write: Callable[[MinigfsFileSystem, str], None],
    before: bytes | None,
) -> None:
    path = f"{root}/f"
    if before is not None:
        fs.pipe_file(path, before)
    with pytest.raises(Boom):
        write(fs, path)
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
