"""Clusters of real processes, shared by the tests that only need a healthy one."""

from collections.abc import Iterator

import pytest

from tests.storage_cluster import StorageCluster


@pytest.fixture(scope="session")
def small_chunk_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    """Chunks of 1 KiB. Use paths of your own and leave its processes alone."""
    with StorageCluster(tmp_path_factory.mktemp("small-chunks"), chunk_bytes=1024) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def odd_chunk_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    """Chunks of one block and a byte, so that no border of one kind is one of the other."""
    root = tmp_path_factory.mktemp("odd-chunks")
    with StorageCluster(root, chunk_bytes=64 * 1024 + 1) as cluster:
        yield cluster
