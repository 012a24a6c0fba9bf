"""The real ports, where the contract suite cannot look."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.errors import NoSpace
from minigfs.ports import RealDisk, RealDiskFile, SystemClock, SystemRng


def test_files_and_directories_are_their_owners_alone(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "data")
    disk.make_dirs("")
    disk.make_dirs("d")
    disk.open("d/f", create=True).close()
    assert (tmp_path / "data" / "d").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "d" / "f").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("write", [RealDiskFile.write_at, RealDiskFile.write_durably])
def test_a_full_disk_is_no_space_and_says_where(write: Callable[..., None]) -> None:
    with RealDisk("/dev").open("full") as file, pytest.raises(NoSpace, match="/dev/full"):
        write(file, 0, b"x")


@pytest.mark.parametrize("short", [False, True], ids=["not supported", "cut short"])
def test_where_one_call_does_not_do_a_durable_write_two_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """A write is durable by its flag or by a sync behind all of it, never by neither."""
    synced: list[bytes] = []
    real_pwritev, real_fdatasync = os.pwritev, os.fdatasync

    def pwritev(descriptor: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        if not flags:
            return real_pwritev(descriptor, buffers, offset)
        if short:
            return real_pwritev(descriptor, [buffers[0][:2]], offset, flags)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def fdatasync(descriptor: int) -> None:
        synced.append(os.pread(descriptor, 100, 0))
        real_fdatasync(descriptor)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with RealDisk(tmp_path).open("f", create=True) as file:
        file.write_durably(0, b"some", b"thing")
    assert synced == [b"something"]


def test_descriptors_do_not_leak_into_programs_started_later(tmp_path: Path) -> None:
    with RealDisk(tmp_path).open("f", create=True) as file:
        assert not os.get_inheritable(file._descriptor)


def test_the_clock_never_goes_back_and_tells_milliseconds() -> None:
    clock = SystemClock()
    times = [clock.monotonic_ms() for _ in range(1000)]
    assert times == sorted(times)
    assert clock.now_ms() > 1_700_000_000_000


def test_chance_stays_in_its_bounds() -> None:
    rng = SystemRng()
    assert {rng.uniform_ms(3, 5) for _ in range(200)} == {3, 4, 5}
    assert all(0 <= rng.random_u64() < 2**64 for _ in range(100))
