"""What user code prints, kept by the worker that ran it: one file an attempt.

::

    DIR/logs/JOB/STEM.log     stdout and stderr of one attempt; none if it printed nothing
    DIR/logs/JOB/STEM.cut     of one that printed a lot: how much was dropped, and the last of that

Kept beyond the job's end, for as many jobs as ``JOBS_KEPT``, and served to ``minimr jobs logs`` by
the worker's segment server.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from minigfs.transport.bulk_server import BulkHandler
from minigfs.transport.messages import Message, Request
from minigfs.transport.stream import Stream
from minimr.ids import AttemptId, JobId
from minimr.shuffle.places import job_directory

__all__ = ["FetchTaskLogs", "TaskLog", "TaskLogList", "TaskLogs", "task_stem"]

JOBS_KEPT = 50
LOG_BYTES_MAX = 256 << 10  # the end of a longer one is shown
LOG_FILE_BYTES_MAX = 4 << 20  # what is beyond is dropped, while the attempt runs
LIST_BYTES_MAX = 8 << 20
_TASK = re.compile(r"(?:.*/)?([mrp])-(\d+)(\..+)?")


class TaskLog(Message, frozen=True):
    """``attempt`` is the file stem of its id; ``size_bytes`` of all, ``content`` the last of it."""

    attempt: str
    size_bytes: int
    content: bytes


class TaskLogList(Message, frozen=True):
    logs: tuple[TaskLog, ...]


class _Cut(Message, frozen=True):
    """What was taken out of a log that grew too long: ``tail`` is the end of it."""

    dropped_bytes: int = 0
    tail: bytes = b""


class FetchTaskLogs(Request[TaskLogList], frozen=True, tag="work.logs"):
    """Logs of a job on this worker; ``task`` is the beginning of attempts' file stems."""

    job_id: JobId
    task: str = ""


def task_stem(task: str) -> str | None:
    """The beginning of the file stems of a task's attempts, from ``m-3``, ``m-00003`` or the name
    that statuses and errors show; None if it names no task."""
    found = _TASK.fullmatch(task)
    if found is None:
        return None
    phase, index, attempt = found.groups()
    return f"{phase}-{int(index):05d}.{(attempt or '')[1:]}"


class TaskLogs:
    """One worker's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def path(self, attempt: AttemptId) -> Path:
        """Where an attempt's output goes; makes room for a new job's."""
        folder = job_directory(self._directory, attempt.task.job_id)
        if not folder.exists():
            self._prune()
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{attempt.file_stem}.log"

    def bound(self, path: Path) -> None:
        """Keep a log that is being written from filling the disk; what is printed in the moment of
        the cut is lost."""
        size = _size_of(path)
        if size > LOG_FILE_BYTES_MAX:
            cut = _Cut(
                dropped_bytes=_read_cut(path).dropped_bytes + size,
                tail=_read_end(path, LOG_BYTES_MAX),
            )
            path.with_suffix(".cut").write_bytes(msgspec.msgpack.encode(cut))
            os.truncate(path, 0)  # it is appended to: the next byte is the first

    def keep(self, path: Path) -> None:
        """The attempt has ended: one that printed nothing leaves no file."""
        self.bound(path)
        if _size_of(path) == 0 and not _read_cut(path).dropped_bytes:
            path.unlink(missing_ok=True)  # it may not even have begun

    def handlers(self) -> Mapping[type[Request[Any]], BulkHandler]:
        def fetch(request: FetchTaskLogs, stream: Stream) -> None:
            stream.send(TaskLogList(logs=self._logs(request)))

        return {FetchTaskLogs: fetch}

    def _logs(self, request: FetchTaskLogs) -> tuple[TaskLog, ...]:
        folder = job_directory(self._directory, request.job_id)
        logs: list[TaskLog] = []
        left_bytes = LIST_BYTES_MAX
        for path in sorted(folder.glob("*.log")) if folder.exists() else ():
            if path.name.startswith(request.task) and left_bytes > 0:
                log = _read(path, min(LOG_BYTES_MAX, left_bytes))
                left_bytes -= len(log.content)
                logs.append(log)
        return tuple(logs)

    def _prune(self) -> None:
        folders = sorted(os.scandir(self._directory), key=lambda entry: entry.stat().st_mtime)
        for entry in folders[: max(0, len(folders) - JOBS_KEPT + 1)]:
            shutil.rmtree(entry.path, ignore_errors=True)


def _read(path: Path, bytes_max: int) -> TaskLog:
    cut = _read_cut(path)
    content = (cut.tail + _read_end(path, bytes_max))[-bytes_max:]
    return TaskLog(
        attempt=path.stem, size_bytes=cut.dropped_bytes + _size_of(path), content=content
    )


def _read_cut(path: Path) -> _Cut:
    try:
        return msgspec.msgpack.decode(path.with_suffix(".cut").read_bytes(), type=_Cut)
    except FileNotFoundError:
        return _Cut()


def _read_end(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - bytes_max))
        return log.read(bytes_max)


def _size_of(path: Path) -> int:
    """0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
