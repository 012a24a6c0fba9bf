"""A running cluster of real processes, shared by the tests that only need some cluster."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigfs.cluster import ClusterLayout, load_state, start_missing, stop_all
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from minigfs.fs import MinigfsFileSystem

CHUNK_BYTES = 64 * 1024  # files of a few hundred kilobytes cross chunk borders

Cli = Callable[..., subprocess.CompletedProcess[bytes]]


def stop_cluster(layout: ClusterLayout) -> None:
    with layout.locked():
        state = load_state(layout)
        if state is not None:
            stop_all(layout, state)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterLayout]:
    """One master and three chunkservers; tests keep to directories of their own."""
    layout = ClusterLayout(tmp_path_factory.mktemp("cluster") / "home")
    try:
        with layout.locked():
            state = prepare_storage(layout, StorageShape(masters=1, chunk_bytes=CHUNK_BYTES))
            await_storage(layout, start_missing(layout, state, STORAGE_KINDS))
        yield layout
    finally:
        stop_cluster(layout)


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A home for a cluster of the test's own; whatever runs in it is stopped at the end."""
    home = tmp_path / "own"
    yield home
    stop_cluster(ClusterLayout(home))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the `minigfs` command as a user does, in an empty directory."""

    def run(
        *arguments: str, home: Path | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {name: value for name, value in os.environ.items() if "MINIMR" not in name}
        environment["MINIMR_HOME"] = str(home or tmp_path / "no-cluster")
        return subprocess.run(
            [sys.executable, "-P", "-m", "minigfs", *arguments],
            cwd=tmp_path,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def fs(cluster: ClusterLayout) -> MinigfsFileSystem:
    return MinigfsFileSystem(home=str(cluster.home))


@pytest.fixture
def root(fs: MinigfsFileSystem) -> Iterator[str]:
    path = f"/fs-{uuid.uuid4().hex}"
    fs.makedirs(path)
    yield path
    if fs.exists(path):
        fs.rm(path, recursive=True)
