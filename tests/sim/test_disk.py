"""What the simulated disk does beyond the port: it crashes and fails."""

import errno

import pytest

from minigfs.errors import NoSpace
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk


def disk_with(content: bytes) -> SimDisk:
    """A disk whose file ``f`` is durable, name and all."""
    disk = SimDisk()
    with disk.open("f", create=True) as file:
        file.write_at(0, content)
        file.sync()
    disk.sync_dir("")
    return disk


def content_of(disk: SimDisk, path: str = "f") -> bytes:
    with disk.open(path) as file:
        return file.read_at(0, 1 << 20)


def test_a_crash_loses_what_was_not_synced() -> None:
    disk = disk_with(b"kept")
    with disk.open("f") as file:
        file.write_at(0, b"lost")
    disk.crash()
    assert content_of(disk) == b"kept"


def test_a_durable_write_survives_a_crash() -> None:
    disk = disk_with(b"kept")
    with disk.open("f") as file:
        file.write_durably(4, b" too")
    disk.crash()
    assert content_of(disk) == b"kept too"


def test_a_new_name_needs_a_sync_of_its_directory() -> None:
    disk = SimDisk()
    with disk.open("f", create=True) as file:
        file.write_at(0, b"x")
        file.sync()
    disk.crash()
    assert not disk.exists("f")


def test_a_rename_needs_a_sync_of_its_directory() -> None:
    disk = disk_with(b"x")
    disk.rename("f", "g")
    disk.crash()
    assert disk.list("") == ["f"]
    disk.rename("f", "g")
    disk.sync_dir("")
    disk.crash()
    assert disk.list("") == ["g"]


def test_a_torn_write_leaves_a_prefix_after_the_writes_before_it() -> None:
    disk = disk_with(b"")
    with disk.open("f") as file:
        file.write_at(0, b"abc")
        file.write_at(3, b"defgh")
    disk.crash(torn_bytes=2)
    assert content_of(disk) == b"abcde"


def test_files_open_at_a_crash_are_dead() -> None:
    disk = disk_with(b"x")
    file = disk.open("f")
    disk.crash()
    with pytest.raises(OSError, match="crashed"):
        file.read_at(0, 1)


def test_chance_repeats_with_its_seed_and_never_touches_synced_bytes() -> None:
    def outcome(seed: int) -> bytes:
        disk = disk_with(b"synced")
        with disk.open("f") as file:
            for offset in range(6, 40, 4):
                file.write_at(offset, b"abcd")
        disk.crash_by_chance(SimRng(seed))
        return content_of(disk)

    outcomes = {outcome(seed) for seed in range(20)}
    assert len(outcomes) > 5
    assert all(content.startswith(b"synced") for content in outcomes)
    assert outcome(7) == outcome(7)


def test_faults_come_as_often_as_asked() -> None:
    disk = disk_with(b"x")
    disk.fail("write", errno.EIO)
    disk.fail("sync", errno.ENOSPC)
    with disk.open("f") as file:
        with pytest.raises(OSError, match="Input/output"):
            file.write_at(0, b"y")
        file.write_at(0, b"z")
        with pytest.raises(NoSpace):
            file.sync()
        file.sync()


def test_a_lost_file_is_gone_at_once_and_for_good_whatever_fault_was_to_come() -> None:
    disk = SimDisk()
    disk.make_dirs("chunks")
    disk.sync_dir("")
    for path in ("chunks/lost", "chunks/kept"):
        with disk.open(path, create=True) as file:
            file.write_at(0, b"bytes")
            file.sync()
    disk.sync_dir("chunks")
    disk.fail("sync", errno.EIO)
    disk.lose_file("chunks/lost")
    assert disk.list("chunks") == ["kept"]
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync_dir("chunks")  # the fault was for the server's own operation
    disk.crash()
    assert disk.list("chunks") == ["kept"]


def test_a_full_disk_refuses_to_grow_but_still_overwrites_and_removes() -> None:
    disk = SimDisk(capacity_bytes=10)
    with disk.open("f", create=True) as file:
        file.write_at(0, bytes(10))
        file.write_at(0, b"overwritten"[:10])
        with pytest.raises(NoSpace):
            file.write_at(5, bytes(6))
        assert file.read_at(0, 20) == b"overwritte"
        with pytest.raises(NoSpace):
            file.preallocate(11)
    disk.remove("f")
    assert disk.free_bytes() == 10
