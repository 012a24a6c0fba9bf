"""Changing a file in place through a whole cluster, beside others who have it open."""

from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver
from minigfs.client.client import MinigfsClient
from minigfs.client.updater import UpdatableFile
from minigfs.errors import FileMissing
from tests.cluster_in_process import CHUNK_BYTES, with_cluster

SIZE_BYTES = 2 * CHUNK_BYTES + 20_000


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_at(2 * CHUNK_BYTES, b"changed"),
        lambda file: file.truncate(2 * CHUNK_BYTES + 1),
        lambda file: file.truncate(CHUNK_BYTES),
    ],
)
def test_whoever_reads_a_file_that_is_changed_is_told_so_and_not_that_it_is_damaged(
    tmp_path: Path, change: Callable[[UpdatableFile], object]
) -> None:
    def use(client: MinigfsClient, chunkservers: list[Chunkserver]) -> None:
        client.write_file("/f", bytes(SIZE_BYTES))
        old = client.locations("/f").chunks[-1].handle
        with client.open_reader("/f") as reader:
            with client.open_for_update("/f") as file:
                change(file)
            for one in chunkservers:
                one._store.delete(old)  # as the master will order
            with pytest.raises(FileMissing, match="was changed while it was being read"):
                reader.read_at(2 * CHUNK_BYTES, 20_000)
            assert reader.read_at(0, CHUNK_BYTES) == bytes(CHUNK_BYTES)

    with_cluster(tmp_path, use)
