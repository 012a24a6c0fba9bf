"""Small jobs, and the messages that bring them to an executor."""

from pathlib import Path

import cloudpickle

from minimr.backends.executor import AttemptWork
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.job import Job, MapRecord
from minimr.messages import FileRange, JobSpec, MapAssignment, Split

__all__ = ["map_work", "spec_for", "split_of"]

JOB_ID = JobId("tiny-00000001")


def split_of(file: Path, index: int = 0) -> Split:
    size = file.stat().st_size
    whole = FileRange(url=f"file://{file}", start=0, length=size, file_bytes=size)
    return Split(index=index, ranges=(whole,), size_bytes=size)


def spec_for(
    job: Job, directory: Path, splits: tuple[Split, ...], *, partitions: int = 1,
    memory_bytes: int = 1 << 30, job_id: JobId = JOB_ID,
) -> JobSpec:  # fmt: skip
    return JobSpec(
        job_id=job_id,
        name=job.name,
        code=cloudpickle.dumps(job),
        inputs=("file:///in",),
        output=f"file://{directory}/out",
        staging=f"file://{directory}/_minimr-{job_id}",
        splits=splits,
        partition_count=partitions,
        memory_bytes=memory_bytes,
    )


def map_work(
    map_record: MapRecord, directory: Path, *, lines: bytes = b"a b\nb\n",
    memory_bytes: int = 1 << 30, counter: int = 1,
) -> AttemptWork:  # fmt: skip
    """One map attempt of a job with one reduce partition; ``map_record`` is defined in a test."""
    source = directory / "in.txt"
    source.write_bytes(lines)
    split = split_of(source)
    job = Job("tiny", map=map_record, reduce=lambda key, values: [(key, sum(values))])
    spec = spec_for(job, directory, (split,), memory_bytes=memory_bytes)
    attempt = AttemptId(TaskId(spec.job_id, TaskPhase.MAP, 0), 1, counter)
    scratch = directory / "segments"
    (scratch / spec.job_id).mkdir(parents=True, exist_ok=True)
    return AttemptWork(
        spec=spec,
        assignments=(MapAssignment(attempt=attempt, split=split, partition_count=1),),
        scratch=scratch,
        worker_id=WorkerId("worker"),
        host="here",
    )
