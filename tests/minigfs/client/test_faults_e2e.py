"""Processes are killed, bytes rot, disks fill: closed files stay right, and waits stay short."""

import hashlib
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from minigfs.chunkserver.checksum import block_sums, digest_of_table
from minigfs.chunkserver.chunk_file import decode_header, encode_header
from minigfs.client import upload
from minigfs.client.client import MinigfsClient
from minigfs.errors import CorruptChunk, NoSpace, Unreachable
from tests.stopping import stop
from tests.storage_cluster import StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 256 * 1024
STALL_SECONDS_MAX = 3.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    root = tmp_path_factory.mktemp("faults")
    # Whoever borrows chunk files does not even notice most of this: see test_lent_chunks_e2e.
    with StorageCluster(root, chunk_bytes=CHUNK, lends=False) as started:
        yield started


@pytest.fixture(autouse=True)
def _whole_again(cluster: StorageCluster) -> Iterator[None]:
    yield
    cluster.start()


def write_file(client: MinigfsClient, path: str, content: bytes) -> None:
    with client.open_writer(path) as writer:
        writer.write(content)


def read_file(client: MinigfsClient, path: str) -> bytes:
    reader = client.open_reader(path)
    return reader.read_at(0, reader.size_bytes)


_timeouts_ms = itertools.count(10_001)


def unsuspecting(cluster: StorageCluster) -> MinigfsClient:
    """A client that shares nothing with others, so no server is suspect from an earlier test."""
    return MinigfsClient(replace(cluster.config, timeout_ms=next(_timeouts_ms)))


def damage(path: Path, offset_from_end: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[-offset_from_end] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_server_killed_in_the_middle_of_a_write_costs_nothing_but_a_moment(
    cluster: StorageCluster, place: int
) -> None:
    content = os.urandom(8 * CHUNK)
    client = cluster.client
    writer = client.open_writer(f"/killed-write-{place}")
    longest = 0.0
    for number, start in enumerate(range(0, len(content), 10_000)):
        if number == 77:
            cluster.kill_chunkserver(place)
        before = time.monotonic()
        writer.write(content[start : start + 10_000])
        longest = max(longest, time.monotonic() - before)
    before = time.monotonic()
    status = writer.close()
    assert max(longest, time.monotonic() - before) < STALL_SECONDS_MAX
    assert status.size_bytes == len(content)
    assert read_file(client, f"/killed-write-{place}") == content


@contextmanager
def paused(cluster: StorageCluster, *numbers: int) -> Iterator[None]:
    for number in numbers:
        cluster.pause_chunkserver(number)
    try:
        yield
    finally:
        for number in numbers:
            cluster.resume_chunkserver(number)


@pytest.mark.parametrize("hanging", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_servers_that_hang_stall_a_writer_for_less_than_three_seconds(
    cluster: StorageCluster, hanging: tuple[int, ...]
) -> None:
    """They break no connection, and a disk may be slow: only a ping tells them from busy ones."""
    name = "-".join(map(str, hanging))
    content = os.urandom(3 * CHUNK)
    client = unsuspecting(cluster)
    longest = 0.0
    writer = client.open_writer(f"/hanging-writers/{name}")
    writer.write(content[:CHUNK])
    with paused(cluster, *hanging):
        for call in (lambda: writer.write(content[CHUNK:]), writer.close):
            before = time.monotonic()
            call()
            longest = max(longest, time.monotonic() - before)
        assert read_file(client, f"/hanging-writers/{name}") == content
    assert longest < STALL_SECONDS_MAX


@pytest.mark.parametrize("silent_count", [2, 3])
def test_a_writer_to_which_all_servers_seem_to_hang_gives_none_up_for_good(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch, silent_count: int
) -> None:
    """A machine that is too busy to hear the answers: pings say less than a server that works."""
    client = unsuspecting(cluster)
    monkeypatch.setattr(upload, "silent_servers", lambda _, chain: chain[:silent_count])
    cluster.kill_chunkserver(0)
    write_file(client, f"/busy-{silent_count}", b"x" * 3 * CHUNK)
    assert read_file(client, f"/busy-{silent_count}") == b"x" * 3 * CHUNK


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_server_killed_in_the_middle_of_a_read_costs_nothing_but_a_moment(
    cluster: StorageCluster, place: int
) -> None:
    content = os.urandom(8 * CHUNK)
    client = cluster.client
    write_file(client, f"/killed-read-{place}", content)
    reader = client.open_reader(f"/killed-read-{place}")
    read = b""
    longest = 0.0
    while len(read) < len(content):
        if place >= 0 and len(read) > 2 * CHUNK:
            cluster.kill_chunkserver(place)
            place = -1
        before = time.monotonic()
        read += reader.read_at(len(read), 30_000)
        longest = max(longest, time.monotonic() - before)
    assert read == content
    assert longest < STALL_SECONDS_MAX


def test_a_server_that_hangs_holds_up_a_read_for_a_moment_only(cluster: StorageCluster) -> None:
    client = unsuspecting(cluster)
    write_file(client, "/hanging", b"h" * 1000)
    (chunk,) = client.locations("/hanging").chunks
    hanging = cluster.chunkservers[cluster.number_of(chunk.replicas[chunk.handle % 3].address)]
    assert hanging.process is not None
    stop(hanging.process)
    try:
        for seconds_max in (STALL_SECONDS_MAX, 0.5):  # the second reader knows
            started = time.monotonic()
            assert read_file(client, "/hanging") == b"h" * 1000
            assert time.monotonic() - started < seconds_max
    finally:
        hanging.process.send_signal(signal.SIGCONT)


def test_a_server_that_stops_between_two_reads_costs_less_than_a_second(
    cluster: StorageCluster,
) -> None:
    """The connection is there already; only the answer does not come: the next is asked too."""
    client = unsuspecting(cluster)
    content = os.urandom(CHUNK)
    write_file(client, "/hedged", content)
    reader = client.open_reader("/hedged")
    assert reader.read_at(0, 1000) == content[:1000]
    (chunk,) = client.locations("/hedged").chunks
    slow = cluster.chunkservers[cluster.number_of(chunk.replicas[chunk.handle % 3].address)]
    assert slow.process is not None
    stop(slow.process)
    try:
        started = time.monotonic()
        assert reader.read_at(0, CHUNK) == content
        assert time.monotonic() - started < 1.0
    finally:
        slow.process.send_signal(signal.SIGCONT)


def test_two_of_three_servers_may_be_dead(cluster: StorageCluster) -> None:
    client = cluster.client
    write_file(client, "/before", b"before" * 1000)
    cluster.kill_chunkserver(0)
    cluster.kill_chunkserver(2)
    write_file(client, "/during", b"during" * 1000)
    assert read_file(client, "/before") == b"before" * 1000
    assert read_file(client, "/during") == b"during" * 1000


def test_without_any_server_a_read_says_which_chunk_nobody_has(cluster: StorageCluster) -> None:
    write_file(cluster.client, "/unreachable", b"x" * 100)
    for number in range(3):
        cluster.kill_chunkserver(number)
    impatient = MinigfsClient(replace(cluster.config, timeout_ms=1000))
    with pytest.raises(Unreachable, match="/unreachable, chunk 0"):
        read_file(impatient, "/unreachable")


def test_a_read_waits_for_a_server_that_comes_back(cluster: StorageCluster) -> None:
    write_file(cluster.client, "/patient", b"x" * 100)
    for number in range(3):
        cluster.kill_chunkserver(number)
    starter = threading.Timer(0.5, cluster.start)
    starter.start()
    assert read_file(cluster.client, "/patient") == b"x" * 100
    starter.join()


def test_a_damaged_replica_is_passed_over_and_reported(cluster: StorageCluster) -> None:
    client = unsuspecting(cluster)
    content = os.urandom(CHUNK)
    write_file(client, "/damaged-once", content)
    (chunk,) = client.locations("/damaged-once").chunks
    first = chunk.replicas[chunk.handle % 3]
    server = cluster.chunkservers[cluster.number_of(first.address)]
    path = server.directory / "chunks" / f"{chunk.handle:016x}.chunk"
    sound = path.read_bytes()
    damage(path)
    assert read_file(client, "/damaged-once") == content
    (chunk,) = client.locations("/damaged-once").chunks
    assert len(chunk.replicas) >= 2
    assert first not in chunk.replicas or path.read_bytes() == sound, "offered before it was healed"


def test_damage_everywhere_is_an_error_that_names_the_path(cluster: StorageCluster) -> None:
    client = cluster.client
    write_file(client, "/damaged-everywhere", os.urandom(2 * CHUNK))
    chunk = client.locations("/damaged-everywhere").chunks[1]
    for server in cluster.chunkservers:
        damage(server.directory / "chunks" / f"{chunk.handle:016x}.chunk")
    for _ in range(2):  # the second reader hears it as clearly as the first
        started = time.monotonic()
        with pytest.raises(CorruptChunk, match="/damaged-everywhere, chunk 1"):
            read_file(client, "/damaged-everywhere")
        assert time.monotonic() - started < STALL_SECONDS_MAX


def test_a_whole_replica_of_other_bytes_is_held_against_the_published_digest(
    cluster: StorageCluster,
) -> None:
    client = unsuspecting(cluster)
    write_file(client, "/right", b"r" * 1000)
    (chunk,) = client.locations("/right").chunks
    first = chunk.replicas[chunk.handle % 3]
    path = (
        cluster.chunkservers[cluster.number_of(first.address)].directory
        / "chunks"
        / f"{chunk.handle:016x}.chunk"
    )
    path.write_bytes(forged(path.read_bytes(), b"w" * 1000))
    assert read_file(client, "/right") == b"r" * 1000


def forged(chunk_file: bytes, data: bytes) -> bytes:
    """A chunk file whose every sum is right, for bytes that were never published."""
    header, layout = decode_header(chunk_file)
    table = block_sums(data, handle=header.handle, first_block=0)
    start = encode_header(replace(header, digest=digest_of_table(table))) + table
    return start.ljust(layout.data_offset, b"\0") + data


def test_every_closed_file_survives_the_death_of_every_process(cluster: StorageCluster) -> None:
    client = cluster.client
    sums: dict[str, str] = {}
    for number, size in enumerate([0, 1, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 17]):
        content = os.urandom(size)
        write_file(client, f"/survivors/{number}", content)
        sums[f"/survivors/{number}"] = hashlib.sha256(content).hexdigest()
    unfinished = client.open_writer("/survivors/never-closed")
    unfinished.write(os.urandom(2 * CHUNK))
    cluster.kill_everything()
    unfinished.discard()
    cluster.start()
    found = {s.path for s in client.find("/survivors")}
    assert found == set(sums)
    for path, expected in sums.items():
        assert hashlib.sha256(read_file(client, path)).hexdigest() == expected


def test_a_write_that_is_under_way_survives_a_restart_of_the_master(
    cluster: StorageCluster,
) -> None:
    content = os.urandom(6 * CHUNK)
    client = cluster.client
    writer = client.open_writer("/master-restart")
    writer.write(content[: 3 * CHUNK])
    cluster.kill_master()
    starter = threading.Thread(target=cluster.start_master)
    starter.start()
    writer.write(content[3 * CHUNK :])
    writer.close()
    starter.join()
    assert read_file(client, "/master-restart") == content


def test_a_disk_that_fills_up_is_no_space_and_publishes_nothing(tmp_path: Path) -> None:
    with StorageCluster(tmp_path / "full", chunk_bytes=1024 * 1024, file_bytes_max=300_000) as full:
        write_file(full.client, "/fits", b"x" * 200_000)
        with pytest.raises(NoSpace):
            write_file(full.client, "/too-big", b"x" * 400_000)
        assert not full.client.exists("/too-big")
        assert read_file(full.client, "/fits") == b"x" * 200_000


def test_small_chunks_are_written_fast_enough(tmp_path: Path) -> None:
    """300 chunks of 1 KiB a second on an idle machine; a quarter of that proves concurrency."""
    with StorageCluster(tmp_path / "small", chunk_bytes=1024) as small:
        started = time.monotonic()
        write_file(small.client, "/many", os.urandom(300 * 1024))
        assert 300 / (time.monotonic() - started) > 75
        assert re.fullmatch("[0-9a-f]{1,16}", small.client.stat("/many").digest)
