"""What a worker finds again on its disk, and what it refuses to touch."""

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.security import Security
from minimr.backends.worker import WorkerOptions, WorkerSupervisor
from minimr.backends.worker_disk import WorkerDisk
from minimr.errors import SegmentUnavailable
from minimr.ids import JobId

SECURITY = Security(b"token", "cluster")


def bound(disk: WorkerDisk) -> str:
    server = BulkServer({}, SECURITY)
    address = disk.bind_segment_server(server, "127.0.0.1:0")
    server.stop()
    return address


def test_the_segment_server_keeps_its_port_over_restarts(tmp_path: Path) -> None:
    disk = WorkerDisk(tmp_path)
    assert bound(disk) == bound(disk)


def test_a_port_that_is_taken_meanwhile_is_replaced_for_good(tmp_path: Path) -> None:
    disk = WorkerDisk(tmp_path)
    before = bound(disk)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        thief.listen()
        after = bound(disk)
        assert after != before
        assert bound(disk) == after


def test_complete_segments_are_found_again_and_temporary_files_are_not(tmp_path: Path) -> None:
    disk = WorkerDisk(tmp_path)
    disk.make_job_directory(JobId("job-1"))
    (disk.segments / "job-1" / "m-00003.2-17.segment").write_bytes(b"x")
    (disk.segments / "job-1" / "m-00004.2-18.segment.tmp").write_bytes(b"x")
    assert disk.stored() == ("m-00003.2-17",)
    assert disk.jobs() == ("job-1",)
    disk.remove_job(JobId("job-1"))
    disk.remove_job(JobId("job-1"))
    assert disk.stored() == ()
    assert disk.jobs() == ()


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "/etc"])
def test_a_job_id_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    disk = WorkerDisk(tmp_path / "worker")
    (tmp_path / "other").mkdir()
    with pytest.raises(SegmentUnavailable):
        disk.remove_job(JobId(name))
    assert (tmp_path / "other").exists()
    assert disk.segments.exists()


def test_an_almost_full_disk_takes_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = WorkerDisk(tmp_path)
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil gives it
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1000, 960, 40))
    assert "free some space" in disk.complaint()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1000, 900, 100))
    assert disk.complaint() == ""


def test_a_worker_without_a_master_keeps_trying_and_stops_whole(tmp_path: Path) -> None:
    options = WorkerOptions(
        directory=tmp_path / "worker", listen="127.0.0.1:0", masters=("127.0.0.1:1",),
        security=SECURITY, host="here",
    )  # fmt: skip
    worker = WorkerSupervisor(options)
    others = set(psutil.Process().children())
    worker.start()
    children = set(psutil.Process().children()) - others
    assert not worker.wait_registered(300)
    worker.stop()
    gone, alive = psutil.wait_procs(children, 10)
    assert gone
    assert not alive
    WorkerDisk(options.directory).close()  # the lock is free again
