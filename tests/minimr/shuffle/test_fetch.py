"""Fetching map outputs: from the file on the same host, through a real server from another."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from minimr.errors import SegmentUnavailable
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.messages import MapOutput
from minimr.pairs import from_python
from minimr.shuffle import fetch as fetch_module
from minimr.shuffle.fetch import (
    FetchedPartition,
    MapOutputsLost,
    SegmentFetcher,
    segment_handlers,
)
from minimr.shuffle.pack import SegmentPack
from minimr.shuffle.places import job_directory, segment_file, segment_path
from minimr.shuffle.segment import SegmentEncoder, SegmentWriter

MEMORY_BYTES = 16 << 20
SECURITY = Security(token=b"t" * 32, cluster_id="c")


def attempt(index: int, job: str = "job-1") -> AttemptId:
    return AttemptId(TaskId(JobId(job), TaskPhase.MAP, index), 1, index)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = BulkServer(segment_handlers(tmp_path / "worker"), SECURITY, name="segments")
    yield server.start("127.0.0.1:0")
    server.stop()


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    pool = ConnectionPool(SECURITY)
    yield pool
    pool.close()


def make_output(
    directory: Path,
    index: int,
    address: str,
    rows: int = 3,
    *,
    value: int | None = None,
    pack: SegmentPack | None = None,
) -> MapOutput:
    path = segment_path(directory, attempt(index))
    values = [index if value is None else value] * rows

    def fill(segment: SegmentWriter | SegmentEncoder) -> None:
        segment.append(0, from_python([b"zero"], [index]))
        segment.append(1, from_python([b"%08d" % row for row in range(rows)], values))

    if pack is not None:
        summary = pack.put(path, fill, 2, "")
    else:
        with SegmentWriter(path, 2) as writer:
            fill(writer)
            summary = writer.close()
    return MapOutput(
        map_index=index,
        attempt=attempt(index),
        worker_id=WorkerId("w"),
        address=address,
        host="there",
        path=str(summary.path),
        size_bytes=summary.size_bytes,
        record_count=summary.record_count,
        digest=summary.digest,
        start=summary.start,
        shared="" if summary.path == path else summary.path.stem,
    )


def indexes_of(lost: MapOutputsLost) -> tuple[int, ...]:
    return tuple(attempt.task.index for attempt in lost.attempts)


def rows_of(fetched: list[FetchedPartition]) -> list[list[tuple[Any, Any]]]:
    return [
        [
            pair
            for batch in each.as_run(lambda _: None).batches
            for pair in zip(*batch.to_pydict().values(), strict=True)
        ]
        for each in fetched
    ]


@pytest.mark.parametrize("host", ["there", "elsewhere"])
@pytest.mark.parametrize("rows", [3, 300_000])
def test_outputs_arrive_in_order_whether_small_or_large(
    tmp_path: Path, address: str, pool: ConnectionPool, host: str, rows: int
) -> None:
    """3 outputs of 7 MB are more than stays in memory."""
    outputs = [make_output(tmp_path / "worker", index, address, rows) for index in range(3)]
    fetched = SegmentFetcher(host, pool).fetch(
        outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=len(outputs)
    )
    large = rows > 3 and host == "elsewhere"
    assert len(list(tmp_path.glob("fetch-*"))) == (1 if large else 0)
    for index, each in enumerate(fetched):
        batches = list(each.as_run(lambda _: None).batches)
        keys = [key for batch in batches for key in batch.column(0).to_pylist()]
        assert keys == [b"%08d" % row for row in range(rows)]
        assert {value for batch in batches for value in batch.column(1).to_pylist()} == {index}


def test_the_progress_of_reading_adds_up_to_the_size(
    tmp_path: Path, address: str, pool: ConnectionPool
) -> None:
    output = make_output(tmp_path / "worker", 0, address, 50_000)
    (fetched,) = SegmentFetcher("elsewhere", pool).fetch(
        [output], 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=1
    )
    read: list[int] = []
    list(fetched.as_run(read.append).batches)
    assert sum(read) == fetched.size_bytes


def test_every_lost_output_is_named_and_only_those(
    tmp_path: Path, address: str, pool: ConnectionPool
) -> None:
    outputs = [make_output(tmp_path / "worker", index, address) for index in range(4)]
    Path(outputs[1].path).unlink()
    Path(outputs[3].path).write_bytes(b"")
    for host in ("there", "elsewhere"):
        with pytest.raises(MapOutputsLost) as caught:
            SegmentFetcher(host, pool).fetch(
                outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=len(outputs)
            )
        assert indexes_of(caught.value) == (1, 3)


def test_a_dead_worker_loses_all_its_outputs(tmp_path: Path, pool: ConnectionPool) -> None:
    outputs = [make_output(tmp_path / "worker", index, "127.0.0.1:1") for index in range(9)]
    with pytest.raises(MapOutputsLost) as caught:
        SegmentFetcher("elsewhere", pool).fetch(
            outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=len(outputs)
        )
    assert indexes_of(caught.value) == tuple(range(9))


@pytest.mark.parametrize("host", ["there", "elsewhere"])
def test_a_byte_that_changed_after_the_commit_costs_that_map_only(
    tmp_path: Path, address: str, pool: ConnectionPool, host: str
) -> None:
    outputs = [make_output(tmp_path / "worker", index, address) for index in range(2)]
    path = Path(outputs[1].path)
    content = bytearray(path.read_bytes())
    content[content.index(b"00000001")] ^= 1
    path.write_bytes(content)
    with pytest.raises(MapOutputsLost, match="wrong sum") as caught:
        rows_of(
            SegmentFetcher(host, pool).fetch(
                outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=len(outputs)
            )
        )
    assert indexes_of(caught.value) == (1,)
    # An executor sends it as it is: a bool would not be taken for a number.
    assert (caught.value.damaged_count, type(caught.value.damaged_count)) == (1, int)


@pytest.mark.parametrize(
    ("rows", "value", "why"), [(3, 7, "not the one that was committed"), (4, 0, "ends wrong")]
)
def test_another_segment_under_the_same_name_is_not_taken(
    tmp_path: Path, address: str, pool: ConnectionPool, rows: int, value: int, why: str
) -> None:
    committed = make_output(tmp_path / "worker", 0, address, 3)
    make_output(tmp_path / "worker", 0, address, rows, value=value)
    for host in ("there", "elsewhere"):
        with pytest.raises(MapOutputsLost, match=why):
            SegmentFetcher(host, pool).fetch(
                [committed], 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=1
            )


@pytest.mark.parametrize("job", ["..", "../worker", "a/b", "/etc", "", ".", "a\0b"])
def test_no_name_from_the_wire_leads_out_of_the_directory(
    tmp_path: Path, address: str, pool: ConnectionPool, job: str
) -> None:
    with pytest.raises(SegmentUnavailable, match="not the id of a job"):
        job_directory(tmp_path, JobId(job))
    request = fetch_module.FetchSegment(attempt=attempt(0, job), partition=0, digest="")
    with (
        pytest.raises(SegmentUnavailable, match="not the id of a job"),
        pool.open_stream(address, request) as stream,
    ):
        stream.receive(fetch_module.SegmentHeader)


def test_a_full_disk_of_this_host_is_not_taken_for_lost_outputs(
    tmp_path: Path, address: str, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make_output(tmp_path / "worker", 0, address)
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    fetcher = SegmentFetcher("elsewhere", pool)
    assert fetcher.fetch([output], 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=1)
    with pytest.raises(OSError, match="must stay so") as caught:
        fetcher.fetch([output], 1, tmp_path, memory_bytes=0, map_count=1)
    assert caught.value.errno == errno.ENOSPC


def test_many_outputs_that_do_not_fit_go_to_few_files(
    tmp_path: Path, address: str, pool: ConnectionPool
) -> None:
    outputs = [make_output(tmp_path / "worker", index, address, index + 1) for index in range(40)]
    fetched = SegmentFetcher("elsewhere", pool).fetch(
        outputs, 1, tmp_path, memory_bytes=0, map_count=len(outputs)
    )
    assert [len(rows) for rows in rows_of(fetched)] == list(range(1, 41))
    assert 1 <= len(list(tmp_path.glob("fetch-*"))) <= fetch_module.FETCH_THREAD_COUNT


@pytest.mark.parametrize("host", ["there", "elsewhere"])
def test_segments_of_one_file_are_damaged_one_by_one(
    tmp_path: Path, address: str, pool: ConnectionPool, host: str
) -> None:
    pack = SegmentPack()
    outputs = [make_output(tmp_path / "worker", i, address, i + 1, pack=pack) for i in range(3)]
    pack.close()
    (shared,) = (tmp_path / "worker").rglob("*.segment")
    assert {output.path for output in outputs} == {str(shared)}
    fetcher = SegmentFetcher(host, pool)

    def fetch() -> list[list[tuple[Any, Any]]]:
        fetched = fetcher.fetch(outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=3)
        return rows_of(fetched)

    assert fetch() == [[(b"%08d" % row, i) for row in range(i + 1)] for i in range(3)]
    whole = shared.read_bytes()
    assert len(whole) == sum(output.size_bytes for output in outputs)
    for output in outputs:
        # The first byte, one of partition 1's frame, and the last one of the trailer.
        for place in (0, output.size_bytes // 2, output.size_bytes - 1):
            damaged = bytearray(whole)
            damaged[output.start + place] ^= 1
            shared.write_bytes(damaged)
            with pytest.raises(MapOutputsLost) as caught:
                fetch()
            assert indexes_of(caught.value) == (output.map_index,)
    shared.write_bytes(whole)
    assert fetch()


def test_a_pack_whose_file_was_removed_begins_another(
    tmp_path: Path, address: str, pool: ConnectionPool
) -> None:
    pack = SegmentPack()
    lost = make_output(tmp_path / "worker", 0, address, pack=pack)
    Path(lost.path).unlink()
    outputs = [make_output(tmp_path / "worker", i, address, pack=pack) for i in (1, 2)]
    pack.close()
    fetched = SegmentFetcher("elsewhere", pool).fetch(
        outputs, 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=2
    )
    assert [len(rows) for rows in rows_of(fetched)] == [3, 3]
    with pytest.raises(MapOutputsLost) as caught:
        SegmentFetcher("elsewhere", pool).fetch(
            [lost, *outputs], 1, tmp_path, memory_bytes=MEMORY_BYTES, map_count=3
        )
    assert indexes_of(caught.value) == (0,)


@pytest.mark.parametrize("stem", ["..", "../m-1.1-1", "m-1.1-1.segment", "a/m-1.1-1", "m", ".m"])
def test_no_file_stem_from_the_wire_leads_out_of_the_directory(tmp_path: Path, stem: str) -> None:
    with pytest.raises(SegmentUnavailable, match="not the name of an attempt's file"):
        segment_file(tmp_path, JobId("job-1"), stem)
