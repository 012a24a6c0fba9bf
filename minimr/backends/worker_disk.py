"""A worker's directory: its name, its port, and the segments of the jobs it worked for.

::

    DIR/worker_id               made once; the worker keeps its name across restarts
    DIR/segment_address         where its segment server listened last
    DIR/lock                    held by the process that is this worker
    DIR/segments/JOB/STEM.segment   map output of one attempt, or of several small ones (a pack)
    DIR/executor.log            what executors say outside of attempts
    DIR/logs                    what user code printed (`minimr.backends.task_logs`)

Names from the wire are checked before they become paths (`job_directory`).
"""

import fcntl
import os
import secrets
import shutil
from pathlib import Path

from minigfs.errors import InvalidConfig, Unreachable
from minigfs.transport.bulk_server import BulkServer
from minimr.ids import JobId, WorkerId
from minimr.shuffle.places import job_directory

__all__ = ["WorkerDisk"]

_FREE_SHARE_MIN = 0.05  # below it no task is taken on, so that masters can still write and delete


class WorkerDisk:
    """Made by the worker's process; `InvalidConfig` if another process is this worker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments = directory / "segments"
        self.segments.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self.worker_id = WorkerId(_read_or_make(directory / "worker_id", secrets.token_hex(6)))

    def bind_segment_server(self, server: BulkServer, listen: str) -> str:
        """Start ``server`` and return its address. Port 0 means the port it had before, if free:
        committed map outputs name it."""
        remembered = self.directory / "segment_address"
        if listen.endswith(":0") and remembered.exists():
            try:
                return server.start(remembered.read_text(encoding="ascii"))
            except (OSError, Unreachable, InvalidConfig):
                remembered.unlink()
        address = server.start(listen)
        remembered.write_text(address, encoding="ascii")
        return address

    def complaint(self) -> str:
        """Why the disk is too full to take on a task; "" if it is not."""
        usage = shutil.disk_usage(self.directory)
        if usage.free >= usage.total * _FREE_SHARE_MIN:
            return ""
        return (
            f"{self.directory} has {usage.free // 2**20} MiB free, less than "
            f"{_FREE_SHARE_MIN:.0%} of its disk: free some space"
        )

    def make_job_directory(self, job_id: JobId) -> None:
        job_directory(self.segments, job_id).mkdir(mode=0o700, exist_ok=True)

    def remove_job(self, job_id: JobId) -> None:
        """Forget a job's segments; a job that has none here is no error."""
        shutil.rmtree(job_directory(self.segments, job_id), ignore_errors=True)

    def jobs(self) -> tuple[JobId, ...]:
        """Jobs that have a directory here."""
        return tuple(sorted(JobId(entry.name) for entry in os.scandir(self.segments)))

    def stored(self) -> tuple[str, ...]:
        """The attempt file stem of each complete segment file."""
        return tuple(
            entry.stem
            for job_id in self.jobs()
            for entry in sorted((self.segments / job_id).glob("*.segment"))
        )

    def _take_lock(self) -> int:
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InvalidConfig(
                f"{self.directory} belongs to a worker that is running: give each its own"
            ) from None
        return descriptor

    def close(self) -> None:
        os.close(self._lock)


def _read_or_make(file: Path, value: str) -> str:
    """What stands in a small file; ``value`` is written if there is none yet."""
    try:
        return file.read_text(encoding="ascii")
    except FileNotFoundError:
        temporary = file.with_suffix(".new")
        temporary.write_text(value, encoding="ascii")
        temporary.rename(file)
        return value
