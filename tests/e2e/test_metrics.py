"""Every process of a cluster that is asked to shows figures that move."""

import os
from collections.abc import Iterator

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, load_state, start_missing, stop_all
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from tests.metrics_page import figures

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterLayout]:
    made = ClusterLayout(tmp_path_factory.mktemp("metrics") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGFS_METRICS", "127.0.0.1:0")
        with made.locked():
            shape = StorageShape(masters=1, chunkservers=1)
            state = prepare_storage(made, shape)
            await_storage(made, start_missing(made, state, STORAGE_KINDS))
    yield made
    with made.locked():
        state_now = load_state(made)
        assert state_now is not None
        stop_all(made, state_now)


def test_what_is_written_and_read_is_counted(layout: ClusterLayout) -> None:
    client = MinigfsClient(ClientConfig.discover(home=str(layout.home)))
    before = figures(layout.directory("master-0"), layout.token_file)
    content = os.urandom(100_000)
    with client.open_writer("/counted") as writer:
        writer.write(content)
    with client.open_reader("/counted") as reader:
        assert reader.read_at(0, len(content)) == content
    master, server = (
        figures(layout.directory("master-0"), layout.token_file),
        figures(layout.directory("chunkserver-0"), layout.token_file),
    )
    assert master["minigfs_files"] == before["minigfs_files"] + 1
    assert master["minigfs_raft_commit_index"] > before["minigfs_raft_commit_index"]
    assert master["minigfs_proposals_total"] > before["minigfs_proposals_total"]
    assert (master["minigfs_raft_leads"], master["minigfs_raft_members"]) == (1, 1)
    assert master["minigfs_fleet_alive"] == 1
    assert master["minigfs_fleet_heartbeat_age_seconds"] < 5
    assert server["minigfs_chunkserver_written_bytes_total"] == len(content)
    assert server["minigfs_chunkserver_chunks"] == 1
    read = server["minigfs_chunkserver_read_bytes_total"] >= len(content)
    assert read or server["minigfs_chunkserver_lent_files_total"] >= 1
    assert server["minigfs_chunkserver_last_heartbeat_age_seconds"] < 5
    assert server["process_resident_memory_bytes"] > 1e6
