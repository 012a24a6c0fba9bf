"""The jobs through real map and reduce tasks: splits of any size, any number of partitions."""

import re
from collections import Counter
from pathlib import Path

import pytest

from minimr import Job
from minimr.datasets.access_log import generate
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase, WorkerId
from minimr.jobs import url_count, word_count
from minimr.messages import (
    JobSpec,
    MapAssignment,
    MapOutput,
    MapResult,
    ReduceAssignment,
    ReduceResult,
)
from minimr.plan.naming import attempts_url
from minimr.plan.splits import InputFile, plan_splits
from minimr.shuffle.fetch import SegmentFetcher
from minimr.tasks.attempt import run_attempt
from minimr.tasks.context import AttemptContext


class Workplace:
    """Runs the attempts of one job one after the other, as a worker with one slot would."""

    def __init__(self, directory: Path, job: Job, log: Path, split_bytes: int, partitions: int):
        self.job = job
        self.directory = directory
        size_bytes = log.stat().st_size
        self.spec = JobSpec(
            job_id=JobId("test-00000001"),
            name=job.name,
            code=b"",
            inputs=(str(log),),
            output=str(directory / "out"),
            staging=str(directory / "_staging"),
            splits=plan_splits(
                [InputFile(url=str(log), size_bytes=size_bytes)], split_bytes=split_bytes, slots=2
            ),
            partition_count=partitions,
        )

    def run(self) -> tuple[list[bytes], Counter[str]]:
        """Each part's bytes, and the counters of all attempts."""
        counters: Counter[str] = Counter()
        outputs: list[MapOutput] = []
        for split in self.spec.splits:
            attempt = self._attempt_id(TaskPhase.MAP, split.index)
            result = self._run(
                MapAssignment(
                    attempt=attempt, split=split, partition_count=self.spec.partition_count
                )
            )
            assert isinstance(result, MapResult)
            assert result.output is not None
            outputs.append(result.output)
            counters.update(result.counters)
        parts = []
        for partition in range(self.spec.partition_count):
            attempt = self._attempt_id(TaskPhase.REDUCE, partition)
            result = self._run(
                ReduceAssignment(
                    attempt=attempt,
                    partition=partition,
                    map_count=len(outputs),
                    map_outputs=tuple(outputs),
                )
            )
            assert isinstance(result, ReduceResult)
            counters.update(result.counters)
            attempts = Path(attempts_url(self.spec.staging))
            parts.append((attempts / result.part.attempt_name).read_bytes())
        return parts, counters

    def _attempt_id(self, phase: TaskPhase, index: int) -> AttemptId:
        return AttemptId(TaskId(self.spec.job_id, phase, index), 1, 1)

    def _run(self, assignment: MapAssignment | ReduceAssignment) -> MapResult | ReduceResult:
        context = AttemptContext(
            job=self.job,
            spec=self.spec,
            assignment=assignment,
            scratch=self.directory / "scratch",
            worker_id=WorkerId("w"),
            address="",
            host="here",
            fetcher=SegmentFetcher("here"),
            report_progress=lambda done, total: None,
            is_cancelled=lambda: False,
        )
        result = run_attempt(context)
        assert isinstance(result, MapResult | ReduceResult)
        return result


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "access.log"
    path.write_bytes(b"".join(generate(300_000, 5)) + b"no line feed at the end")
    return path


def expected_fields(log: Path, number: int) -> Counter[bytes]:
    split = [line.split() for line in log.read_bytes().splitlines()]
    return Counter(parts[number - 1] for parts in split if len(parts) >= number)


def text_of(pairs: list[tuple[bytes, int]]) -> bytes:
    return b"".join(b"%s\t%d\n" % pair for pair in pairs)


@pytest.mark.parametrize(("split_bytes", "partitions"), [(1 << 20, 1), (70_000, 3), (9_999, 2)])
def test_url_count_is_the_same_for_any_splits_and_partitions(
    tmp_path: Path, log: Path, split_bytes: int, partitions: int
) -> None:
    job = url_count.job({"field": "7"})
    parts, counters = Workplace(tmp_path, job, log, split_bytes, partitions).run()
    expected = expected_fields(log, 7)
    lines = sorted(line for part in parts for line in part.splitlines(keepends=True))
    assert b"".join(lines) == b"".join(sorted(text_of([pair]) for pair in expected.items()))
    assert counters["map.malformed_records"] == len(log.read_bytes().splitlines()) - sum(
        expected.values()
    )


@pytest.mark.parametrize(("limit", "partitions"), [(1, 1), (10, 3), (10**6, 4)])
def test_top_is_in_the_first_part_in_order_for_any_number_of_partitions(
    tmp_path: Path, log: Path, limit: int, partitions: int
) -> None:
    job = url_count.job({"field": "7", "top": str(limit)})
    parts, _ = Workplace(tmp_path, job, log, 100_000, partitions).run()
    ranking = sorted(expected_fields(log, 7).items(), key=lambda pair: (-pair[1], pair[0]))
    assert parts[0] == text_of(ranking[:limit])
    assert set(parts[1:]) <= {b""}


def test_word_count_is_the_same_for_any_splits(tmp_path: Path, log: Path) -> None:
    answers = []
    for split_bytes in (1 << 20, 30_000):
        workplace = Workplace(tmp_path / str(split_bytes), word_count.job({}), log, split_bytes, 2)
        parts, _ = workplace.run()
        answers.append(parts)
    assert answers[0] == answers[1]
    words = dict(line.split(b"\t") for part in answers[0] for line in part.splitlines())
    expected = Counter(re.findall(rb"[a-z0-9]+", log.read_bytes().lower()))
    assert {word: int(count) for word, count in words.items()} == expected
