"""What every ``Disk`` does, the real one and its twin."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import InvalidPath
from minigfs.ports import Disk, RealDisk
from tests.sim.disk import SimDisk


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return RealDisk(tmp_path) if request.param == "real" else SimDisk()


def test_bytes_written_are_read_back_and_a_read_is_short_only_at_the_end(disk: Disk) -> None:
    with disk.open("a", create=True) as file:
        file.write_at(0, b"hello ", bytearray(b"wor"), memoryview(b"ld"))
        assert file.read_at(0, 11) == b"hello world"
        assert file.read_at(6, 100) == b"world"
        assert file.read_at(11, 5) == b""
        assert file.size_bytes() == disk.size_bytes("a") == 11


def test_a_gap_reads_as_zeros(disk: Disk) -> None:
    with disk.open("a", create=True) as file:
        file.write_at(4, b"x")
        assert file.read_at(0, 5) == b"\0\0\0\0x"


def test_a_write_of_very_many_buffers_writes_them_all(disk: Disk) -> None:
    pieces = [bytes([n % 256]) * (n % 3) for n in range(5000)]
    with disk.open("a", create=True) as file:
        file.write_at(0, *pieces)
        assert file.read_at(0, 10_000) == b"".join(pieces)


@pytest.mark.parametrize("count", [0, 1, 3, 5000])
def test_a_durable_write_writes_all_of_its_buffers_and_nothing_else(disk: Disk, count: int) -> None:
    pieces = [bytes([n % 256]) * (n % 3) for n in range(count)]
    written = b"".join(pieces)
    with disk.open("a", create=True) as file:
        file.write_at(0, b"." * (len(written) + 8))
        file.write_durably(4, *pieces)
        assert file.read_at(0, 10_000) == b"...." + written + b"...."


def test_truncate_cuts_and_grows(disk: Disk) -> None:
    with disk.open("a", create=True) as file:
        file.write_at(0, b"abcdef")
        file.truncate(2)
        assert file.read_at(0, 10) == b"ab"
        file.truncate(4)
        assert file.read_at(0, 10) == b"ab\0\0"


def test_preallocate_grows_with_zeros_and_never_shrinks(disk: Disk) -> None:
    with disk.open("a", create=True) as file:
        file.write_at(0, b"abc")
        file.preallocate(6)
        assert file.read_at(0, 10) == b"abc\0\0\0"
        file.preallocate(2)
        assert file.size_bytes() == 6


def test_write_behind_changes_no_byte_and_raises_nothing(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.write_at(0, b"abc")
    file.write_behind(0, 3)
    file.write_behind(1, 1 << 40)  # also where the file has nothing
    assert file.read_at(0, 10) == b"abc"
    file.close()
    file.write_behind(0, 3)


def test_open_finds_only_what_exists_and_exclusive_only_what_is_new(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open("a")
    disk.open("a", create=True, exclusive=True).close()
    disk.open("a", create=True).close()
    disk.open("a").close()
    with pytest.raises(FileExistsError):
        disk.open("a", create=True, exclusive=True)


def test_closing_twice_is_no_error_and_a_closed_file_refuses(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file"):
        file.read_at(0, 1)


def test_rename_replaces_a_file_and_keeps_open_files_open(disk: Disk) -> None:
    disk.make_dirs("d/e")
    with disk.open("a", create=True) as a, disk.open("d/b", create=True) as b:
        a.write_at(0, b"new")
        b.write_at(0, b"old one")
        disk.rename("a", "d/b")
        assert b.read_at(0, 10) == b"old one"
    assert not disk.exists("a")
    with disk.open("d/b") as file:
        assert file.read_at(0, 10) == b"new"
    with pytest.raises(FileNotFoundError):
        disk.rename("a", "c")
    with pytest.raises(IsADirectoryError):
        disk.rename("d/b", "d/e")


def test_a_second_name_leads_to_the_same_file_and_outlives_the_first(disk: Disk) -> None:
    disk.make_dirs("d")
    with disk.open("a", create=True) as file:
        file.write_at(0, b"one")
        disk.link("a", "d/b")
        file.write_at(3, b" two")
    with pytest.raises(FileExistsError):
        disk.link("a", "d/b")
    with pytest.raises(FileNotFoundError):
        disk.link("nothing", "c")
    disk.remove("a")
    assert disk.list("d") == ["b"]
    with disk.open("d/b") as file:
        assert file.read_at(0, 10) == b"one two"


def test_remove_takes_files_only(disk: Disk) -> None:
    disk.make_dirs("d")
    disk.open("d/a", create=True).close()
    disk.remove("d/a")
    assert not disk.exists("d/a")
    with pytest.raises(FileNotFoundError):
        disk.remove("d/a")
    with pytest.raises(IsADirectoryError):
        disk.remove("d")


def test_list_is_sorted_and_of_one_directory(disk: Disk) -> None:
    disk.make_dirs("d/sub")
    for name in ("c", "a", "d/b"):
        disk.open(name, create=True).close()
    assert disk.list("") == ["a", "c", "d"]
    assert disk.list("d") == ["b", "sub"]
    with pytest.raises(FileNotFoundError):
        disk.list("nowhere")


def test_make_dirs_may_be_repeated_and_sync_dir_needs_the_directory(disk: Disk) -> None:
    disk.make_dirs("x/y")
    disk.make_dirs("x/y")
    disk.make_dirs("")
    disk.sync_dir("")
    disk.sync_dir("x/y")
    with pytest.raises(FileNotFoundError):
        disk.sync_dir("z")


def test_exists_answers_for_files_directories_and_the_root(disk: Disk) -> None:
    disk.make_dirs("d")
    assert disk.exists("")
    assert disk.exists("d")
    assert not disk.exists("d/a")
    assert not disk.exists("nowhere/a")


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/", "a\0b"])
@pytest.mark.parametrize(
    "use",
    [
        lambda disk, path: disk.open(path, create=True),
        lambda disk, path: disk.rename(path, "b"),
        lambda disk, path: disk.rename("b", path),
        lambda disk, path: disk.link("b", path),
        lambda disk, path: disk.remove(path),
        lambda disk, path: disk.list(path),
        lambda disk, path: disk.make_dirs(path),
        lambda disk, path: disk.sync_dir(path),
        lambda disk, path: disk.exists(path),
        lambda disk, path: disk.size_bytes(path),
    ],
)
def test_no_path_leads_out_of_the_root(
    disk: Disk, path: str, use: Callable[[Disk, str], object]
) -> None:
    disk.open("b", create=True).close()
    with pytest.raises(InvalidPath):
        use(disk, path)
    assert disk.list("") == ["b"]


def test_free_space_is_at_most_the_capacity(disk: Disk) -> None:
    assert 0 <= disk.free_bytes() <= disk.capacity_bytes()


Operation = tuple[str, int, bytes]


@given(
    operations=st.lists(
        st.tuples(
            st.sampled_from(["write", "truncate", "preallocate"]),
            st.integers(0, 300),
            st.binary(max_size=200),
        ),
        max_size=12,
    )
)
def test_the_twin_holds_the_same_bytes_as_the_real_disk(
    tmp_path_factory: pytest.TempPathFactory, operations: list[Operation]
) -> None:
    real, simulated = RealDisk(tmp_path_factory.mktemp("disk")), SimDisk()
    with real.open("f", create=True) as one, simulated.open("f", create=True) as other:
        for name, number, data in operations:
            for file in (one, other):
                if name == "write":
                    file.write_at(number, data)
                elif name == "truncate":
                    file.truncate(number)
                else:
                    file.preallocate(number + 1)
            assert one.read_at(0, 1000) == other.read_at(0, 1000)
            assert one.size_bytes() == other.size_bytes()
