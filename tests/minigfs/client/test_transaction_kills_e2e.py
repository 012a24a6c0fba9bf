"""A transaction of a hundred files, with a kill at each of its steps: all of it, or nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from tests.storage_cluster import StorageCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FILE_COUNT = 100

WRITER = """
import sys
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
client, root = MinigfsClient(ClientConfig.discover(home=sys.argv[1])), sys.argv[2]

def step(name):
    print(name, flush=True)

client.stat("/")
step("began")
with client.transaction() as change:
    change.require_missing(root)
    for number in range(100):
        with change.open_writer(f"{root}/part-{number:03}") as file:
            step(f"opened {number}")
            file.write(b"%03d" % number * 1_000)
        step(f"written {number}")
    step("committing")
step("committed")
"""
STEPS = ("began", "opened 0", "written 0", "opened 50", "written 99", "committing", "committed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageCluster]:
    with StorageCluster(tmp_path_factory.mktemp("kills"), chunk_bytes=1024) as cluster:
        yield cluster


def start(cluster: StorageCluster, root: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(cluster.home), root]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def until_step(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == wanted:
            return
    raise AssertionError(f"the writer ended before it {wanted!r}")


def check_all_or_none(client: MinigfsClient, root: str) -> int:
    found = list(client.find(root)) if client.exists(root) else []
    assert len(found) in (0, FILE_COUNT)
    for number, status in enumerate(found):
        with client.open_reader(status.path) as reader:
            assert reader.read_at(0, reader.size_bytes) == b"%03d" % number * 1_000
    return len(found)


def test_the_writer_is_killed_at_each_step(cluster: StorageCluster) -> None:
    counts = []
    for number, wanted in enumerate(STEPS):
        root = f"/writer-{number}"
        with start(cluster, root) as process:
            until_step(process, wanted)
            process.kill()
        counts.append(check_all_or_none(cluster.client, root))
    assert counts[:5] == [0] * 5
    assert counts[-1] == FILE_COUNT


def test_the_master_is_killed_at_each_step(cluster: StorageCluster) -> None:
    for number, wanted in enumerate(STEPS):
        root = f"/master-{number}"
        with start(cluster, root) as process:
            until_step(process, wanted)
            cluster.kill_master()
            cluster.start_master()
            assert process.wait(60) == 0 or wanted != "committed"
        is_done = process.returncode == 0
        assert check_all_or_none(cluster.client, root) == FILE_COUNT or not is_done


def test_a_chunkserver_is_killed_at_each_step(cluster: StorageCluster, tmp_path: Path) -> None:
    for number, wanted in enumerate(STEPS):
        root = f"/server-{number}"
        with start(cluster, root) as process:
            until_step(process, wanted)
            cluster.kill_chunkserver(number % 3)
            assert process.wait(60) == 0
        assert check_all_or_none(cluster.client, root) == FILE_COUNT
        cluster.start_chunkserver(number % 3)
        cluster.wait_for_chunkservers(3)
