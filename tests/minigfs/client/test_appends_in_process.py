"""Appending through a whole cluster: every record once, in order, whichever member dies."""

from pathlib import Path

from minigfs.chunkserver.process import Chunkserver
from minigfs.client.client import MinigfsClient
from tests.cluster_in_process import with_cluster

RECORD = b"r" * 5_000


def test_records_are_there_once_and_in_order_whichever_member_dies(tmp_path: Path) -> None:
    def use(client: MinigfsClient, chunkservers: list[Chunkserver]) -> None:
        records = [bytes([number]) * 5_000 for number in range(40)]  # three chunks and more
        with client.open_appender("/log") as appender:
            offsets = [appender.append(record) for record in records[:20]]
            chunkservers.pop(0).stop()
            offsets += [appender.append(record) for record in records[20:]]
        assert offsets == [number * 5_000 for number in range(40)]
        with client.open_reader("/log") as reader:
            assert reader.read_at(0, reader.size_bytes) == b"".join(records)
        assert not client.stat("/log").is_open

    with_cluster(tmp_path, use)


def test_several_appenders_share_a_file(tmp_path: Path) -> None:
    def use(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
        with client.open_appender("/log") as one, client.open_appender("/log") as other:
            offsets = [appender.append(RECORD) for _ in range(10) for appender in (one, other)]
        assert sorted(offsets) == [number * len(RECORD) for number in range(20)]
        assert client.stat("/log").size_bytes == 20 * len(RECORD)

    with_cluster(tmp_path, use)
