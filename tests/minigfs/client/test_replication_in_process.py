"""Giving a tree that others change another number of replicas."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver
from minigfs.client.client import MinigfsClient
from minigfs.master.messages import FileStatus
from tests.cluster_in_process import with_cluster


def test_files_that_are_removed_meanwhile_do_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
        for number in range(9):
            client.write_file(f"/d/{number}", b"")
        find = client.find

        def find_and_remove(path: str) -> Iterator[FileStatus]:
            found = list(find(path))
            client.remove("/d/3")
            client.remove("/d/4")
            client.write_file("/d/4/below", b"")
            yield from found

        monkeypatch.setattr(client, "find", find_and_remove)
        assert client.set_replication("/d", 2, recursive=True) == 7
        left = [one.replication for one in find("/d") if one.kind == "file"]
        assert left == [2] * 8

    with_cluster(tmp_path, use)
