"""What is deleted rests and comes back; the trash never takes space that new data needs."""

from pathlib import Path

import pytest

from minigfs.chunkserver.store import ChunkStore
from minigfs.chunkserver.trash import REST_MS, Trash
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle, ClusterId
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_store import pattern, read, seal
from tests.stepped_clock import SteppedClock

HANDLE = ChunkHandle(7)


class SmallDisk(RealDisk):
    """Says how much of a hundred bytes is free."""

    free = 100

    def free_bytes(self) -> int:
        return self.free

    def capacity_bytes(self) -> int:
        return 100


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def disk(tmp_path: Path) -> SmallDisk:
    return SmallDisk(tmp_path)


@pytest.fixture
def store(disk: SmallDisk, clock: SteppedClock) -> ChunkStore:
    return open_store(disk, clock)


def open_store(disk: SmallDisk, clock: SteppedClock) -> ChunkStore:
    store = ChunkStore(disk, cluster_id=ClusterId("c1"), clock=clock)
    store.open()
    return store


def test_a_deleted_chunk_comes_back_as_it_was(store: ChunkStore) -> None:
    content = pattern(100_000)[:100_000]
    seal(store, HANDLE, content)
    store.delete(HANDLE)
    with pytest.raises(CorruptChunk, match="not here"):
        read(store, HANDLE)
    assert (store.chunk_count, store.stored_bytes) == (0, 0)
    assert store.restore(HANDLE)
    assert read(store, HANDLE) == content
    assert (store.chunk_count, store.stored_bytes) == (1, 100_000)
    assert [chunk.handle for chunk in store.take_report().chunks] == [HANDLE]


def test_a_restart_knows_what_lies_in_the_trash(
    store: ChunkStore, disk: SmallDisk, clock: SteppedClock
) -> None:
    seal(store, HANDLE, b"kept")
    store.delete(HANDLE)
    again = open_store(disk, clock)
    assert again.trash.handles() == (HANDLE,)
    assert again.chunk_count == 0
    assert again.restore(HANDLE)
    assert read(again, HANDLE) == b"kept"


def test_what_rested_long_enough_is_removed_and_no_sooner(
    store: ChunkStore, clock: SteppedClock, tmp_path: Path
) -> None:
    seal(store, HANDLE, b"old")
    store.delete(HANDLE)
    clock.ms += REST_MS - 1
    assert store.trash.purge() == 0
    clock.ms += 1
    assert store.trash.purge() == 1
    assert not list((tmp_path / "trash").iterdir())
    assert not store.restore(HANDLE)


def test_a_full_disk_gives_up_the_oldest_first_and_no_more_than_it_must(
    store: ChunkStore, disk: SmallDisk, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for handle in (3, 1, 2):
        seal(store, handle, b"x")
        store.delete(ChunkHandle(handle))
        clock.ms += 1
    removed = []
    remove = disk.remove

    def remove_and_free(path: str) -> None:
        removed.append(path)
        remove(path)
        disk.free += 4

    monkeypatch.setattr(disk, "remove", remove_and_free)
    disk.free = 3
    assert store.trash.purge() == 2
    assert [path.split("/")[1].split(".")[0] for path in removed] == [f"{3:016x}", f"{1:016x}"]
    assert store.trash.handles() == (ChunkHandle(2),)


def test_what_no_file_ever_had_leaves_at_once(store: ChunkStore, tmp_path: Path) -> None:
    seal(store, HANDLE, b"never published")
    store.delete(HANDLE, at_once=True)
    assert store.trash.handles() == ()
    assert not list((tmp_path / "chunks").iterdir())


def test_of_two_deletions_of_a_handle_the_newer_one_is_kept(
    store: ChunkStore, clock: SteppedClock, tmp_path: Path
) -> None:
    for content in (b"first", b"second"):
        seal(store, HANDLE, content)
        store.delete(HANDLE)
        clock.ms += 1
    assert len(list((tmp_path / "trash").iterdir())) == 1
    assert store.restore(HANDLE)
    assert read(store, HANDLE) == b"second"


def test_what_a_crash_left_twice_is_there_once_after_a_start(
    disk: SmallDisk, clock: SteppedClock, tmp_path: Path
) -> None:
    (tmp_path / "trash").mkdir()
    for name in (f"{7:016x}.5.chunk", f"{7:016x}.6.chunk", "a note of the owner's"):
        (tmp_path / "trash" / name).write_bytes(name.encode())
    trash = Trash(disk, clock)
    trash.open()
    assert trash.handles() == (HANDLE,)
    left = sorted(path.name for path in (tmp_path / "trash").iterdir())
    assert left == [f"{7:016x}.6.chunk", "a note of the owner's"]


def test_a_restored_file_that_is_no_chunk_is_set_aside(store: ChunkStore, tmp_path: Path) -> None:
    seal(store, HANDLE, b"rotten in the trash")
    store.delete(HANDLE)
    (file,) = (tmp_path / "trash").iterdir()
    file.write_bytes(b"rubbish")
    assert not store.restore(HANDLE)
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
