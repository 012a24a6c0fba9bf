"""A real master process: requests over real sockets, restarts, kill -9, refusals."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from minigfs.errors import (
    AuthenticationFailed,
    FileExists,
    FileMissing,
    InvalidConfig,
    IsDirectory,
    NotEnoughChunkservers,
    WriterFenced,
)
from minigfs.master.heartbeat_messages import ReplicaReport
from minigfs.master.messages import (
    AllocateChunks,
    CreateFile,
    DiscardFile,
    Find,
    GetClusterReport,
    ListDirectory,
    Locate,
    MakeDirectory,
    PublishFile,
    Remove,
    Rename,
    RenewWriters,
    ReportDamage,
    SealedChunk,
    Stat,
)
from minigfs.transport.client import ConnectionPool
from minigfs.transport.security import Security
from tests.minigfs.master.test_membership import beat

SERVE = """
import asyncio, json, sys
from pathlib import Path
from minigfs.config import FileSystemConfig
from minigfs.errors import MinigfsError
from minigfs.master.process import FileSystemService, MasterOptions, serve_master
from minigfs.ports import SystemClock, SystemRng
from minigfs.transport.security import Security

directory, config = Path(sys.argv[1]), FileSystemConfig(**json.loads(sys.argv[2]))
options = MasterOptions(
    directory=directory, listen=sys.argv[3], security=Security(b"t" * 32, "c"), config=config
)
service = FileSystemService(config, options, SystemClock(), SystemRng())
try:
    asyncio.run(serve_master(options, [service], ready=lambda a: print(a, flush=True)))
except MinigfsError as error:
    print(f"{error.code}: {error}", flush=True)
    sys.exit(1)
"""
CONFIG = {"cluster_id": "c", "chunk_bytes": 1024, "replication": 3}


class RunningMaster:
    def __init__(self, directory, config=CONFIG, listen="127.0.0.1:0") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(directory), json.dumps(config), listen],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.answer = self.process.stdout.readline().strip()
        self.pool = ConnectionPool(Security(b"t" * 32, "c"))

    def call(self, request, timeout_ms=10_000):
        return self.pool.call(self.answer, request, timeout_ms=timeout_ms)

    def end(self, number=signal.SIGTERM) -> int:
        self.pool.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(10)
        self.process.stdout.close()
        return code

    def has_failed(self) -> bool:
        """Whether it ended by itself, with the exit code of a refusal."""
        self.process.wait(10)
        return self.end() == 1

    def heartbeats(self, *names, **fields):
        return [self.call(beat(name, full=True, **fields)) for name in names]

    def write(self, path, size_bytes, servers=("s0", "s1", "s2")):
        created = self.call(CreateFile(path=path))
        count = -(-size_bytes // created.chunk_bytes)
        chunks = self.call(
            AllocateChunks(file_id=created.file_id, first_index=0, count=count)
        ).chunks
        sealed = tuple(
            SealedChunk(
                handle=c.handle,
                length_bytes=min(1024, size_bytes - 1024 * i),
                digest=c.handle,
                replicas=servers,
            )
            for i, c in enumerate(chunks)
        )
        return self.call(PublishFile(file_id=created.file_id, path=path, chunks=sealed))


@contextmanager
def running(directory, **options):
    master = RunningMaster(directory, **options)
    try:
        yield master
    finally:
        master.end()


def test_a_file_is_written_found_moved_and_removed(tmp_path) -> None:
    with running(tmp_path) as master:
        call = master.call
        master.heartbeats("s0", "s1", "s2")
        call(MakeDirectory(path="/a/b", parents=True))
        status = master.write("/a/b/f", 2500)
        assert call(Stat(path="/a/b/f")) == status
        assert (status.size_bytes, status.chunk_count, status.replication) == (2500, 3, 3)
        located = call(Locate(path="/a/b/f", first_index=1, count=9))
        assert located.status == status
        assert [(c.index, c.length_bytes) for c in located.chunks] == [(1, 1024), (2, 452)]
        assert {r.address for r in located.chunks[0].replicas} == {"s0:1", "s1:1", "s2:1"}
        call(Rename(source="/a/b", target="/c"))
        assert [e.path for e in call(ListDirectory(path="/c")).entries] == ["/c/f"]
        assert [e.path for e in call(Find(path="/")).entries] == ["/a", "/c", "/c/f"]
        with pytest.raises(FileMissing):
            call(Stat(path="/a/b/f"))
        with pytest.raises(IsDirectory):
            call(Locate(path="/c"))
        by_id = call(Locate(path="/a/b/f", first_index=1, count=9, file_id=status.file_id))
        assert by_id.chunks == located.chunks
        with pytest.raises(FileMissing, match="/a/b/f"):
            call(Locate(path="/a/b/f", file_id=type(status.file_id)(999)))
        removed = call(Remove(path="/c", recursive=True))
        assert (removed.file_count, removed.directory_count) == (1, 1)


def test_everything_acknowledged_is_there_after_kill_9_and_after_a_clean_stop(tmp_path) -> None:
    for round_number in range(4):
        master = RunningMaster(tmp_path)
        found = [e.path for e in master.call(Find(path="/")).entries]
        assert found == sorted(f"/{name}{i}" for i in range(round_number) for name in "df")
        master.heartbeats("s0", "s1", "s2")
        master.call(MakeDirectory(path=f"/d{round_number}"))
        status = master.write(f"/f{round_number}", 3000)
        assert master.call(Stat(path=f"/f{round_number}")) == status
        clean = round_number % 2
        code = master.end(signal.SIGTERM if clean else signal.SIGKILL)
        assert code == (0 if clean else -signal.SIGKILL)


def test_a_publish_retried_after_a_restart_is_answered_with_the_status(tmp_path) -> None:
    master = RunningMaster(tmp_path)
    file_id = master.call(CreateFile(path="/f", exclusive=True)).file_id
    request = PublishFile(file_id=file_id, path="/f", chunks=(), exclusive=True)
    status = master.call(request)
    master.end(signal.SIGKILL)
    with running(tmp_path) as again:
        assert again.call(request) == status
        with pytest.raises(FileExists):
            again.call(CreateFile(path="/f", exclusive=True))


def test_a_writer_goes_on_over_a_restart_of_the_master(tmp_path) -> None:
    master = RunningMaster(tmp_path)
    master.heartbeats("s0", "s1", "s2")
    file_id = master.call(CreateFile(path="/f")).file_id
    first = master.call(AllocateChunks(file_id=file_id, first_index=0, count=1)).chunks[0]
    master.end(signal.SIGKILL)
    with running(tmp_path) as again:
        again.heartbeats("s0", "s1", "s2")
        again.call(RenewWriters(file_ids=(file_id, 999)))
        second = again.call(
            AllocateChunks(file_id=file_id, first_index=1, count=1, excluded=("s1",))
        ).chunks[0]
        assert second.handle == first.handle + 1
        assert {r.chunkserver_id for r in second.replicas} == {"s0", "s2"}
        again.call(DiscardFile(file_id=file_id))
        again.call(DiscardFile(file_id=file_id))
        with pytest.raises(WriterFenced):
            again.call(AllocateChunks(file_id=file_id, first_index=0, count=1))


def test_without_chunkservers_allocation_waits_a_moment_and_then_says_so(tmp_path) -> None:
    with running(tmp_path) as master:
        file_id = master.call(CreateFile(path="/f")).file_id
        with pytest.raises(NotEnoughChunkservers):
            master.call(AllocateChunks(file_id=file_id, first_index=0, count=1))


def test_the_chunks_of_a_removed_file_are_ordered_deleted_and_the_order_outlives_the_master(
    tmp_path,
) -> None:
    master = RunningMaster(tmp_path)
    master.heartbeats("s0", "s1", "s2")
    master.write("/f", 10)
    (chunk,) = master.call(Locate(path="/f")).chunks
    master.call(Remove(path="/f", now=True))
    master.end(signal.SIGKILL)
    with running(tmp_path) as again:
        held = (ReplicaReport(handle=chunk.handle, version=1, length_bytes=10),)
        assert [r.delete for r in again.heartbeats("s0", chunks=held)] == [(chunk.handle,)]


def test_the_report_tells_health_members_and_counts(tmp_path) -> None:
    with running(tmp_path) as master:
        report = master.call(GetClusterReport())
        assert report.health == "DEGRADED"
        assert "waiting for chunkservers" in report.reasons
        master.heartbeats("s0", "s1", "s2")
        master.write("/a/f", 2000)
        report = master.call(GetClusterReport())
        assert (report.health, report.reasons) == ("OK", ())
        assert (report.file_count, report.directory_count, report.chunk_count) == (1, 1, 2)
        assert [c.id for c in report.chunkservers] == ["s0", "s1", "s2"]
        (member,) = report.masters
        assert (member.role, member.address, member.dir) == (
            "leader",
            master.answer,
            str(tmp_path),
        )
        assert member.pid == master.process.pid
        assert member.id == json.loads((tmp_path / "members.json").read_text())["member_id"]
        handle = master.call(Locate(path="/a/f")).chunks[0].handle
        for name in ("s0", "s1"):
            master.call(ReportDamage(handle=handle, chunkserver_id=name, reason="test"))
        report = master.call(GetClusterReport())
        assert report.health == "DATA_AT_RISK"
        (replica,) = master.call(Locate(path="/a/f", count=1)).chunks[0].replicas
        assert replica.chunkserver_id == "s2"


def test_a_chunkserver_of_another_cluster_is_refused(tmp_path) -> None:
    with running(tmp_path) as master, pytest.raises(InvalidConfig, match="other"):
        master.heartbeats("s0", cluster="other")


def test_a_wrong_token_is_refused(tmp_path) -> None:
    with running(tmp_path) as master:
        stranger = ConnectionPool(Security(b"wrong" * 8, "c"))
        with pytest.raises(AuthenticationFailed):
            stranger.call(master.answer, Stat(path="/"))
        stranger.close()


@pytest.mark.parametrize(
    "other", [{"chunk_bytes": 4096}, {"replication": 2}, {"cluster_id": "another"}]
)
def test_a_start_with_other_values_is_refused(tmp_path, other) -> None:
    RunningMaster(tmp_path).end()
    master = RunningMaster(tmp_path, config=CONFIG | other)
    assert master.answer.startswith("invalid-config:")
    assert str(tmp_path) in master.answer
    assert master.has_failed()


def test_a_second_master_on_one_directory_is_refused(tmp_path) -> None:
    with running(tmp_path) as master:
        second = RunningMaster(tmp_path)
        assert second.answer.startswith("invalid-config:")
        assert f"process {master.process.pid}" in second.answer
        assert second.has_failed()


def test_a_damaged_log_stops_the_start_with_file_and_offset(tmp_path) -> None:
    with running(tmp_path) as master:
        for i in range(3):
            master.call(MakeDirectory(path=f"/{i}"))
    path = min((tmp_path / "wal").iterdir())
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 4]))
    master = RunningMaster(tmp_path)
    assert master.answer.startswith("corrupt-log:")
    assert f"wal/{path.name}" in master.answer
    assert "offset" in master.answer
    assert master.has_failed()


def test_beyond_loopback_it_listens_only_with_tls_or_insecure(tmp_path) -> None:
    master = RunningMaster(tmp_path, listen="0.0.0.0:0")
    assert master.answer.startswith("invalid-config:")
    assert master.has_failed()
    assert not (tmp_path / "wal").exists()


def test_files_of_the_master_are_its_owners_alone(tmp_path) -> None:
    with running(tmp_path):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"members.json", "lock"}
        assert len(files) > 2
        assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_a_directory_of_an_older_release_is_refused_and_left_alone(tmp_path) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "wal.log").write_bytes(b"old")
    master = RunningMaster(tmp_path)
    assert master.answer.startswith("invalid-config:")
    assert "older release" in master.answer
    assert master.has_failed()
    assert [path.name for path in (tmp_path / "wal").iterdir()] == ["wal.log"]


def test_a_master_whose_log_is_gone_does_not_come_back_under_its_id(tmp_path) -> None:
    RunningMaster(tmp_path).end()
    shutil.rmtree(tmp_path / "wal")
    master = RunningMaster(tmp_path)
    assert master.answer.startswith("invalid-config:")
    assert "its log is gone" in master.answer
    assert master.has_failed()
