"""The modes of open files: exclusive, changed in place, appended to."""

import io
import os
import zipfile

import pytest

from minigfs.errors import (
    FileExists,
    PreconditionFailed,
)
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024  # of the shared cluster, see conftest.py
BIG = os.urandom(3 * CHUNK_BYTES + 12_345)  # four chunks, the last one partial


class Boom(Exception):
    pass


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
