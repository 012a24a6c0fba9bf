"""A chunkserver is its directory: one id, one cluster, one process at a time."""

import os
import signal
from pathlib import Path

import pytest

from minigfs.chunkserver.identity import open_identity
from minigfs.chunkserver.messages import PingChunkserver
from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.errors import InvalidConfig
from minigfs.ids import ChunkHandle, ChunkVersion, FileId
from minigfs.master.append_messages import ChunkMember, InstallChunk
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.storage_cluster import StorageCluster


def options(
    directory: Path, cluster_id: str = "c1", listen: str = "127.0.0.1:0"
) -> ChunkserverOptions:
    return ChunkserverOptions(
        directory=directory,
        listen=listen,
        masters=("127.0.0.1:1",),
        security=Security(b"t", cluster_id),
    )


def test_the_id_stays_with_the_directory(tmp_path: Path) -> None:
    first = open_identity(tmp_path, "c1")
    assert open_identity(tmp_path, "c1") == first
    assert open_identity(tmp_path, "") == first


def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    open_identity(tmp_path, "c1")
    with pytest.raises(InvalidConfig, match="cluster c1, not of c2"):
        Chunkserver(options(tmp_path, "c2"))


def test_a_new_directory_must_be_told_its_cluster(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="--cluster-id"):
        Chunkserver(options(tmp_path, ""))


def test_two_servers_never_share_a_directory(tmp_path: Path) -> None:
    server = Chunkserver(options(tmp_path))
    server.start()
    try:
        with pytest.raises(InvalidConfig, match="in use"):
            Chunkserver(options(tmp_path))
    finally:
        server.stop()
    Chunkserver(options(tmp_path)).stop()


def test_listening_beyond_this_machine_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="TLS"):
        Chunkserver(options(tmp_path, listen="0.0.0.0:0"))


def test_it_answers_a_ping(tmp_path: Path) -> None:
    server = Chunkserver(options(tmp_path))
    address = server.start()
    pool = ConnectionPool(Security(b"t", "c1"))
    try:
        pool.call(address, PingChunkserver())
    finally:
        pool.close()
        server.stop()


def test_a_server_that_stopped_holds_no_file_open(tmp_path: Path) -> None:
    server = Chunkserver(options(tmp_path))
    address = server.start()
    pool = ConnectionPool(Security(b"t", "c1"))
    install = InstallChunk(
        handle=ChunkHandle(7),
        version=ChunkVersion(1),
        file_id=FileId(3),
        index=0,
        path_hint="/a",
        chunk_bytes=1 << 20,
        members=(ChunkMember(chunkserver_id=server.identity.chunkserver_id, address=address),),
    )
    pool.call(address, install)
    assert open_files(tmp_path) > 0
    pool.close()
    server.stop()
    assert open_files(tmp_path) == 0


def open_files(directory: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith(str(directory)) for link in links)


@pytest.mark.e2e
def test_a_master_that_comes_back_empty_handed_learns_all_chunks_again(tmp_path: Path) -> None:
    with StorageCluster(tmp_path / "c", chunk_bytes=1024) as cluster:
        with cluster.client.open_writer("/a") as writer:
            writer.write(b"x" * 5000)
        cluster.kill_master()
        cluster.start_master()
        cluster.wait_for_chunkservers(3)
        assert all(len(c.replicas) == 3 for c in cluster.client.locations("/a").chunks)
        assert {s.chunks for s in cluster.client.report().chunkservers} == {5}


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with StorageCluster(tmp_path / "c", chunk_bytes=1024, chunkservers=1, replication=1) as cluster:
        process = cluster.chunkservers[0].process
        assert process is not None
        os.kill(process.pid, number)
        assert process.wait(timeout=10) == 0
