"""Eight appenders while the leading master and chunkservers are killed: every record once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, load_state, start_missing, stop_all
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from minigfs.errors import MinigfsError, OutcomeUnknown
from tests.append_history import AppendHistory, make_record

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 6
APPENDERS = 8


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[ClusterLayout]:
    layout = ClusterLayout(tmp_path / "home")
    with layout.locked():
        prepare_storage(layout, StorageShape(masters=3, chunk_bytes=256 * 1024))
    mend(layout)
    yield layout
    with layout.locked():
        state = load_state(layout)
        assert state is not None
        stop_all(layout, state)


def mend(layout: ClusterLayout) -> None:
    with layout.locked():
        state = load_state(layout)
        assert state is not None
        await_storage(layout, start_missing(layout, state, STORAGE_KINDS))


def kill_one(client: MinigfsClient, random: Random, kind: str) -> None:
    report = client.report()
    if kind == "leader":
        pids = [master.pid for master in report.masters if master.role == "leader"]
    else:
        pids = [server.pid for server in report.chunkservers if server.alive]
    os.kill(random.choice(pids), signal.SIGKILL)


def test_every_acknowledged_record_is_there_once(layout: ClusterLayout) -> None:
    client = MinigfsClient(ClientConfig.discover(home=str(layout.home)))
    history, stop, random = AppendHistory(), threading.Event(), Random(7)

    def run(number: int) -> None:
        appender, lengths = client.open_appender("/log"), Random(number)
        for record_number in range(1_000_000):
            if stop.is_set():
                return
            key = (number, record_number)
            record = make_record(*key, lengths.choice([10, 1_000, 30_000]))
            try:
                history.acknowledged[key] = appender.append(record)
            except OutcomeUnknown:
                history.unknown.add(key)
            except MinigfsError:
                history.refused.add(key)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(APPENDERS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            time.sleep(1.0)
            kill_one(client, random, random.choice(["leader", "chunkserver"]))
            time.sleep(1.0)
            mend(layout)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    with client.open_reader("/log") as reader:
        history.check(reader.read_at(0, reader.size_bytes))
    assert len(history.acknowledged) > 50
    assert not history.refused
