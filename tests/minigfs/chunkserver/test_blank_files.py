"""Small chunks are written into files made ahead: at a crash, nothing acknowledged is lost."""

import errno
import threading
from itertools import count
from pathlib import Path

import pytest

from minigfs.chunkserver import blank_files
from minigfs.chunkserver.blank_files import BLANK_BYTES, BlankFiles
from minigfs.chunkserver.checksum import block_sums
from minigfs.chunkserver.messages import ChunkData, WriteChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import NoSpace, Unsupported
from minigfs.ids import ChunkHandle, ChunkVersion, FileId
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_store import open_store, pattern, read
from tests.sim.clock import SimClock, SimRng
from tests.sim.disk import SimDisk


class Crash(Exception):
    """The machine loses power."""


def seal_small(store: ChunkStore, handle: int, data: bytes) -> None:
    sums = block_sums(data, handle=ChunkHandle(handle), first_block=0)
    request = WriteChunk(
        handle=ChunkHandle(handle),
        version=ChunkVersion(1),
        file_id=FileId(1),
        index=0,
        path_hint="/a",
        chunk_bytes=64 << 20,
        chain=(),
        whole=ChunkData(offset_bytes=0, sums=sums, last=True),
    )
    with store.create(request) as incoming:
        incoming.append(0, data, sums)
        incoming.seal()


def with_blanks(disk: SimDisk | RealDisk) -> ChunkStore:
    """A store that was asked for one before."""
    store = open_store(disk)
    assert store.blanks.take() is None
    store.blanks.work()
    return store


def steps_of(disk: SimDisk) -> list[tuple[str, str]]:
    """All changes and syncs from now on."""
    steps: list[tuple[str, str]] = []
    disk.before_change = lambda operation, path: steps.append((operation, path))
    return steps


@pytest.mark.parametrize("length", [1, BLANK_BYTES - 4096, BLANK_BYTES - 4095, BLOCK])
def test_a_small_chunk_reads_back_also_after_a_restart(tmp_path: Path, length: int) -> None:
    data = pattern(length)[:length]
    store = with_blanks(RealDisk(tmp_path))
    seal_small(store, 1, data)
    assert read(store, 1) == data
    assert (tmp_path / "chunks" / f"{1:016x}.chunk").stat().st_nlink == 2
    written = (tmp_path / "chunks" / f"{1:016x}.chunk").read_bytes()
    assert written.endswith(data), "its last byte is the chunk's"
    store.blanks.work()
    assert (tmp_path / "chunks" / f"{1:016x}.chunk").stat().st_nlink == 1
    assert read(open_store(RealDisk(tmp_path)), 1) == data
    assert list((tmp_path / "blank").iterdir()) == []


def test_a_small_chunk_waits_for_one_sync_and_for_no_file_to_be_made() -> None:
    disk = SimDisk()
    store = with_blanks(disk)
    steps = steps_of(disk)
    seal_small(store, 1, b"data")
    chunk = f"chunks/{1:016x}.chunk"
    blank = "blank/1.blank"
    cut = ("write", blank)  # to its length; nobody waits for that to be durable
    assert steps == [("write", blank), ("sync", blank), ("link", chunk), cut]
    steps.clear()
    store.blanks.work()
    assert steps[:2] == [("sync", "chunks"), ("remove", "blank/1.blank")]


def test_without_a_blank_a_small_chunk_is_written_as_any_other() -> None:
    disk = SimDisk()
    store = open_store(disk)
    steps = steps_of(disk)
    seal_small(store, 1, b"data")
    assert [operation for operation, _ in steps] == ["create", "write", "sync", "rename", "sync"]
    assert read(store, 1) == b"data"


def test_where_files_have_one_name_it_is_changed_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    class OneName(RealDisk):
        def link(self, source: str, target: str) -> None:
            raise Unsupported(f"{target}: no second names here")

        def sync_dir(self, path: str) -> None:
            synced.append(path)
            super().sync_dir(path)

    store = with_blanks(OneName(tmp_path))
    synced.clear()
    seal_small(store, 1, b"data")
    assert synced == ["chunks"]
    store.blanks.work()
    assert read(open_store(OneName(tmp_path)), 1) == b"data"


def test_a_disk_that_cannot_link_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(Unsupported):
        RealDisk(tmp_path).link("a", "b")


def run_until_crash(disk: SimDisk, crash_step: int) -> int:
    """Small chunks are written, some are deleted; how many were acknowledged, -1 without a
    crash."""
    store, steps, acknowledged = open_store(disk), count(1), 0

    def before_change(operation: str, path: str) -> None:
        if next(steps) == crash_step:
            raise Crash

    disk.before_change = before_change
    try:
        for handle in range(1, 8):
            seal_small(store, handle, b"chunk %d" % handle)
            acknowledged = handle
            if handle % 3 == 1:
                store.blanks.work()
    except Crash:
        return acknowledged
    finally:
        disk.before_change = None
    return -1


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_step_takes_no_small_chunk_and_leaves_no_half_one(seed: int) -> None:
    for step in count(1):
        disk = SimDisk()
        acknowledged = run_until_crash(disk, step)
        if acknowledged < 0:
            assert step > 40
            return
        if seed == 0:
            disk.crash()
        elif seed == 1:
            disk.crash(torn_bytes=4000)
        else:
            disk.crash_by_chance(SimRng(seed * 1_000 + step))
        for _ in range(2):  # also if the machine is lost again, right after the start
            store = open_store(disk)
            assert disk.list("blank") == []
            known = {chunk.handle for chunk in store.known_chunks()}
            assert known >= set(range(1, acknowledged + 1))
            for handle in known:
                assert read(store, handle) == b"chunk %d" % handle
            disk.crash()


@pytest.mark.parametrize("seed", range(8))
def test_a_chunk_that_outlived_its_process_outlives_the_machine_after_a_start(seed: int) -> None:
    """The second name was seen by the start, and no sync had made it durable."""
    disk = SimDisk()
    seal_small(with_blanks(disk), 1, b"data")
    disk.kill()
    assert read(open_store(disk), 1) == b"data"
    disk.crash_by_chance(SimRng(seed))
    assert read(open_store(disk), 1) == b"data"


def test_a_start_takes_the_chunk_that_stands_and_not_the_blank() -> None:
    """A copy may have taken the place of the chunk, and then its first name is an older one's."""
    disk = SimDisk()
    store = with_blanks(disk)
    seal_small(store, 1, b"old")
    other = SimDisk()
    seal_small(open_store(other), 1, b"new")
    with disk.open("chunks/copy", create=True) as copy, other.open(f"chunks/{1:016x}.chunk") as new:
        copy.write_at(0, new.read_at(0, 1 << 16))
    disk.rename("chunks/copy", f"chunks/{1:016x}.chunk")
    restarted = open_store(disk)
    assert read(restarted, 1) == b"new"
    assert disk.list("blank") == []


def lose_second_name(disk: SimDisk) -> None:
    """The machine dies, and with it what no sync had made durable."""
    disk.crash()
    assert disk.list("chunks") == []


def quarantined(disk: SimDisk) -> list[bytes]:
    """The first bytes of the chunks that are kept for a person."""
    kept = []
    for name in disk.list("quarantine"):
        with disk.open(f"quarantine/{name}") as file:
            kept.append(file.read_at(4096, 3))
    return kept


def test_a_damaged_chunk_that_has_its_first_name_only_is_kept_for_a_person() -> None:
    disk = SimDisk()
    for data in (b"one", b"two"):
        seal_small(with_blanks(disk), 1, data)
        lose_second_name(disk)
        disk.flip_bit("blank/1.blank", 4096, 0)
        assert open_store(disk).known_chunks() == []
        assert disk.list("blank") == []
    assert sorted(quarantined(disk)) == [b"nne", b"uwo"], "and neither is lost for the other"
    disk.crash()
    assert sorted(quarantined(disk)) == [b"nne", b"uwo"]


def test_a_chunk_of_another_cluster_that_has_its_first_name_only_is_kept_for_a_person() -> None:
    disk = SimDisk()
    seal_small(with_blanks(disk), 1, b"one")
    lose_second_name(disk)
    assert open_store(disk, "another").known_chunks() == []
    assert quarantined(disk) == [b"one"]


@pytest.mark.parametrize("offset", [0, 60, 4096], ids=["magic", "header", "data"])
def test_a_damaged_first_name_of_a_chunk_that_stands_just_goes(offset: int) -> None:
    disk = SimDisk()
    seal_small(with_blanks(disk), 1, b"one")
    with disk.open("blank/1.blank") as file:
        content = file.read_at(0, file.size_bytes())
    lose_second_name(disk)
    with disk.open(f"chunks/{1:016x}.chunk", create=True) as file:
        file.write_at(0, content)
    disk.flip_bit("blank/1.blank", offset, 0)
    store = open_store(disk)
    assert read(store, 1) == b"one"
    assert (disk.list("blank"), disk.list("quarantine")) == ([], [])


def test_a_full_disk_gets_no_files_ahead_and_refuses_small_chunks_too() -> None:
    disk = SimDisk(capacity_bytes=1_000_000)
    store = open_store(disk)
    with disk.open("something-else", create=True) as file:
        file.write_at(0, bytes(950_001))
    for _ in range(2):
        with pytest.raises(NoSpace, match="49999 of 1000000"):
            seal_small(store, 1, b"data")
        store.blanks.work()
    assert disk.list("blank") == disk.list("incoming") == []


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_disk_that_fails_while_files_are_made_ahead_keeps_none_of_them(operation: str) -> None:
    disk = SimDisk()
    store = open_store(disk)
    store.blanks.take()
    disk.fail(operation, errno.ENOSPC)
    with pytest.raises(NoSpace):
        store.blanks.work()
    assert disk.list("blank") == []
    seal_small(store, 1, b"data")
    store.blanks.work()
    assert store.blanks.take() is not None


@pytest.mark.parametrize("failing", ["sync chunks", "remove blank/1.blank", "remove blank/2.blank"])
def test_first_names_that_could_not_be_taken_away_are_taken_away_later(failing: str) -> None:
    disk = SimDisk()
    store = with_blanks(disk)
    seal_small(store, 1, b"one")
    seal_small(store, 2, b"two")
    while store.blanks.take() is not None:
        pass

    def fail(operation: str, path: str) -> None:
        if f"{operation} {path}" == failing:
            raise OSError(errno.EMFILE, "Too many open files")

    disk.before_change = fail
    with pytest.raises(OSError, match="Too many"):
        store.blanks.work()
    disk.before_change = None
    assert store.blanks.take() is not None, "what was asked for is made all the same"
    store.blanks.work()
    assert not {"1.blank", "2.blank"} & set(disk.list("blank"))
    assert (read(store, 1), read(store, 2)) == (b"one", b"two")


def test_a_first_name_that_somebody_has_taken_away_is_no_trouble() -> None:
    disk = SimDisk()
    store = with_blanks(disk)
    seal_small(store, 1, b"one")
    seal_small(store, 2, b"two")
    disk.remove("blank/1.blank")
    store.blanks.work()
    assert "2.blank" not in disk.list("blank")


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_blank_that_cannot_be_written_is_gone(operation: str) -> None:
    disk = SimDisk()
    store = with_blanks(disk)
    disk.fail(operation, errno.ENOSPC)
    with pytest.raises(NoSpace):
        seal_small(store, 1, b"data")
    assert "1.blank" not in disk.list("blank")
    assert store.known_chunks() == []
    seal_small(store, 1, b"data")
    assert read(store, 1) == b"data"


def blanks_of(disk: SimDisk, clock: SimClock) -> BlankFiles:
    disk.make_dirs("blank")
    return BlankFiles(disk, has_room=lambda: True, sync_names=lambda: None, clock=clock)


def test_as_many_are_made_as_were_taken_within_a_second_and_more_if_that_was_soon() -> None:
    disk, clock = SimDisk(), SimClock()
    blanks, made = blanks_of(disk, clock), list[int]()
    for pause_ms in (0, 1_000, 10, 10, 10, 10, 10, 10):
        clock.advance(pause_ms)
        while blanks.take() is not None:
            pass
        before = len(disk.list("blank"))
        blanks.work()
        made.append(len(disk.list("blank")) - before)
    assert made == [4, 4, 8, 16, 32, 64, 64, 64]


def test_no_two_takers_get_the_same_file() -> None:
    blanks = blanks_of(SimDisk(), SimClock())
    blanks.take()
    blanks.work()
    taken = [blanks.take() for _ in range(5)]
    assert len({blank.path for blank in taken if blank is not None}) == 4
    assert taken[4] is None


def test_the_thread_makes_what_is_taken_and_takes_first_names_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blank_files, "_TIDY_S", 0.01)
    store, made, failures = open_store(RealDisk(tmp_path)), threading.Event(), list[OSError]()
    work = store.blanks.work

    def worked() -> None:
        work()
        made.set()

    monkeypatch.setattr(store.blanks, "work", worked)
    store.blanks.start(failures.append)
    try:
        seal_small(store, 1, b"one")
        assert made.wait(5)
        made.clear()
        seal_small(store, 2, b"two")
        assert made.wait(5)
    finally:
        store.blanks.stop()
    assert (tmp_path / "chunks" / f"{2:016x}.chunk").stat().st_nlink == 1
    assert (read(store, 1), read(store, 2), failures) == (b"one", b"two", [])


def test_the_thread_tries_again_to_take_first_names_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blank_files, "_TIDY_S", 0.01)
    removed, failures = threading.Event(), list[OSError]()

    class Stubborn(RealDisk):
        def remove(self, path: str) -> None:
            if path.startswith("blank/") and not failures:
                raise OSError(errno.EMFILE, "Too many open files")
            super().remove(path)
            removed.set()

    store = with_blanks(Stubborn(tmp_path))
    store.blanks.start(failures.append)
    try:
        seal_small(store, 1, b"one")
        assert removed.wait(5)
    finally:
        store.blanks.stop()
    assert (tmp_path / "chunks" / f"{1:016x}.chunk").stat().st_nlink == 1


def test_the_thread_tells_of_a_disk_that_failed() -> None:
    disk = SimDisk()
    store, told, failures = open_store(disk), threading.Event(), list[OSError]()

    def failed(error: OSError) -> None:
        failures.append(error)
        told.set()

    disk.fail("sync", errno.EIO)
    store.blanks.start(failed)
    store.blanks.take()
    try:
        assert told.wait(5)
    finally:
        store.blanks.stop()
    assert failures[0].errno == errno.EIO
