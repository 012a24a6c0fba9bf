"""Where a worker keeps what belongs to a job. Imports no Arrow: clients of a cluster need none."""

import re
from pathlib import Path

from minimr.errors import SegmentUnavailable
from minimr.ids import AttemptId, JobId

__all__ = ["job_directory", "segment_file", "segment_path"]

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_STEM = re.compile(r"[a-z]-[0-9]{1,20}\.[0-9]{1,20}-[0-9]{1,20}")


def job_directory(scratch: Path, job_id: JobId) -> Path:
    """Where a worker keeps its segments of a job; `SegmentUnavailable` for a name of no job."""
    if not _JOB_ID.fullmatch(job_id):
        raise SegmentUnavailable(f"{job_id!r} is not the id of a job")
    return scratch / job_id


def segment_file(scratch: Path, job_id: JobId, stem: str) -> Path:
    """A file with segments of a job below a worker's segment directory."""
    if not _STEM.fullmatch(stem):
        raise SegmentUnavailable(f"{stem!r} is not the name of an attempt's file")
    return job_directory(scratch, job_id) / f"{stem}.segment"


def segment_path(scratch: Path, attempt: AttemptId) -> Path:
    """The segment file that is an attempt's own."""
    return segment_file(scratch, attempt.task.job_id, attempt.file_stem)
