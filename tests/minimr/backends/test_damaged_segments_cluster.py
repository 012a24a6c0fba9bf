"""A byte of a map output changes on a worker's disk, where another host fetches it from: that map
runs again, and nothing else; the output is the same."""

import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest

from minimr.ids import JobId
from minimr.job import Job
from minimr.messages import JobState, JobStatus
from tests.minimr.backends.tiny_jobs import spec_for, split_of
from tests.minimr.backends.worker_cluster import WorkerCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LINES = [b"%d" % number for number in range(6)]
POSITION_COUNT = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerCluster]:
    with WorkerCluster(tmp_path_factory.mktemp("damaged") / "cluster") as cluster:
        cluster.start_worker(0, host="here")
        cluster.start_worker(1, host="there")
        yield cluster


def identity(key: bytes, values: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return ((key, value) for value in values)


def run(
    cluster: WorkerCluster, directory: Path, number: int, position: int | None
) -> tuple[list[bytes], JobStatus, int]:
    """Parts, the end, and the size of the first map's segment. The last map flips a byte there."""
    job_id = JobId(f"damaged-{number:08d}")
    root, size_file = str(cluster.directory), directory / "size"
    flipped = directory / "flipped"
    last = LINES[-1]

    def damaging(line: bytes) -> Iterator[tuple[bytes, bytes]]:
        import os
        import time
        from pathlib import Path

        yield b"%d" % (int(line) % 3), line
        if line != last or flipped.exists():
            return
        pattern = f"worker-*/segments/{job_id}/m-00000*.segment"
        while not (content := b"".join(each.read_bytes() for each in Path(root).glob(pattern))):
            time.sleep(0.005)  # another process writes it, and tells nobody that it has
        size_file.write_text(str(len(content)))
        if position is not None:
            (segment,) = Path(root).glob(pattern)  # another map's may follow in it, at any moment
            at = position % len(content)
            with segment.open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), bytes([content[at] ^ 0x10]), at)
            flipped.touch()

    splits = []
    for index in range(3):
        source = directory / f"in-{index}"
        source.write_bytes(b"".join(line + b"\n" for line in LINES[2 * index : 2 * index + 2]))
        splits.append(split_of(source, index))
    job = Job("damaged", map=damaging, reduce=identity)
    spec = spec_for(job, directory, tuple(splits), partitions=2, job_id=job_id)
    spec = msgspec.structs.replace(spec, backup_policy="none")  # they would be more attempts
    cluster.submit(spec)
    status = cluster.wait(spec)
    assert status.state is JobState.DONE, status.failure
    parts = [path.read_bytes() for path in sorted((directory / "out").glob("part-*"))]
    return parts, status, int(size_file.read_text())


def test_a_byte_flipped_anywhere_is_found_and_costs_one_map(
    cluster: WorkerCluster, tmp_path: Path
) -> None:
    (tmp_path / "sound").mkdir()
    wanted, sound, size = run(cluster, tmp_path / "sound", 0, None)
    assert sound.counters["map.attempts.launched"] == 3
    positions = [*range(0, size, size // POSITION_COUNT), size - 1]
    for number, position in enumerate(positions, 1):
        directory = tmp_path / str(number)
        directory.mkdir()
        parts, status, _ = run(cluster, directory, number, position)
        assert parts == wanted, position
        assert status.counters["map.attempts.launched"] == 4, position
        assert status.counters["map.attempts.lost"] == 1, position
        assert status.counters["map.input_records"] == len(LINES), position
