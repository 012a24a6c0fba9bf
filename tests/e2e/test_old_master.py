"""A master started from an old copy of its directory deletes nothing, and says what it is."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 64 * 1024


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)


def write(cluster: StorageCluster, path: str, content: bytes) -> None:
    with cluster.client.open_writer(path) as writer:
        writer.write(content)


def read(cluster: StorageCluster, path: str) -> bytes:
    with cluster.client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def chunk_files(cluster: StorageCluster) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for server in cluster.chunkservers
        for path in (server.directory / "chunks").iterdir()
    }


def swap_in(cluster: StorageCluster, directory: Path, keep_as: Path) -> None:
    """Exchange the directory of the master, which does not run."""
    (cluster.root / "master").rename(keep_as)
    directory.rename(cluster.root / "master")


def test_an_old_masters_folder_booted_deletes_zero_chunks(tmp_path: Path) -> None:
    old, true = tmp_path / "old", tmp_path / "true"
    with StorageCluster(tmp_path / "cluster", chunk_bytes=CHUNK) as cluster:
        early, late = os.urandom(3 * CHUNK), os.urandom(2 * CHUNK)
        write(cluster, "/early", early)
        cluster.kill_master()
        shutil.copytree(cluster.root / "master", old)
        cluster.start_master()
        cluster.wait_for_chunkservers(3)
        write(cluster, "/late", late)
        time.sleep(1.2)  # two heartbeats: the servers have seen the master that wrote it
        before = chunk_files(cluster)
        assert len(before) == 15
        cluster.kill_everything()

        # The old copy goes its own way while no server is there to stop it: in its history
        # /early is gone, and its next start would have those chunks deleted.
        swap_in(cluster, old, keep_as=true)
        cluster.start_master()
        cluster.client.remove("/early", now=True)
        cluster.start()
        until(lambda: "newer log" in " ".join(cluster.client.report().reasons))
        time.sleep(4)  # eight heartbeats, four rounds of housekeeping
        assert cluster.client.report().health != "OK"
        assert chunk_files(cluster) == before
        assert not any(list((s.directory / "trash").iterdir()) for s in cluster.chunkservers)
        log = (cluster.root / "chunkserver-0.log").read_text()
        assert "was started from an old copy" in log

        cluster.kill_master()
        swap_in(cluster, true, keep_as=old)
        cluster.start_master()
        cluster.wait_for_chunkservers(3)
        until(lambda: cluster.client.report().health == "OK")
        assert read(cluster, "/early") == early
        assert read(cluster, "/late") == late
        cluster.client.remove("/early", now=True)
        until(lambda: len(chunk_files(cluster)) == 6)
        trashed = [len(list((s.directory / "trash").iterdir())) for s in cluster.chunkservers]
        assert trashed == [3, 3, 3], "the true master is obeyed again, and the trash keeps them"
