"""Nobody gives a command: what was lost or damaged is whole again, and every byte is right."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.master.messages import LocatedChunk
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 64 * 1024
HEALED_SECONDS_MAX = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("repair")
    with StorageCluster(root, chunk_bytes=CHUNK, chunkservers=4, replication=2) as started:
        yield started


@pytest.fixture(autouse=True)
def _whole_again(cluster: StorageCluster) -> Iterator[None]:
    yield
    cluster.start()
    wait_until(lambda: cluster.client.report().health == "OK", 30)


def write_file(client: MinigfsClient, path: str, content: bytes) -> None:
    with client.open_writer(path) as writer:
        writer.write(content)


def read_file(client: MinigfsClient, path: str) -> bytes:
    reader = client.open_reader(path)
    return reader.read_at(0, reader.size_bytes)


def wait_until(condition: Callable[[], bool], seconds_max: float) -> float:
    """How long it took, in seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds_max, "it has not come about"
        time.sleep(0.05)
    return time.monotonic() - started


def chunk_file(cluster: StorageCluster, number: int, chunk: LocatedChunk) -> Path:
    return cluster.chunkservers[number].directory / "chunks" / f"{chunk.handle:016x}.chunk"


def holders(cluster: StorageCluster, chunk: LocatedChunk) -> list[int]:
    servers = range(len(cluster.chunkservers))
    return [number for number in servers if chunk_file(cluster, number, chunk).exists()]


def test_a_flipped_byte_is_healed_soon_after_it_was_read(cluster: StorageCluster) -> None:
    content = os.urandom(CHUNK)
    write_file(cluster.client, "/flipped", content)
    (chunk,) = cluster.client.locations("/flipped").chunks
    first = chunk.replicas[chunk.handle % 2]
    path = chunk_file(cluster, cluster.number_of(first.address), chunk)
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert read_file(cluster.client, "/flipped") == content
    wait_until(lambda: path.exists() and path.read_bytes() == right, HEALED_SECONDS_MAX)
    wait_until(lambda: cluster.client.report().health == "OK", HEALED_SECONDS_MAX)


def test_a_chunk_file_that_was_removed_is_made_again_once_it_is_missed(
    cluster: StorageCluster,
) -> None:
    content = os.urandom(CHUNK)
    write_file(cluster.client, "/removed", content)
    (chunk,) = cluster.client.locations("/removed").chunks
    first = chunk.replicas[chunk.handle % 2]
    path = chunk_file(cluster, cluster.number_of(first.address), chunk)
    right = path.read_bytes()
    path.unlink()
    assert read_file(cluster.client, "/removed") == content
    wait_until(lambda: path.exists() and path.read_bytes() == right, HEALED_SECONDS_MAX)


def test_replicas_damaged_in_different_blocks_make_a_whole_one_again(
    cluster: StorageCluster, tmp_path: Path
) -> None:
    with StorageCluster(tmp_path / "big", chunk_bytes=4 * CHUNK) as big:
        content = os.urandom(4 * CHUNK)
        write_file(big.client, "/torn", content)
        (chunk,) = big.client.locations("/torn").chunks
        for number in range(3):
            path = chunk_file(big, number, chunk)
            damaged = bytearray(path.read_bytes())
            damaged[-1 - number * CHUNK] ^= 1
            path.write_bytes(damaged)
        reader = big.client.open_reader("/torn")
        with pytest.raises(OSError, match="torn"):
            reader.read_at(0, reader.size_bytes)
        wait_until(lambda: _reads_back(big.client, "/torn", content), HEALED_SECONDS_MAX)
        wait_until(lambda: big.client.report().health == "OK", HEALED_SECONDS_MAX)


def _reads_back(client: MinigfsClient, path: str, content: bytes) -> bool:
    try:
        return read_file(client, path) == content
    except OSError:
        return False


def test_without_one_of_four_servers_everything_is_whole_again(cluster: StorageCluster) -> None:
    files = {f"/four/{n}": os.urandom(3 * CHUNK + n) for n in range(5)}  # two replicas of each
    for path, content in files.items():
        write_file(cluster.client, path, content)
    cluster.kill_chunkserver(1)
    wait_until(lambda: cluster.client.report().health != "OK", 10)
    wait_until(lambda: _all_have(cluster, files, 2), 40)
    assert {path: read_file(cluster.client, path) for path in files} == files
    cluster.start()
    wait_until(lambda: _held_counts(cluster, files) == {2}, 20)  # what is too many is given up
    assert {path: read_file(cluster.client, path) for path in files} == files


def _all_have(cluster: StorageCluster, paths: dict[str, bytes], count: int) -> bool:
    chunks = [c for path in paths for c in cluster.client.locations(path).chunks]
    return all(len(chunk.replicas) == count for chunk in chunks)


def _held_counts(cluster: StorageCluster, paths: dict[str, bytes]) -> set[int]:
    chunks = [c for path in paths for c in cluster.client.locations(path).chunks]
    return {len(holders(cluster, chunk)) for chunk in chunks}


def test_three_of_three_servers_write_on_without_one_and_heal_when_it_is_back(
    tmp_path: Path,
) -> None:
    with StorageCluster(tmp_path / "three", chunk_bytes=CHUNK) as three:
        before, during = os.urandom(2 * CHUNK), os.urandom(2 * CHUNK)
        write_file(three.client, "/before", before)
        three.kill_chunkserver(0)
        write_file(three.client, "/during", during)
        report = three.client.report()
        three.start()
        wait_until(lambda: three.client.report().health == "OK", 20)
        assert report.health != "LOST"
        assert _held_counts(three, {"/before": before, "/during": during}) == {3}
        assert read_file(three.client, "/during") == during
        assert read_file(three.client, "/before") == before
