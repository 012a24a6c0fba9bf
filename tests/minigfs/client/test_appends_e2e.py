"""Appending to files of a real cluster: exactly once, whatever server dies or hangs."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from minigfs.chunkserver.append_messages import AppendRecord, ResolveAppend
from minigfs.client.appender import Appender
from minigfs.client.client import MinigfsClient
from minigfs.client.patience import Patience
from minigfs.errors import (
    FileMissing,
    IsDirectory,
    MinigfsError,
    OutcomeUnknown,
    UsageError,
    WriterFenced,
)
from minigfs.master.append_messages import SettledChunk
from minigfs.master.messages import Stat
from minigfs.transport.client import ConnectionPool
from tests.append_history import AppendHistory, make_record
from tests.chunk_damage import chunk_file, flip, flip_records
from tests.stopping import stop
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK_BYTES = 64 * 1024
STALL_SECONDS_MAX = 3.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("appends")
    with StorageCluster(root / "cluster", chunk_bytes=CHUNK_BYTES, chunkservers=4) as running:
        yield running


@pytest.fixture
def client(cluster: StorageCluster) -> MinigfsClient:
    cluster.start()
    return cluster.client


def content_of(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def replicas_of(cluster: StorageCluster, client: MinigfsClient, path: str) -> list[list[bytes]]:
    """The sealed files of each chunk, by server that should have it."""
    found = []
    for chunk in client.locations(path).chunks:
        numbers = [cluster.number_of(replica.address) for replica in chunk.replicas]
        name = f"{chunk.handle:016x}.chunk"
        directories = [cluster.chunkservers[number].directory for number in numbers]
        found.append([(directory / "chunks" / name).read_bytes() for directory in directories])
    return found


@contextmanager
def appenders(
    client: MinigfsClient, path: str, count: int, lengths: list[int]
) -> Iterator[AppendHistory]:
    """Append from many threads while the block runs."""
    history, stop = AppendHistory(), threading.Event()

    def run(number: int) -> None:
        random = Random(number)
        with client.open_appender(path) as appender:
            record_number = 0
            while not stop.is_set():
                record = make_record(number, record_number, random.choice(lengths))
                try:
                    history.acknowledged[number, record_number] = appender.append(record)
                except OutcomeUnknown:
                    history.unknown.add((number, record_number))
                record_number += 1

    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(run, number) for number in range(count)]
        try:
            yield history
        finally:
            stop.set()
        for one in running:
            one.result()


def test_records_follow_each_other_over_chunk_borders(client: MinigfsClient) -> None:
    records = [make_record(1, number, 9_000) for number in range(20)]
    with client.open_appender("/log") as appender:
        offsets = [appender.append(record) for record in records]
    content = content_of(client, "/log")
    assert content == b"".join(records)
    assert offsets == [content.index(record) for record in records]
    located = client.locations("/log")
    assert [chunk.length_bytes for chunk in located.chunks][:-1] != []
    assert all(chunk.length_bytes < CHUNK_BYTES for chunk in located.chunks)
    assert client.stat("/log").size_bytes == len(content)


def test_a_written_file_grows_and_ranges_of_it_are_found(client: MinigfsClient) -> None:
    head = bytes(range(256)) * 300
    with client.open_writer("/grown") as writer:
        writer.write(head)
    assert client.append("/grown", b"one") == len(head)
    assert client.append("/grown", b"two") == len(head) + 3
    whole = head + b"onetwo"
    with client.open_reader("/grown") as reader:
        assert reader.read_at(len(head) - 5, 100) == whole[-11:]
        assert reader.read_at(len(head) + 4, 1) == b"w"
        assert bytes(reader.read_buffer(0, len(whole))) == whole
        assert b"".join(reader.buffers(10, len(whole))) == whole[10:]
    last = client.locations("/grown", len(head) + 3, 1)
    assert [last.start_bytes(chunk.index) for chunk in last.chunks] == [len(head) + 3]


def test_what_was_acknowledged_is_read_while_the_file_is_open(client: MinigfsClient) -> None:
    with client.open_appender("/open") as appender:
        expected = b""
        for number in range(12):
            record = make_record(1, number, 15_000 if number % 3 == 0 else 50)
            appender.append(record)
            expected += record
            assert content_of(client, "/open") == expected
            assert client.stat("/open").size_bytes == len(expected)
        with client.open_reader("/open") as reader:
            appender.append(b"later")
            assert reader.size_bytes == len(expected)
            appender.close()
            assert reader.read_at(0, len(expected)) == expected
    assert not client.stat("/open").is_open


def test_what_cannot_be_appended_is_refused(client: MinigfsClient) -> None:
    client.make_directory("/folder", exist_ok=True)
    with pytest.raises(IsDirectory):
        client.open_appender("/folder")
    with pytest.raises(FileMissing):
        client.open_appender("/nothing", create=False)
    with client.open_appender("/refused") as appender:
        for wrong in (b"", bytes(CHUNK_BYTES // 4 + 1)):
            with pytest.raises(UsageError):
                appender.append(wrong)
        assert appender.append(bytes(CHUNK_BYTES // 4)) == 0
    with pytest.raises(WriterFenced):
        appender.append(b"closed")


def test_appending_to_a_file_that_was_removed_says_so(client: MinigfsClient) -> None:
    appender = client.open_appender("/removed")
    appender.append(b"x")
    client.remove("/removed")

    def fill_a_chunk() -> None:
        for number in range(30):
            appender.append(make_record(1, number, 15_000))

    with pytest.raises(FileMissing):
        fill_a_chunk()
    with pytest.raises(FileMissing):
        appender.close()
    assert not client.exists("/removed")


def test_many_appenders_share_a_file_and_all_replicas_are_the_same_bytes(
    cluster: StorageCluster, client: MinigfsClient
) -> None:
    with appenders(client, "/shared", 8, [10, 200, 10_000]) as history:
        time.sleep(1.5)
    history.check(content_of(client, "/shared"))
    assert not history.unknown
    assert len(history.acknowledged) > 50
    for copies in replicas_of(cluster, client, "/shared"):
        assert len(copies) == 3
        header_bytes = 4096  # slots tell of mutations, and one member may know more of the others
        assert {copy[-header_bytes:] for copy in copies} == {copies[0][-header_bytes:]}


def test_a_killed_server_costs_no_record_and_little_time(
    cluster: StorageCluster, client: MinigfsClient
) -> None:
    with appenders(client, "/killed", 4, [10, 5_000]) as history:
        for number in (0, 1):
            time.sleep(0.7)
            cluster.kill_chunkserver(number)
            time.sleep(0.5)
            cluster.start_chunkserver(number)
        time.sleep(0.5)
    history.check(content_of(client, "/killed"))
    assert not history.unknown


@pytest.mark.parametrize("members", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_members_that_hang_stall_an_appender_for_less_than_three_seconds(
    cluster: StorageCluster, client: MinigfsClient, members: tuple[int, ...]
) -> None:
    path = f"/hangs-{'-'.join(map(str, members))}"
    with client.open_appender(path) as appender:
        start_bytes = append_on_three_servers(client, appender)
        replicas = client.locations(path).chunks[-1].replicas
        hanging = [cluster.number_of(replicas[member].address) for member in members]
        for number in hanging:
            cluster.pause_chunkserver(number)
        try:
            began = time.monotonic()
            appender.append(b"during ")
            assert time.monotonic() - began < STALL_SECONDS_MAX
        finally:
            for number in hanging:
                cluster.resume_chunkserver(number)
        appender.append(b"after")
    assert content_of(client, path)[start_bytes:] == b"before during after"


def append_on_three_servers(client: MinigfsClient, appender: Appender) -> int:
    """Append in an open chunk that has three members; where that was. Whoever hung a moment ago
    is given no chunk for a second."""
    offset = -1

    def is_on_three() -> bool:
        nonlocal offset
        offset = appender.append(b"before ")
        if len(client.locations(appender.path).chunks[-1].replicas) == 3:
            return True
        client.clone(appender.path, f"{appender.path}.{offset}")  # which ends the open chunk
        return False

    until(is_on_three)
    return offset


def test_an_open_file_survives_the_end_of_every_process(
    cluster: StorageCluster, client: MinigfsClient
) -> None:
    appender = client.open_appender("/crashed")
    records = [make_record(1, number, 700) for number in range(30)]
    for record in records:
        appender.append(record)
    cluster.kill_everything()
    cluster.start()
    again = cluster.client
    until(lambda: content_of(again, "/crashed") == b"".join(records))
    assert appender.append(b"!") == len(b"".join(records))
    appender.close()
    assert content_of(again, "/crashed") == b"".join(records) + b"!"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "stop", "everything"])
def test_eight_appenders_through_many_faults(tmp_path: Path, fault: str) -> None:
    with StorageCluster(tmp_path / "cluster", chunk_bytes=256 * 1024) as cluster:
        random, client = Random(fault), cluster.client
        with appenders(client, "/log", 8, [10, 100, 1_000, 20_000, 60_000]) as history:
            for _ in range(8):
                time.sleep(1.0)
                inject(cluster, fault, random.randrange(3))
        history.check(content_of(client, "/log"))
        assert len(history.acknowledged) > 100
        for copies in replicas_of(cluster, client, "/log"):
            assert {copy[-4096:] for copy in copies} == {copies[0][-4096:]}


def inject(cluster: StorageCluster, fault: str, number: int) -> None:
    if fault == "kill":
        cluster.kill_chunkserver(number)
        time.sleep(0.5)
        cluster.start_chunkserver(number)
    elif fault == "stop":
        process = cluster.chunkservers[number].process
        assert process is not None
        stop(process)
        time.sleep(4.0)
        process.send_signal(signal.SIGCONT)
    else:
        cluster.kill_everything()
        cluster.start()


@pytest.mark.slow
def test_a_file_whose_appender_has_died_is_sealed_within_seconds(
    cluster: StorageCluster, client: MinigfsClient
) -> None:
    program = (
        "import os, sys, time\n"
        "from minigfs.client.client import MinigfsClient\n"
        "from minigfs.client.config import ClientConfig\n"
        "client = MinigfsClient(ClientConfig.discover(home=sys.argv[1]))\n"
        "appender = client.open_appender('/orphan')\n"
        "appender.append(b'left behind')\n"
        "time.sleep(1)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(cluster.home)], check=True)
    deadline = time.monotonic() + 10
    request = Stat(path="/orphan")
    while client._masters.call(request).is_open:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert content_of(client, "/orphan") == b"left behind"


def test_an_acknowledged_record_outlives_a_flipped_byte_and_the_death_of_the_primary(
    cluster: StorageCluster, client: MinigfsClient
) -> None:
    """The member with the damage has lost its last mutation, and cannot tell whether all members
    had it: what another has is kept."""
    path = "/flipped"
    with client.open_appender(path) as appender:
        start_bytes = append_on_three_servers(client, appender)
        appender.append(b"acknowledged ")
        (chunk,) = client.locations(path).chunks[-1:]
        primary, damaged = (cluster.number_of(one.address) for one in chunk.replicas[:2])
        file = cluster.chunkservers[damaged].directory / "open" / f"{chunk.handle:016x}.chunk"
        cluster.kill_chunkserver(damaged)
        flip(file, file.read_bytes().index(b"acknowledged "))
        cluster.kill_chunkserver(primary)
        cluster.start_chunkserver(damaged)
        appender.append(b"after")
    assert content_of(client, path)[start_bytes:] == b"before acknowledged after"
    cluster.start()


def test_a_damaged_table_of_records_is_made_whole_and_keeps_a_record_from_being_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to an append is lost; before it is asked for again, the replica that is left in
    the end has its table damaged, and repaired."""
    call, resolve = ConnectionPool.call, Appender._resolve
    with StorageCluster(tmp_path, chunk_bytes=CHUNK_BYTES) as cluster:

        def lose_answer(pool: ConnectionPool, address: str, request: Any, **options: Any) -> Any:
            reply = call(pool, address, request, **options)
            if isinstance(request, AppendRecord):
                raise OutcomeUnknown("the answer is lost")
            return reply

        def resolve_late(appender: Appender, settled: SettledChunk, patience: Patience) -> Any:
            first, *others = (cluster.number_of(one.address) for one in settled.replicas)
            path = chunk_file(cluster.chunkservers[first].directory, settled.handle)
            until(path.exists)
            flip_records(path)
            until(lambda: knows_the_record(settled.replicas[0].address, appender, settled))
            for number in others:
                cluster.kill_chunkserver(number)
            return resolve(appender, settled, patience)

        def knows_the_record(address: str, appender: Appender, settled: SettledChunk) -> bool:
            """Once the table is whole again; it is this question that finds it damaged."""
            request = ResolveAppend(
                handle=settled.handle,
                version=settled.version,
                appender_id=appender._appender_id,
                sequence=appender._sequence,
            )
            try:
                return call(appender._pool, address, request).offset_bytes >= 0
            except MinigfsError:
                return False

        appender = cluster.client.open_appender("/log")
        appender.append(b"first ")
        monkeypatch.setattr(ConnectionPool, "call", lose_answer)
        monkeypatch.setattr(Appender, "_resolve", resolve_late)
        assert appender.append(b"second") == len(b"first ")
        monkeypatch.undo()
        cluster.start()
        appender.close()
        assert content_of(cluster.client, "/log") == b"first second"
