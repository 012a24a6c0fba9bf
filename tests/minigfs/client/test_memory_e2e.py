"""Files of any size pass through a client of any size: memory does not grow with the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage_cluster import StorageCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FILE_BYTES = 600 << 20
LIMIT_BYTES = 400 << 20  # of data: two chunks in flight to the servers, and Python itself

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
import xxhash
from minigfs.fs import MinigfsFileSystem

fs = MinigfsFileSystem(home=sys.argv[1])
size = int(sys.argv[3])
block = bytes(range(256)) * 4096
written = xxhash.xxh3_64()
with fs.open("/large", "wb") as file:
    for _ in range(size // len(block)):
        file.write(block)
        written.update(block)
if sys.argv[4] == "far":
    fs.client._shared.lenders.can_lend = lambda replica: False
for length in (1 << 16, 8 << 20):
    read = xxhash.xxh3_64()
    with fs.open("/large", "rb") as file:
        while piece := file.read(length):
            read.update(piece)
    assert read.digest() == written.digest()
fs.get_file("/large", sys.argv[1] + "/copy")
"""


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_file_larger_than_the_memory_allowed_is_written_and_read(
    tmp_path: Path, where: str
) -> None:
    with StorageCluster(tmp_path / "c", chunkservers=1, replication=1) as cluster:
        done = subprocess.run(
            [
                *(sys.executable, "-c", PROGRAM),
                *(str(cluster.home), str(LIMIT_BYTES), str(FILE_BYTES), where),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert (cluster.home / "copy").stat().st_size == FILE_BYTES
