"""Whatever befalls chunk files on disk is found, named and told to the master."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigfs.client.checking import Finding, FindingKind, ReplicaChecker
from minigfs.config import CHECKSUM_BLOCK_BYTES as BLOCK
from minigfs.errors import CorruptChunk
from tests.chunk_damage import chunk_file, exchange, flip, forge
from tests.storage_cluster import ChunkserverHandle, StorageCluster

pytestmark = pytest.mark.e2e

CHUNK = 3 * BLOCK


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    """Nothing is repaired, so that all that is found can be looked at."""
    root = tmp_path_factory.mktemp("integrity")
    with StorageCluster(root, chunk_bytes=CHUNK, repairs=False) as started:
        yield started


@pytest.fixture(scope="module")
def healing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    with StorageCluster(tmp_path_factory.mktemp("healing"), chunk_bytes=CHUNK) as started:
        yield started


def write(cluster: StorageCluster, path: str, size_bytes: int = 2 * CHUNK) -> bytes:
    content = os.urandom(size_bytes)
    with cluster.client.open_writer(path) as writer:
        writer.write(content)
    return content


def check(cluster: StorageCluster, path: str, *, quick: bool = False) -> list[Finding]:
    with ReplicaChecker(cluster.config, quick=quick) as checker:
        return [finding for checked in checker.check(path) for finding in checked.findings]


def file_of(cluster: StorageCluster, path: str, index: int, server: int) -> Path:
    chunk = cluster.client.locations(path, index * CHUNK, 1).chunks[0]
    return chunk_file(cluster.chunkservers[server].directory, chunk.handle)


def restart(cluster: StorageCluster, number: int) -> ChunkserverHandle:
    cluster.kill_chunkserver(number)
    cluster.start()
    return cluster.chunkservers[number]


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.1)


def test_what_is_whole_gives_no_finding(cluster: StorageCluster) -> None:
    write(cluster, "/whole/two")
    write(cluster, "/whole/none", 0)
    write(cluster, "/whole/odd", CHUNK + 1)
    with ReplicaChecker(cluster.config) as checker:
        found = list(checker.check("/whole"))
    assert [(one.path, one.chunk and one.chunk.index) for one in found] == [
        ("/whole/none", None),
        ("/whole/odd", 0),
        ("/whole/odd", 1),
        ("/whole/two", 0),
        ("/whole/two", 1),
    ]
    assert [one.sound_count for one in found] == [0, 3, 3, 3, 3]
    assert not any(one.findings for one in found)


def test_a_flipped_bit_is_named_with_its_block(cluster: StorageCluster) -> None:
    write(cluster, "/flipped")
    path = file_of(cluster, "/flipped", 1, server=2)
    flip(path, -BLOCK - 1)
    (found,) = check(cluster, "/flipped")
    assert (found.kind, found.path, found.chunk, found.block) == ("damaged", "/flipped", 1, 1)
    assert found.handle == path.stem
    assert found.server == cluster.chunkservers[2].address
    assert found.host == "host-2"


def test_files_that_were_removed_cut_or_swapped_are_found_without_reading_the_data(
    cluster: StorageCluster,
) -> None:
    write(cluster, "/glance", 4 * CHUNK)
    files = [file_of(cluster, "/glance", index, server=0) for index in range(4)]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    exchange(files[2], files[3])
    found = {(one.chunk, one.kind) for one in check(cluster, "/glance", quick=True)}
    assert found == {(0, "missing"), (1, "damaged"), (2, "damaged"), (3, "damaged")}


def test_a_replica_that_was_rolled_back_is_held_against_the_log_and_its_block_named(
    cluster: StorageCluster,
) -> None:
    content = write(cluster, "/rolled-back")
    path = file_of(cluster, "/rolled-back", 0, server=1)
    forge(path, change_from=BLOCK + 5)
    assert [one.kind for one in check(cluster, "/rolled-back")] == ["damaged"]
    restart(cluster, 1)  # now the server believes its file; the log does not
    (found,) = check(cluster, "/rolled-back")
    assert (found.kind, found.chunk, found.block) == ("different", 0, 1)

    def is_left_out() -> bool:  # once the server has reported what it has
        chunk = cluster.client.locations("/rolled-back").chunks[0]
        return cluster.chunkservers[1].address not in {one.address for one in chunk.replicas}

    until(is_left_out)
    with cluster.client.open_reader("/rolled-back") as reader:
        assert reader.read_at(0, len(content)) == content


def test_a_replica_of_an_older_version_is_told_by_it(cluster: StorageCluster) -> None:
    write(cluster, "/version-0", CHUNK)
    forge(file_of(cluster, "/version-0", 0, server=0), version=0)
    restart(cluster, 0)
    (found,) = check(cluster, "/version-0")
    assert (found.kind, found.detail) == (FindingKind.STALE, "version 0, not 1")


def test_a_replica_of_a_version_that_was_never_given_is_set_aside_and_kept(
    healing: StorageCluster,
) -> None:
    """Neither served nor deleted, told until a person takes it away; another takes its place."""
    content = write(healing, "/ahead", CHUNK)
    path = file_of(healing, "/ahead", 0, server=0)
    forge(path, change_from=5, version=7)
    forged = path.read_bytes()
    restart(healing, 0)

    def is_healed() -> bool:
        return [one.kind for one in check(healing, "/ahead")] == [FindingKind.SET_ASIDE]

    until(is_healed)
    (found,) = check(healing, "/ahead")
    assert (found.server, found.chunk) == (healing.chunkservers[0].address, 0)
    assert found.detail.startswith("version 7, not 1")
    told = command(healing, "fsck", "/ahead")
    assert (told.returncode, "set-aside" in told.stdout) == (0, True)
    with healing.client.open_reader("/ahead") as reader:
        assert reader.read_at(0, len(content)) == content

    healing.client.remove("/ahead", now=True)
    restart(healing, 0)
    until(lambda: not path.exists())
    (kept,) = (healing.chunkservers[0].directory / "quarantine").glob("*.version-7.*")
    assert kept.read_bytes() == forged
    until(lambda: healing.client.report().health == "DEGRADED")
    (reason,) = healing.client.report().reasons
    assert healing.chunkservers[0].address in reason
    kept.unlink()
    restart(healing, 0)  # or soon
    until(lambda: healing.client.report().health == "OK")


def test_the_server_finds_a_removed_file_by_itself_within_seconds(cluster: StorageCluster) -> None:
    write(cluster, "/removed", CHUNK)
    file_of(cluster, "/removed", 0, server=1).unlink()
    until(lambda: len(cluster.client.locations("/removed").chunks[0].replicas) == 2)
    assert cluster.client.report().health != "OK"


def test_the_same_block_bad_everywhere_is_an_error_that_names_all_of_it_at_once(
    cluster: StorageCluster,
) -> None:
    write(cluster, "/everywhere", CHUNK)
    for server in range(3):
        flip(file_of(cluster, "/everywhere", 0, server))
    began = time.monotonic()
    with pytest.raises(CorruptChunk) as caught, cluster.client.open_reader("/everywhere") as reader:
        reader.read_at(0, CHUNK)
    assert time.monotonic() - began < 3
    message = str(caught.value)
    assert "/everywhere, chunk 0" in message
    assert "block 2" in message
    assert all(server.address in message for server in cluster.chunkservers)
    kinds = [one.kind for one in check(cluster, "/everywhere")]
    assert kinds == ["damaged", "damaged", "damaged", "lost"]


def test_a_chunk_that_all_its_servers_have_lost_is_an_error_within_moments(
    cluster: StorageCluster,
) -> None:
    write(cluster, "/lost", CHUNK)
    for server in range(3):
        file_of(cluster, "/lost", 0, server).unlink()
    check(cluster, "/lost")  # so all of them know
    until(lambda: not cluster.client.locations("/lost").chunks[0].replicas)
    began = time.monotonic()
    with (
        pytest.raises(CorruptChunk, match=r"/lost, chunk 0 .* lost: its servers"),
        cluster.client.open_reader("/lost") as reader,
    ):
        reader.read_at(0, CHUNK)
    assert time.monotonic() - began < 5


def test_a_server_that_is_down_is_no_damage(cluster: StorageCluster) -> None:
    write(cluster, "/down", CHUNK)
    cluster.kill_chunkserver(2)
    try:
        found = check(cluster, "/down")
    finally:
        cluster.start()
    assert [one.kind for one in found] == ["unreachable"]
    assert not any(one.is_damage for one in found)


AT_REST: dict[str, Callable[[Path, Path], object]] = {
    "flipped": lambda path, _: flip(path, -BLOCK - 1),
    "removed": lambda path, _: path.unlink(),
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path, _: path.write_bytes(b""),
    "swapped": exchange,
    "rolled back": lambda path, _: forge(path, change_from=7),
    "of an older version": lambda path, _: forge(path, version=0),
}


@pytest.mark.parametrize("with_restart", [False, True], ids=["", "restarted"])
def test_every_kind_of_damage_is_healed_by_a_scrub_and_fsck_is_clean_afterwards(
    healing: StorageCluster, with_restart: bool
) -> None:
    """One file for each kind, all harmed on one server at once."""
    contents = {}
    for number, kind in enumerate(AT_REST):
        path = f"/{with_restart}/{kind}"
        contents[path] = write(healing, path)
        first, second = (file_of(healing, path, index, number % 3) for index in (0, 1))
        AT_REST[kind](first, second)
    if with_restart:
        for number in range(3):
            restart(healing, number)
    with ReplicaChecker(healing.config) as checker:
        found = [one for checked in checker.check("/") for one in checked.findings]
        for finding in found:
            if finding.is_damage:
                checker.report(finding)
        assert checker.await_repair(found, timeout_ms=30_000) == []
    until(lambda: check(healing, "/") == [])
    until(lambda: healing.client.report().health == "OK")
    for path, content in contents.items():
        with healing.client.open_reader(path) as reader:
            assert reader.read_at(0, len(content)) == content


def test_fsck_with_repair_says_what_it_had_replaced(healing: StorageCluster) -> None:
    write(healing, "/repair/one", CHUNK)
    flip(file_of(healing, "/repair/one", 0, server=1))
    repaired = command(healing, "fsck", "/repair", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "block 2 has a wrong sum" in repaired.stdout
    assert "repaired: 1 of 1" in repaired.stdout
    assert command(healing, "fsck", "/repair").returncode == 0
    write(healing, "/repair/lost", CHUNK)
    for server in range(3):
        file_of(healing, "/repair/lost", 0, server).unlink()
    with ReplicaChecker(healing.config) as checker:
        (checked,) = checker.check("/repair/lost")
    assert [one.kind for one in checked.findings] == ["missing", "missing", "missing", "lost"]
    healing.client.remove("/repair/lost")


def command(cluster: StorageCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "minigfs", *arguments, "--dir", str(cluster.home)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commands_say_it_by_line_by_json_and_by_exit_code(cluster: StorageCluster) -> None:
    content = write(cluster, "/cli/file", CHUNK + 100)
    fine = command(cluster, "fsck", "/cli")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert "1 file, 2 chunks, 6 sound replicas" in fine.stdout
    digest = cluster.client.stat("/cli/file").digest
    summed = command(cluster, "checksum", "--verify", "/cli/file")
    assert (summed.returncode, summed.stdout) == (0, f"{digest}  /cli/file\n")
    located = json.loads(command(cluster, "locations", "/cli/file", "--json").stdout)
    assert [len(chunk["replicas"]) for chunk in located["chunks"]] == [3, 3]
    assert sum(chunk["length_bytes"] for chunk in located["chunks"]) == len(content)

    flip(file_of(cluster, "/cli/file", 0, server=0))
    scrubbed = command(cluster, "scrub", "/cli")
    assert scrubbed.returncode == 4
    assert "/cli/file: chunk 0 (" in scrubbed.stdout
    assert "block 2 has a wrong sum" in scrubbed.stdout
    checked = command(cluster, "fsck", "/cli", "--json")
    assert checked.returncode == 4
    answer = json.loads(checked.stdout)
    assert (answer["files"], answer["chunks"], answer["sound_replicas"]) == (1, 2, 5)
    assert answer["found"] == {"damaged": 1}
    assert answer["findings"][0]["block"] == 2
    assert len(answer["left"]) == 1
    assert command(cluster, "fsck", "/not-there").returncode == 1
