"""Runs the attempts of a job one after the other, as the simplest of all backends would."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from minimr.formats.storage import Storage
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.job import Job
from minimr.messages import (
    Assignment,
    AttemptResult,
    FileRange,
    JobSpec,
    MapAssignment,
    MapOutput,
    MapResult,
    Part,
    PublishAssignment,
    ReduceAssignment,
    ReduceResult,
    Split,
    SplitPoint,
)
from minimr.shuffle.fetch import SegmentFetcher
from minimr.tasks.attempt import AttemptContext, run_attempt

__all__ = ["Bench", "ranges_of", "splits_of"]

JOB_ID = JobId("test-00000001")


def ranges_of(path: Path, cut_bytes: int) -> list[FileRange]:
    size = path.stat().st_size
    compression = "gzip" if path.suffix == ".gz" else ""
    step = size if compression else cut_bytes
    return [
        FileRange(
            url=f"file://{path}",
            start=start,
            length=min(step, size - start),
            file_bytes=size,
            compression=compression,
        )
        for start in range(0, size, max(step, 1))
    ]


def splits_of(paths: Sequence[Path], cut_bytes: int = 1 << 30) -> tuple[Split, ...]:
    ranges = [each for path in paths for each in ranges_of(path, cut_bytes)]
    return tuple(
        Split(index=index, ranges=(each,), size_bytes=each.length)
        for index, each in enumerate(ranges)
    )


@dataclass(kw_only=True)
class Bench:
    """A job, its input and a directory for everything it writes."""

    job: Job
    splits: tuple[Split, ...]
    directory: Path
    partition_count: int = 1
    memory_bytes: int = 1 << 30
    settings: tuple[tuple[str, str], ...] = ()
    overwrite: bool = False
    split_points: tuple[SplitPoint, ...] = ()
    job_id: JobId = JOB_ID
    is_cancelled: Callable[[], bool] = lambda: False
    storage: Storage = field(default_factory=Storage)
    counters: Counter[str] = field(default_factory=Counter)
    progress: list[tuple[int, int]] = field(default_factory=list)
    attempt_numbers: Iterator[int] = field(default_factory=count)

    @property
    def spec(self) -> JobSpec:
        return JobSpec(
            job_id=self.job_id,
            name=self.job.name,
            code=b"",
            inputs=("file:///in",),
            output=f"file://{self.directory}/out",
            staging=f"file://{self.directory}/_minimr-{self.job_id}",
            splits=self.splits,
            partition_count=self.partition_count,
            overwrite=self.overwrite,
            settings=self.settings,
            memory_bytes=self.memory_bytes,
            split_points=self.split_points,
        )

    @property
    def scratch(self) -> Path:
        return self.directory / "scratch"

    @property
    def output(self) -> Path:
        return self.directory / "out"

    @property
    def attempts(self) -> Path:
        return self.staging.with_name(f"{self.staging.name}-attempts")

    @property
    def staging(self) -> Path:
        return self.directory / f"_minimr-{self.job_id}"

    def context(self, assignment: Assignment) -> AttemptContext:
        return AttemptContext(
            job=self.job,
            spec=self.spec,
            assignment=assignment,
            scratch=self.scratch,
            worker_id=WorkerId("w"),
            address="",
            host="here",
            fetcher=SegmentFetcher("here"),
            report_progress=lambda done, total: self.progress.append((done, total)),
            is_cancelled=self.is_cancelled,
            storage=self.storage,
        )

    def attempt(self, assignment: Assignment) -> AttemptResult:
        result = run_attempt(self.context(assignment))
        if isinstance(result, MapResult | ReduceResult):
            self.counters.update(result.counters)
        return result

    def attempt_id(self, phase: TaskPhase, index: int) -> AttemptId:
        return AttemptId(TaskId(self.job_id, phase, index), 1, next(self.attempt_numbers))

    def map(self, index: int) -> MapResult:
        result = self.attempt(
            MapAssignment(
                attempt=self.attempt_id(TaskPhase.MAP, index),
                split=self.splits[index],
                partition_count=self.partition_count,
            )
        )
        assert isinstance(result, MapResult)
        return result

    def reduce(self, partition: int, outputs: Sequence[MapOutput]) -> Part:
        result = self.attempt(
            ReduceAssignment(
                attempt=self.attempt_id(TaskPhase.REDUCE, partition),
                partition=partition,
                map_count=len(outputs),
                map_outputs=tuple(outputs),
            )
        )
        assert isinstance(result, ReduceResult)
        return result.part

    def publish(self, parts: Sequence[Part]) -> None:
        self.attempt(
            PublishAssignment(
                attempt=self.attempt_id(TaskPhase.PUBLISH, 0),
                parts=tuple(parts),
                counters=dict(self.counters),
            )
        )

    def parts(self) -> list[Part]:
        """Run everything but the publish attempt."""
        results = [self.map(split.index) for split in self.splits]
        if not self.partition_count:
            return [result.part for result in results if result.part is not None]
        outputs = [result.output for result in results if result.output is not None]
        return [self.reduce(partition, outputs) for partition in range(self.partition_count)]

    def run(self) -> dict[str, bytes]:
        """Run everything; the part files by name."""
        self.publish(self.parts())
        return {each.name: each.read_bytes() for each in sorted(self.output.glob("part-*"))}
