"""A block that is left by an exception has changed nothing; one that is left cleanly, all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.chunkserver.process import Chunkserver
from minigfs.client.client import MinigfsClient
from minigfs.client.writer import FileWriter
from tests.cluster_in_process import with_cluster


class Boom(Exception):
    pass


def write(client: MinigfsClient, check: Callable[[], None]) -> None:
    with client.open_writer("/f") as writer:
        writer.write(b"new")
        check()


def update(client: MinigfsClient, check: Callable[[], None]) -> None:
    with client.open_for_update("/f") as file:
        file.write(b"new")
        check()


def transact(client: MinigfsClient, check: Callable[[], None]) -> None:
    with client.transaction() as change:
        with change.open_writer("/f") as writer:
            writer.write(b"new")
        check()


def content(client: MinigfsClient) -> bytes:
    with client.open_reader("/f") as reader:
        return reader.read_at(0, reader.size_bytes)


def boom() -> None:
    raise Boom


@pytest.mark.parametrize("work", [write, update, transact])
def test_all_of_a_block_happens_or_nothing(
    tmp_path: Path, work: Callable[[MinigfsClient, Callable[[], None]], None]
) -> None:
    def use(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
        with client.open_writer("/f") as writer:
            assert isinstance(writer, FileWriter)
            writer.write(b"old")
        with pytest.raises(Boom):
            work(client, boom)
        assert content(client) == b"old"
        work(client, lambda: None)
        assert content(client) == b"new"

    with_cluster(tmp_path, use)
