"""Looking at chunk files goes on by itself, and leaves the processor to others.

What it finds is in ``test_scrubber``.
"""

import threading
from pathlib import Path

import pytest

from minigfs.chunkserver import inspector as inspector_module
from minigfs.chunkserver.inspector import Inspector
from minigfs.chunkserver.sealed_chunk import OpenChunk
from minigfs.chunkserver.store import ChunkStore
from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_store import open_store, seal
from tests.sim.clock import SimClock


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    store = open_store(RealDisk(tmp_path))
    for handle in range(1, 6):
        seal(store, handle, b"data")
    return store


def test_many_files_are_looked_at_a_few_at_a_time_with_a_hundred_times_as_long_rests(
    store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rests_s, looked_at = SimClock(), list[float](), list[ChunkHandle]()
    open_chunk = store.open_chunk

    def takes_3_ms(handle: ChunkHandle, version: ChunkVersion) -> OpenChunk:
        clock.advance(3)
        looked_at.append(handle)
        return open_chunk(handle, version)

    def rest(seconds: float) -> bool:
        rests_s.append(seconds)
        return False

    monkeypatch.setattr(inspector_module, "_BATCH_COUNT", 2)
    monkeypatch.setattr(store, "open_chunk", takes_3_ms)
    inspector = Inspector(store, clock=clock)
    monkeypatch.setattr(inspector._stopping, "wait", rest)
    inspector.inspect()
    assert looked_at == [1, 2, 3, 4, 5]
    assert rests_s == [0.6, 0.6]


def test_the_thread_finds_what_is_gone_and_ends_in_a_rest_at_once(
    store: ChunkStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector_module, "_BATCH_COUNT", 1)
    monkeypatch.setattr(inspector_module, "_SHARE", 1_000_000)
    (tmp_path / "chunks" / f"{1:016x}.chunk").unlink()
    forget, gone = store._forget, threading.Event()

    def noticed(handle: ChunkHandle) -> bool:
        gone.set()
        return forget(handle)

    monkeypatch.setattr(store, "_forget", noticed)
    inspector = Inspector(store)
    inspector.start()
    try:
        assert gone.wait(5)
    finally:
        inspector.stop()
    assert not inspector._thread.is_alive()
    assert [chunk.handle for chunk in store.known_chunks()] == [2, 3, 4, 5]
