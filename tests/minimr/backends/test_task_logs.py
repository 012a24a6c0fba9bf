"""What is kept of what user code prints, and how much at most."""

from pathlib import Path

import pytest

from minimr.backends.task_logs import (
    LOG_BYTES_MAX,
    LOG_FILE_BYTES_MAX,
    FetchTaskLogs,
    TaskLog,
    TaskLogs,
)
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase

JOB = JobId("talk-00000001")
ATTEMPT = AttemptId(TaskId(JOB, TaskPhase.MAP, 3), 1, 7)


class Stream:
    """Keeps what a handler sends."""

    def send(self, message: object) -> None:
        self.sent = message


@pytest.fixture
def logs(tmp_path: Path) -> TaskLogs:
    return TaskLogs(tmp_path / "logs")


def shown(logs: TaskLogs) -> list[TaskLog]:
    stream = Stream()
    logs.handlers()[FetchTaskLogs](FetchTaskLogs(job_id=JOB), stream)
    return list(stream.sent.logs)


def test_a_log_without_bound_keeps_its_end_and_takes_little_space(logs: TaskLogs) -> None:
    path = logs.path(ATTEMPT)
    lines = [b"%09d\n" % number for number in range(2 * LOG_FILE_BYTES_MAX // 10)]
    with path.open("ab", buffering=0) as log:  # as an executor has it: open, appending
        for start in range(0, len(lines), 1000):
            log.write(b"".join(lines[start : start + 1000]))
            logs.bound(path)
            kept_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
            assert kept_bytes <= LOG_FILE_BYTES_MAX + LOG_BYTES_MAX + 10_000
    logs.keep(path)
    (log,) = shown(logs)
    assert log.attempt == ATTEMPT.file_stem
    assert log.size_bytes == 10 * len(lines)
    assert log.content == b"".join(lines)[-LOG_BYTES_MAX:]


def test_a_short_log_is_kept_whole_and_an_empty_one_not_at_all(logs: TaskLogs) -> None:
    path = logs.path(ATTEMPT)
    path.write_bytes(b"hello\n")
    logs.keep(path)
    assert [(log.size_bytes, log.content) for log in shown(logs)] == [(6, b"hello\n")]
    path.write_bytes(b"")
    logs.keep(path)
    assert shown(logs) == []
    logs.keep(path)  # of an attempt that never began
