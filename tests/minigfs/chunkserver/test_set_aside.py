"""A replica of a version that was never given is out of use, kept, and told until it is gone."""

from pathlib import Path

import pytest

from minigfs.chunkserver.set_aside import QUARANTINE
from minigfs.errors import CorruptChunk
from minigfs.ids import ChunkHandle, ChunkVersion
from minigfs.master.heartbeat_messages import AheadReplica
from minigfs.ports import RealDisk
from tests.minigfs.chunkserver.test_store import open_store, pattern, read, seal

HANDLE = ChunkHandle(7)


def ahead(version: int) -> AheadReplica:
    return AheadReplica(HANDLE, ChunkVersion(version))


def test_it_is_kept_beside_others_of_its_kind_and_known_after_a_restart(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    store = open_store(disk)
    seal(store, HANDLE, pattern(1000))
    file = tmp_path / "chunks" / f"{HANDLE:016x}.chunk"
    kept = file.read_bytes()
    store.set_aside(ahead(1))
    with pytest.raises(CorruptChunk, match="not here"):
        read(store, HANDLE)
    assert HANDLE in store.take_report().gone or store.take_report().full
    assert not file.exists()
    store = open_store(disk)
    assert store.quarantine.reports() == (ahead(1),)
    (path,) = (tmp_path / QUARANTINE).iterdir()
    assert path.read_bytes() == kept
    path.unlink()
    store.quarantine.look()
    assert store.quarantine.count == 0


def test_what_is_not_ahead_stays_in_use(tmp_path: Path) -> None:
    """The order was given for a replica that has been replaced meanwhile, or is gone."""
    store = open_store(RealDisk(tmp_path))
    seal(store, HANDLE, pattern(1000))
    store.set_aside(ahead(2))
    store.set_aside(AheadReplica(ChunkHandle(8), ChunkVersion(1)))
    assert read(store, HANDLE) == pattern(1000)
    assert store.quarantine.count == 0
